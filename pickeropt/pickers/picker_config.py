"""The settings and reports of `pickeropt pick`; all defaults stand here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pickeropt.errors import PickeroptError

KINDS = ("deepem", "deeppicker", "yolo")
"""DeepEM (Zhu et al. 2017), DeepPicker (Wang et al. 2016), the detector of crYOLO (Wagner et al. 2019)."""

FORMATS = ("star", "box", "cbox")


@dataclass(frozen=True)
class PickTrainConfig:
    """One training.

    picker : of `KINDS`
    diameter_angstrom : particle diameter, Å; None takes each micrograph's from the labels
    pixel_size : Å/px; None takes optics blocks and MRC headers, which must agree
    particles : learn from so many, drawn at random over the micrographs; None from all
    held_back : share of the micrographs that are held back to choose the threshold, one at least
    init : a picker of the same kind to start from, with its settings
    settings : of the picker, by name, in place of those and of its defaults
    """

    picker: str
    diameter_angstrom: float | None = None
    pixel_size: float | None = None
    particles: int | None = None
    held_back: float = 0.2
    init: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    device: str = "auto"

    def check(self) -> None:
        """Raises PickeroptError for a setting out of range."""
        if self.picker not in KINDS:
            raise PickeroptError(f"--picker is {self.picker!r}; give one of {', '.join(KINDS)}")
        check_size("--diameter", "Å", self.diameter_angstrom)
        check_size("--pixel-size", "Å/px", self.pixel_size)
        if self.particles is not None and self.particles < 1:
            raise PickeroptError(f"--particles is {self.particles}; give the number of particles to learn from")
        if not 0 < self.held_back < 1:
            raise PickeroptError(f"--held-back is {self.held_back:g}; give a share between 0 and 1, such as 0.2")


@dataclass(frozen=True)
class PickTrainReport:
    """What came out of a training: micrographs and particles by use, seconds, figures, the threshold."""

    out: Path
    picker: str
    micrographs: int
    held_back: int
    particles: int
    threshold: float
    figures: Mapping[str, float]
    seconds: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class PickRunConfig:
    """One picking.

    picker : file of `pickeropt pick train`
    out : folder to make
    format : of `FORMATS`
    threshold : least score of a pick; None takes the picker's own
    diameter_angstrom : None is that of the training; pixel_size : Å/px, None takes the MRC headers
    """

    picker: Path
    out: Path = Path("picks")
    format: str = "star"
    threshold: float | None = None
    diameter_angstrom: float | None = None
    pixel_size: float | None = None
    device: str = "auto"
    overwrite: bool = False

    def check(self) -> None:
        """Raises PickeroptError for a setting out of range."""
        if self.format not in FORMATS:
            raise PickeroptError(f"--format is {self.format!r}; give one of {', '.join(FORMATS)}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise PickeroptError(f"--threshold is {self.threshold:g}; give auto, or a score between 0 and 1")
        check_size("--diameter", "Å", self.diameter_angstrom)
        check_size("--pixel-size", "Å/px", self.pixel_size)


@dataclass(frozen=True)
class PickRunReport:
    """What came out of a picking.

    picks : all of them; micrographs : of which `resumed` by an earlier run and `empty` without a pick
    """

    out: Path
    micrographs: int
    picks: int
    empty: int
    resumed: int
    threshold: float
    seconds: float


def check_size(option: str, unit: str, value: float | None) -> None:
    """Raises PickeroptError where a size is given that is no finite number above 0."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise PickeroptError(f"{option} is {value:g}; give a number of {unit} above 0")
