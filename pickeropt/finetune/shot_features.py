"""How the shots are seen: each micrograph read once, or boxes that came without micrographs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pickeropt.describe import boxes_of, describe_boxes, describe_micrograph, fitted_boxes
from pickeropt.errors import GeometryError, MicrographError
from pickeropt.finetune.contrast_and_frame import with_contrast
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.io.micrographs import read_micrograph, read_micrograph_header
from pickeropt.io.pixel_size import choose_pixel_size
from pickeropt.models.backbone import Backbone
from pickeropt.models.spec import ModelSpec
from pickeropt.records import FloatArray
from pickeropt.shots import BoxShots, Shots

OnShots = Callable[[int, int], None]
"""Called with the number of shots seen and of all."""


@dataclass(frozen=True)
class LocatedShots:
    """Shots on micrographs, with the diameter in px of each micrograph; checked against the headers.

    shots : the chosen ones
    diameters_px : (micrographs,) particle diameter, px
    """

    shots: Shots
    diameters_px: tuple[float, ...]

    @property
    def groups(self) -> NDArray[np.int64]:
        """(n,) the micrograph of each shot: what is never split."""
        return self.shots.micrograph_index

    def features(self, backbone: Backbone, spec: ModelSpec, on_shots: OnShots) -> Tensor:
        """(n, d) float32."""
        return self._by_micrograph(
            lambda pixels, diameter, xy: describe_micrograph(backbone, spec, pixels, diameter, xy), on_shots
        )

    def boxes(self, spec: ModelSpec, on_shots: OnShots) -> Tensor:
        """(n, 1, s, s) float32 of the first view."""
        view = spec.view_diameters[0]
        return self._by_micrograph(
            lambda pixels, diameter, xy: torch.cat(list(boxes_of(spec, pixels, diameter, xy, view))), on_shots
        )

    def _by_micrograph(
        self, see: Callable[[FloatArray, float, NDArray[np.float64]], Tensor], on_shots: OnShots
    ) -> Tensor:
        rows: dict[int, Tensor] = {}
        for index in np.unique(self.shots.micrograph_index):
            here = np.flatnonzero(self.shots.micrograph_index == index)
            micrograph = read_micrograph(self.shots.micrographs[index])
            try:
                seen = see(micrograph.pixels, self.diameters_px[index], self.shots.coordinates[here])
            except GeometryError as error:
                raise MicrographError(f"{micrograph.path}: {error}; exclude this micrograph") from error
            rows |= dict(zip(here.tolist(), seen, strict=True))
            on_shots(len(rows), len(self.shots))
        return torch.stack([rows[row] for row in range(len(self.shots))])


@dataclass(frozen=True)
class LooseShots:
    """Shots that are boxes without micrographs, all of one pixel size (Å/px)."""

    shots: BoxShots
    pixel_size: float
    diameter_angstrom: float

    @property
    def groups(self) -> NDArray[np.int64]:
        """(n,) zeros: nothing says which boxes share a micrograph."""
        return np.zeros(len(self.shots), dtype=np.int64)

    @property
    def box_diameters(self) -> float:
        """Width of the smallest box in particle diameters."""
        smallest = min(min(box.shape) for box in self.shots.boxes)
        return float(smallest) * self.pixel_size / self.diameter_angstrom

    @property
    def _named(self) -> list[tuple[str, FloatArray]]:
        return list(zip(self.shots.sources, self.shots.boxes, strict=True))

    def features(self, backbone: Backbone, spec: ModelSpec, on_shots: OnShots) -> Tensor:
        """(n, d) float32."""
        seen = describe_boxes(backbone, spec, self._named, self.pixel_size, self.diameter_angstrom)
        on_shots(len(seen), len(seen))
        return seen

    def boxes(self, spec: ModelSpec, on_shots: OnShots) -> Tensor:
        """(n, 1, s, s) float32 of the first view."""
        view = spec.view_diameters[0]
        seen = fitted_boxes(spec, self._named, self.pixel_size, self.diameter_angstrom, view)
        on_shots(len(seen), len(seen))
        return seen


def locate(shots: Shots, config: FinetuneConfig) -> LocatedShots:
    """Find the diameter in px on every micrograph that has shots, before anything is computed.

    Raises GeometryError where flag, optics and headers leave the pixel size open or disagree, and where
    the particle does not fit.
    """
    diameters = []
    optics: Mapping[str, float] = {} if shots.pixel_size is None else {"the shots": shots.pixel_size}
    for path in shots.micrographs:
        header = read_micrograph_header(path)
        diameter = config.diameter_angstrom / choose_pixel_size(config.pixel_size, header, optics)
        if not 4 <= diameter <= min(header.shape):
            raise GeometryError(
                f"{path}: a particle of {config.diameter_angstrom:g} Å is {diameter:.1f} px across on "
                f"{header.shape[1]} x {header.shape[0]} px; check --diameter (Å) and --pixel-size (Å/px)"
            )
        diameters.append(diameter)
    return LocatedShots(shots, tuple(diameters))


def hold_loose(shots: BoxShots, config: FinetuneConfig) -> LooseShots:
    """Boxes carry no pixel size: the flag must.

    Raises GeometryError without it, or for a box too small; ShotsError for boxes of inverted contrast.
    """
    if config.pixel_size is None:
        raise GeometryError(
            "boxes without micrographs: give the pixel size of the boxes with --pixel-size (Å/px)"
        )
    loose = LooseShots(shots, config.pixel_size, config.diameter_angstrom)
    if loose.box_diameters < 1:
        smallest = min(range(len(shots)), key=lambda i: min(shots.boxes[i].shape))
        raise GeometryError(
            f"{shots.sources[smallest]}: {loose.box_diameters:.2f} particle diameters wide; it must hold "
            f"the particle of {config.diameter_angstrom:g} Å: check --diameter and --pixel-size, or cut "
            "larger boxes"
        )
    diameter_px = config.diameter_angstrom / config.pixel_size
    return replace(loose, shots=with_contrast(shots, diameter_px, config.invert))
