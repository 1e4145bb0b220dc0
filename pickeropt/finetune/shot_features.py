"""How the shots are seen: each micrograph read once, or boxes that came without micrographs.

Whether labelled shots are what they are taken for: the contrast of boxes, the frame of points.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pickeropt.errors import GeometryError, MicrographError, ShotsError
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.frame.checking import describe
from pickeropt.frame.evidence import judge_frame
from pickeropt.frame.frame_config import WRONG, FrameConfig, FrameSite
from pickeropt.io.micrographs import choose_pixel_size, read_micrograph
from pickeropt.models.backbone import Backbone
from pickeropt.models.features import boxes_of, describe_boxes, describe_micrograph, fitted_boxes
from pickeropt.models.head import ModelSpec
from pickeropt.records import PARTICLE, FloatArray, OnCount
from pickeropt.shots import BoxShots, Shots

MIDDLE, WHOLE, AROUND = 0.3, 0.45, (0.5, 0.75)
"""Radii in particle diameters. The fringe of defocus is brightest just inside the longest diameter, and a
shell is darkest there: the middle and the whole must agree."""
LEAST_AROUND = 0.05
"""Share of a box that must lie around the particle, or its contrast is not asked for."""
LOOK = FrameConfig(micrographs=8, pixels=150_000_000, least_picks=15)
"""Labels are few, and spread over micrographs."""
FEWEST, SURE = 5, 4.0
"""Boxes, and standard errors of their mean, from which on the contrast is beyond doubt."""


def with_contrast(shots: BoxShots, diameter_px: float, invert: bool | None) -> BoxShots:
    """The boxes as micrographs show them; `invert` turns all of them, None asks for no more than a look.

    Raises ShotsError where the particles are brighter than what is around them and nobody has said why:
    RELION's extraction inverts boxes, and a model of such boxes rejects particles of micrographs.
    """
    if invert:
        return BoxShots(shots.class_names, shots.labels, tuple(-box for box in shots.boxes), shots.sources)
    particles = [
        box for box, label in zip(shots.boxes, shots.labels, strict=True) if shots.class_names[label] == PARTICLE
    ]
    if invert is None and are_bright(particles, diameter_px):
        what = "particles are brighter than what is around them, as in boxes that RELION has inverted"
        raise ShotsError(
            f"{shots.sources[0]} and the other boxes: {what}; give --invert, or --no-invert where they are "
            "bright in the micrographs as well"
        )
    return shots


def are_bright(boxes: Sequence[FloatArray], diameter_px: float) -> bool:
    """Whether what (s, s) boxes show is brighter than the ring around it: the middle or the whole of it
    beyond doubt, the other at least as a mean."""
    found = [pair for box in boxes if (pair := _contrasts(box, diameter_px)) is not None]
    if len(found) < FEWEST:
        return False
    means = np.mean(found, axis=0)
    errors = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
    return bool((means > 0).all() and (means > SURE * errors).any())


def _contrasts(box: FloatArray, diameter_px: float) -> tuple[float, float] | None:
    """Means of the middle and of the whole less that of the ring around, in deviations of the box."""
    rows, columns = np.ogrid[: box.shape[0], : box.shape[1]]
    radius = np.hypot(rows - box.shape[0] // 2, columns - box.shape[1] // 2) / diameter_px
    around = (radius > AROUND[0]) & (radius < AROUND[1])
    deviation = float(box.std())
    if around.mean() < LEAST_AROUND or deviation == 0:
        return None
    ground = box[around].mean()
    middle, whole = (float(box[radius < edge].mean() - ground) / deviation for edge in (MIDDLE, WHOLE))
    return middle, whole


def check_shot_frame(shots: Shots, diameters_px: Sequence[float], config: FinetuneConfig) -> tuple[str, ...]:
    """A warning, where something speaks against the frame of the labelled particles.

    diameters_px : of the particle, on each micrograph
    Raises GeometryError where they are in another frame beyond doubt; nothing with `trust_frame`.
    """
    if config.trust_frame:
        return ()
    verdict = judge_frame(_sites(shots, diameters_px), LOOK)
    text, _ = describe(verdict, [Path("SHOTS")], ())
    what = f"the frame of the labelled particles is {text}"
    if verdict.opinion.answer == WRONG:
        remedy = "bring them into that of the micrographs (`pickeropt convert` does for a file a class)"
        raise GeometryError(f"{what}; {remedy}, or, if you know that it is right, go on with --trust-frame")
    return (f"{what}; inspect some of them on their micrograph",) * verdict.opinion.doubtful


def _sites(shots: Shots, diameters_px: Sequence[float]) -> list[FrameSite]:
    of_particles = shots.labels == shots.class_names.index(PARTICLE)
    sites = []
    for index, (path, diameter) in enumerate(zip(shots.micrographs, diameters_px, strict=True)):
        here = shots.coordinates[of_particles & (shots.micrograph_index == index)]
        sites.append(FrameSite(path.name, shots.header(index), diameter, None, here, np.full(len(here), np.nan)))
    return sites


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

    def features(self, backbone: Backbone, spec: ModelSpec, on_shots: OnCount) -> Tensor:
        """(n, d) float32."""
        return self._by_micrograph(
            lambda pixels, diameter, xy: describe_micrograph(backbone, spec, pixels, diameter, xy), on_shots
        )

    def boxes(self, spec: ModelSpec, on_shots: OnCount) -> Tensor:
        """(n, 1, s, s) float32 of the first view."""
        view = spec.view_diameters[0]
        return self._by_micrograph(
            lambda pixels, diameter, xy: torch.cat(list(boxes_of(spec, pixels, diameter, xy, view))), on_shots
        )

    def _by_micrograph(
        self, see: Callable[[FloatArray, float, NDArray[np.float64]], Tensor], on_shots: OnCount
    ) -> Tensor:
        rows: dict[int, Tensor] = {}
        for index in np.unique(self.shots.micrograph_index):
            here = np.flatnonzero(self.shots.micrograph_index == index)
            micrograph = read_micrograph(self.shots.micrographs[index], self.shots.header(index))
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

    def features(self, backbone: Backbone, spec: ModelSpec, on_shots: OnCount) -> Tensor:
        """(n, d) float32."""
        seen = describe_boxes(backbone, spec, self._named, self.pixel_size, self.diameter_angstrom)
        on_shots(len(seen), len(seen))
        return seen

    def boxes(self, spec: ModelSpec, on_shots: OnCount) -> Tensor:
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
    for index, path in enumerate(shots.micrographs):
        header = shots.header(index)
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
        raise GeometryError("boxes without micrographs: give the pixel size of the boxes with --pixel-size (Å/px)")
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
