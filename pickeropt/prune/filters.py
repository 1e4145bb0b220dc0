"""The filters of DeepEM and DeepPicker, off by default, beside the classifier.

DeepEM (Zhu et al., BMC Bioinformatics 2017) drops picks whose pixels' standard deviation lies outside a
narrow range. DeepPicker (Wang et al., J. Struct. Biol. 2016) drops those with many pixels beyond three
standard deviations, those in a connected domain of the score map four times larger than the average,
as ice is, and of two that are too close the worse.

Connected domains of a map of scores, by which DeepPicker knows ice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.spatial import cKDTree

from pickeropt.errors import MicrographError
from pickeropt.prune.prune_config import REASONS, Filters
from pickeropt.records import FloatArray, Micrograph

LIKELY = 0.5
"""Grid points with a score above this are connected (Wang et al. 2016, section 4.5)."""


def relative_domains(score_map: NDArray[np.floating], likely: float = LIKELY) -> FloatArray:
    """Size of the connected domain that each grid point is in, over the average of the map's domains.

    score_map : (rows, columns); neighbours share a side
    returns : (rows, columns), 0 where the score is `likely` or less
    """
    domains, count = label(score_map > likely)
    if not count:
        return np.zeros(score_map.shape, dtype=np.float32)
    sizes = np.bincount(domains.ravel())
    relative = sizes / sizes[1:].mean()
    relative[0] = 0
    found: FloatArray = relative[domains].astype(np.float32)
    return found


EXTREME = 3.0
"""Noise units beyond which a pixel is extreme."""
STEPS = 4
"""Grid points of the score map a particle diameter."""


@dataclass(frozen=True)
class Measure:
    """A figure of each pick that a filter holds against its bounds.

    least, most : the bounds, inclusive, and the names of the filters that set them
    """

    name: str
    least: tuple[float | None, str]
    most: tuple[float | None, str]


def measures_of(filters: Filters) -> tuple[Measure, ...]:
    """What must be measured in the micrographs for the filters that are on."""
    every = (
        Measure("std", (filters.min_std, "min-std"), (filters.max_std, "max-std")),
        Measure("extreme", (None, ""), (filters.max_extreme, "max-extreme")),
        Measure("domain", (None, ""), (filters.max_domain, "max-domain")),
    )
    return tuple(m for m in every if m.least[0] is not None or m.most[0] is not None)


def pixel_measures(
    micrograph: Micrograph, coordinates: NDArray[np.float64], diameter_px: float
) -> tuple[FloatArray, FloatArray]:
    """Standard deviation, and share of extreme pixels, in the box of each pick: (m,) and (m,).

    Both in units of the micrograph's noise, 1.4826 times the median absolute deviation from its median:
    no ice and no carbon moves it. The box has the particle's diameter as its side, and is what of it lies
    on the micrograph. Raises MicrographError where more than half of the pixels have one value.
    """
    pixels = micrograph.pixels
    height, width = pixels.shape
    level = float(np.median(pixels))
    noise = 1.4826 * float(np.median(np.abs(pixels - level)))
    if not noise > 0:
        what = "more than half of the pixels have one value, so the noise cannot be measured"
        raise MicrographError(f"{micrograph.path}: {what}; exclude this micrograph, or leave the filters out")
    side = max(1, round(diameter_px))
    last = np.array([width, height]) - 1
    corners = np.floor(np.clip(coordinates, 0, last)).astype(np.int64) - side // 2
    deviations, extremes = np.empty(len(corners), np.float32), np.empty(len(corners), np.float32)
    for i, (x, y) in enumerate(corners.tolist()):
        box = pixels[max(0, y) : y + side, max(0, x) : x + side]
        deviations[i] = box.std(dtype=np.float64) / noise
        extremes[i] = (np.abs(box - level) > EXTREME * noise).mean()
    return deviations, extremes


def grid_of(shape: tuple[int, int], diameter_px: float) -> tuple[NDArray[np.float64], float]:
    """Points of the score map, (rows, columns, 2) x, y px, and the px from one to the next."""
    step = max(1.0, diameter_px / STEPS)
    y, x = (np.arange(step / 2, max(size, step), step) for size in shape)
    return np.stack(np.meshgrid(x, y), axis=2), step


def domain_sizes(score_map: NDArray[np.floating], coordinates: NDArray[np.float64], step: float) -> FloatArray:
    """Size of the connected domain that each pick is in, over the average of the micrograph's: (m,).

    score_map : (rows, columns) at the points of `grid_of`; neighbours share a side. A pick belongs to its
    nearest grid point, and is in no domain, 0, where that has a score of 0.5 or less.
    """
    relative = relative_domains(score_map)
    last = np.array(score_map.shape)[::-1] - 1
    column, row = np.clip(np.floor(coordinates / step), 0, last).astype(np.int64).T
    found: FloatArray = relative[row, column]
    return found


def out_of_bounds(measures: Sequence[Measure], values: FloatArray) -> NDArray[np.int64]:
    """(n,) index into `REASONS` of the first bound that each pick breaks. values : (n, measures)"""
    reasons = np.zeros(len(values), dtype=np.int64)
    for measure, column in zip(measures, values.T, strict=True):
        for (bound, name), beyond in ((measure.least, np.less), (measure.most, np.greater)):
            if bound is not None:
                reasons[(reasons == 0) & beyond(column, np.float32(bound))] = REASONS.index(name)
    return reasons


def too_close(coordinates: NDArray[np.float64], scores: NDArray[np.floating], distance: float) -> NDArray[np.bool_]:
    """(m,): picks of one micrograph closer than `distance` px to one with a higher score that stays.

    From the best score down; of equal scores the first row stays.
    """
    gone = np.zeros(len(coordinates), dtype=np.bool_)
    if not len(coordinates):
        return gone
    near = cKDTree(coordinates).query_ball_point(coordinates, math.nextafter(distance, 0))
    taken = gone.copy()
    for i in np.argsort(-scores, kind="stable").tolist():
        if not gone[i]:
            taken[i] = True
            others = np.array(near[i])
            gone[others[~taken[others]]] = True
    return gone
