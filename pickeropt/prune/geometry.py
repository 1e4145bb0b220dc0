"""Pixel sizes, diameters and coordinates held against the micrographs."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import CheckpointError, GeometryError, PickeroptError
from pickeropt.io.pixel_size import AGREE
from pickeropt.prune.prune_config import Filters, MicrographScorer, PruneConfig
from pickeropt.records import PARTICLE

SMALLEST_DIAMETER = 4
"""px; what is smaller holds no image."""
FRAME_PICKS, FRAME_SHARE = 100, 0.55
"""So many picks that all lie in so small a share of width and height are a binning's."""

Placed = tuple[str, tuple[int, int], NDArray[np.float64]]
"""A micrograph's name, its (h, w) px, and its picks (m, 2) x, y px."""


@dataclass(frozen=True)
class Outside:
    """The first pick that lies outside: which micrograph, which of its picks, how many there."""

    micrograph: int
    pick: int
    count: int


def check_settings(config: PruneConfig, scorer: MicrographScorer) -> None:
    """Raises PickeroptError where a number is out of range or the model has no `particle`."""
    if not 0 <= config.threshold <= 1:
        raise PickeroptError(f"the threshold is {config.threshold:g}; give one from 0 to 1")
    if config.prior != "auto" and not 0 < config.prior < 1:
        raise PickeroptError(f"--prior is {config.prior:g}; give auto, or a share between 0 and 1")
    _check_filters(config.filters)
    for value, flag in ((config.pixel_size, "--pixel-size"), (scorer.diameter_angstrom, "--diameter")):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise GeometryError(f"{flag} is {value:g}; give a number of Å above 0")
    if PARTICLE not in scorer.class_names:
        named = ", ".join(scorer.class_names)
        raise CheckpointError(f"the model has no class {PARTICLE!r} ({named}); fine-tune one that has")


def _check_filters(filters: Filters) -> None:
    for name, value in asdict(filters).items():
        flag = f"--{name.replace('_', '-')}"
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise PickeroptError(f"{flag} is {value:g}; give a number from 0 on")
    if filters.max_extreme is not None and filters.max_extreme > 1:
        raise PickeroptError(f"--max-extreme is {filters.max_extreme:g}; give a share of the pixels, 0 to 1")
    if filters.min_std is not None and filters.max_std is not None and filters.min_std > filters.max_std:
        raise PickeroptError(f"--min-std {filters.min_std:g} is above --max-std {filters.max_std:g}")


def check_inside(boxes: Sequence[Placed], radii: Sequence[float]) -> Outside | None:
    """The first micrograph with picks whose box of the diameter does not touch it, or None.

    radii : half the diameter on each, px
    Raises GeometryError where the particle is larger than a micrograph, or a few px small.
    """
    for (name, (height, width), _), radius in zip(boxes, radii, strict=True):
        if not SMALLEST_DIAMETER <= 2 * radius <= min(height, width):
            what = f"{name}: the particle is {2 * radius:.3g} px across on {width} x {height} px"
            raise GeometryError(f"{what}; give its size in Å with --diameter, and check --pixel-size")
    for i, ((_, (height, width), xy), radius) in enumerate(zip(boxes, radii, strict=True)):
        away = ((xy < -radius) | (xy > np.array([width, height]) + radius)).any(axis=1)
        if away.any():
            return Outside(i, int(away.argmax()), int(away.sum()))
    return None


def taught_warnings(
    pixel_sizes: Sequence[float], config: PruneConfig, scorer: MicrographScorer
) -> tuple[str, ...]:
    """Where the model was taught at a pixel size that the user had to give, and the files say another."""
    taught = scorer.taught_pixel_size
    if taught is None or config.pixel_size is not None:
        return ()
    other = next((size for size in pixel_sizes if not 1 / (1 + AGREE) <= size / taught <= 1 + AGREE), None)
    if other is None:
        return ()
    what = f"the model was taught with --pixel-size {taught:g}, and the micrographs say {other:.6g} Å/px"
    return (f"{what}: give --pixel-size where they are of the same kind",)


def frame_warnings(boxes: Sequence[Placed], pixel_sizes: Sequence[float]) -> tuple[str, ...]:
    """What is possible but seldom meant: several pixel sizes, picks in one corner only."""
    found = []
    low, high = min(pixel_sizes), max(pixel_sizes)
    if high > low * (1 + AGREE):
        found.append(f"the micrographs have pixel sizes from {low:.6g} to {high:.6g} Å/px")
    share = max(float((xy / shape[::-1]).max()) for _, shape, xy in boxes)
    if sum(len(xy) for _, _, xy in boxes) >= FRAME_PICKS and share < FRAME_SHARE:
        where = f"all picks lie in the first {100 * share:.0f} % of width and height"
        found.append(f"{where}; are they coordinates of binned micrographs?")
    return tuple(found)
