"""What travels between the verbs and the three pickers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pickeropt.records import Micrograph, Picks

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Labelled:
    """One micrograph whose particles are known, all or some of them.

    coordinates : (n, 2) float64, x and y of the centres of the particles to learn from, px
    pixel_size : Å/px; diameter_angstrom : of these particles, Å
    others : (m, 2) float64, particles known to be there that are not to be learnt from: no negative lies
        on them
    """

    path: Path
    coordinates: NDArray[np.float64]
    pixel_size: float
    diameter_angstrom: float
    others: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))

    @property
    def known(self) -> NDArray[np.float64]:
        """All particles that are known to be there, (n + m, 2)."""
        return np.concatenate([self.coordinates, self.others])

    @property
    def diameter_px(self) -> float:
        """Particle diameter in px of the micrograph."""
        return self.diameter_angstrom / self.pixel_size


@dataclass(frozen=True)
class Material:
    """What a picker learns from.

    training : at least one micrograph
    testing : held back, by micrograph: chooses the threshold and measures the learning error; empty
        where there is only one micrograph
    """

    training: tuple[Labelled, ...]
    testing: tuple[Labelled, ...]

    @property
    def judging(self) -> tuple[Labelled, ...]:
        """The micrographs that choose the threshold: those held back, or where there are none the others."""
        return self.testing or self.training


@dataclass(frozen=True)
class Detections:
    """All that a picker found on one micrograph, best first.

    coordinates : (n, 2) float64, x and y of the centres, px of the micrograph, rows as stored
    scores : (n,) float64 between 0 and 1, never rising
    sizes : (n, 2) float64 px, width and height of the boxes; None where the picker does not measure them
    """

    coordinates: NDArray[np.float64]
    scores: NDArray[np.float64]
    sizes: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float) -> "Detections":
        """Those with a score of `threshold` or more."""
        count = int((self.scores >= threshold).sum())
        sizes = None if self.sizes is None else self.sizes[:count]
        return Detections(self.coordinates[:count], self.scores[:count], sizes)

    def as_picks(self, name: str) -> Picks:
        """The same as picks of the micrograph `name`, scores as figure of merit."""
        index = np.zeros(len(self), dtype=np.int64)
        return Picks(self.coordinates, (name,) if len(self) else (), index, self.scores)


@dataclass(frozen=True)
class Job:
    """One training: its seed, its device, and the folder where it keeps what it needs to go on."""

    seed: int
    device: torch.device
    folder: Path
    on_progress: OnProgress


@dataclass(frozen=True)
class Trained:
    """What came out of a training.

    settings : of the picker, ready for JSON; state : its weights, float32
    threshold : least score of a pick; figures : measured on `Material.judging`, by name
    """

    settings: dict[str, Any]
    state: dict[str, Tensor]
    threshold: float
    figures: dict[str, float]


class Picker(Protocol):
    """A trained picker."""

    @property
    def kind(self) -> str:
        """deepem, deeppicker or yolo."""
        ...

    @property
    def threshold(self) -> float:
        """Least score of a pick, as training chose it."""
        ...

    def detect(self, micrograph: Micrograph, pixel_size: float, diameter_angstrom: float) -> Detections:
        """All candidates, also those below the threshold.

        pixel_size : Å/px of the micrograph
        Raises GeometryError where the particle does not fit the micrograph.
        """
        ...
