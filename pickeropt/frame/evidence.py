"""What is under the picks: the rank of local contrast, and how it adds up under each frame.

A micrograph is binned until the particle is some 12 cells across, and filtered by a difference of
Gaussians: dark blobs of the particle's size come out high. The values are replaced by their rank
among all cells, -1 to 1: under a wrong frame the ranks of the picks are as good as drawn evenly
(mean 0, variance 1/3), whatever ice, carbon or hot pixels are there. Where particles are bright all
of it changes sign.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

from pickeropt.frame.frames import Frame
from pickeropt.records import FloatArray

CENTRE, SURROUND = 0.2, 0.7
"""Standard deviations of the two Gaussians, diameters."""
WIDTHS = (1.0, 1.6)
"""Factors on both. A solid particle stands out by the narrow ones, a hollow one by the wide ones."""
GRID = 20
"""Places across a micrograph that a classifier is asked about, to know what chance gives."""
Ask = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""P(particle), (m,), at (m, 2) x, y px."""


@dataclass(frozen=True)
class Evidence:
    """One micrograph, seen at the scale of its particle.

    ranks : (rows, columns) float32, -1 to 1, high where it is dark
    cell : px a cell
    shape : (h, w) px of the micrograph; diameter_px : of the particle
    coordinates : (m, 2) x, y as the file has them
    """

    ranks: FloatArray
    cell: int
    shape: tuple[int, int]
    diameter_px: float
    coordinates: NDArray[np.float64]

    def cells(
        self, frame: Frame, coordinates: NDArray[np.float64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Cells (k, 2) column, row of the picks inside, and (m,) which of them are inside.

        A pick whose particle touches the micrograph is inside, and has the cell nearest to it.
        """
        xy = frame.place(self.coordinates if coordinates is None else coordinates, self.shape)
        reach, sides = self.diameter_px / 2, np.array(self.shape[::-1])
        inside = np.all((xy > -reach) & (xy < sides + reach), axis=1)
        cells = np.floor(xy[inside] / self.cell).astype(np.int64)
        return np.clip(cells, 0, np.array(self.ranks.shape[::-1]) - 1), inside


@dataclass(frozen=True)
class Tally:
    """Sums over picks, one value a frame, float64; sums over micrographs are sums of these.

    ranks : sum of the ranks of the picks inside
    inside, outside : how many picks
    places : how many squares of a diameter hold picks, and as many for each outside:
        picks closer than that see the same
    """

    ranks: NDArray[np.float64]
    inside: NDArray[np.float64]
    outside: NDArray[np.float64]
    places: NDArray[np.float64]

    def evidence(self, sign: int) -> NDArray[np.float64]:
        """(frames,): the mean rank where dark is good (`sign` 1) or bad (-1); -1 for a pick outside."""
        return (sign * self.ranks - self.outside) / np.maximum(self.inside + self.outside, 1)

    def error(self) -> NDArray[np.float64]:
        """(frames,): the standard error of that by chance."""
        return np.sqrt(1 / 3 / np.maximum(self.places, 1))


def look(
    pixels: FloatArray, diameter_px: float, coordinates: NDArray[np.float64], cells: int
) -> tuple[Evidence, ...]:
    """The evidence in a micrograph, (h, w) float32, for particles of a diameter in px: one for each width."""
    cell = max(1, round(diameter_px / cells))
    rows, columns = (side // cell for side in pixels.shape)
    binned = pixels[: rows * cell, : columns * cell]
    if cell > 1:  # rows first: so memory is read in order
        binned = binned.reshape(rows, cell, -1).mean(axis=1, dtype=np.float32)
        binned = binned.reshape(rows, columns, cell).mean(axis=2, dtype=np.float32)
    scales = [width * diameter_px / cell for width in WIDTHS]
    maps = [_ranks(contrast(binned, scale)) for scale in scales]
    return tuple(Evidence(ranks, cell, pixels.shape, diameter_px, coordinates) for ranks in maps)


def contrast(binned: FloatArray, diameter: float) -> FloatArray:
    """How much darker than its surroundings each cell is; diameter in cells."""
    centred = binned - np.median(binned)
    surround = ndimage.gaussian_filter(centred, SURROUND * diameter, truncate=3.0)
    found: FloatArray = surround - ndimage.gaussian_filter(centred, CENTRE * diameter)
    return found


def _ranks(values: FloatArray) -> FloatArray:
    order = np.argsort(values, axis=None)
    ranks = np.empty(values.size, dtype=np.float32)
    ranks[order] = np.linspace(-1, 1, values.size, dtype=np.float32)
    return ranks.reshape(values.shape)


def tally(evidence: Evidence, frames: Sequence[Frame]) -> Tally:
    """What is under the picks of one micrograph, for each frame."""
    sums = np.zeros((4, len(frames)))
    side = max(1, round(evidence.diameter_px / evidence.cell))
    across = evidence.ranks.shape[1] // side + 1
    for i, frame in enumerate(frames):
        cells, inside = evidence.cells(frame)
        coarse = cells // side
        outside = len(inside) - len(cells)
        places = len(np.unique(coarse[:, 1] * across + coarse[:, 0])) + outside
        sums[:, i] = evidence.ranks[cells[:, 1], cells[:, 0]].sum(), len(cells), outside, places
    return Tally(*sums)


def tally_scores(evidence: Evidence, frames: Sequence[Frame], score: Ask, picks: int) -> Tally:
    """As `tally`, with P(particle) in place of contrast, ranked among places all over the micrograph.

    picks : at most so many are asked about under each frame
    """
    height, width = evidence.shape
    grid = np.meshgrid((np.arange(GRID) + 0.5) * width / GRID, (np.arange(GRID) + 0.5) * height / GRID)
    places = np.column_stack([axis.ravel() for axis in grid])
    few = evidence.coordinates[:: -(-len(evidence.coordinates) // picks)]
    inside = [evidence.cells(frame, few)[1] for frame in frames]
    asked = [f.place(few, evidence.shape)[i] for f, i in zip(frames, inside, strict=True)]
    found = score(np.concatenate([places, *asked]))
    among, parts = (
        np.sort(found[: GRID**2]),
        np.split(found[GRID**2 :], np.cumsum([len(a) for a in asked])[:-1]),
    )
    sums = np.zeros((4, len(frames)))
    for i, (part, xy) in enumerate(zip(parts, asked, strict=True)):
        below = np.searchsorted(among, part, "left") + np.searchsorted(among, part, "right")
        outside = len(few) - len(part)
        squares = len(np.unique(xy // evidence.diameter_px, axis=0)) + outside
        sums[:, i] = (below / GRID**2 - 1).sum(), len(part), outside, squares
    return Tally(*sums)


def total(tallies: Sequence[Tally]) -> Tally:
    """The sums over micrographs."""
    rows = [(t.ranks, t.inside, t.outside, t.places) for t in tallies]
    return Tally(*np.sum(rows, axis=0))


def shift_sums(evidence: Evidence, frames: Sequence[Frame], reach: int) -> NDArray[np.float64]:
    """(frames, 2 reach + 1, 2 reach + 1): sums of ranks with the picks shifted by dy, dx cells.

    The cross-correlation of the picks' density with the map, round the middle only; a pick shifted
    out of the micrograph adds 0.
    """
    side = 2 * reach + 1
    windows = sliding_window_view(np.pad(evidence.ranks, reach), (side, side))
    sums = np.zeros((len(frames), side, side))
    for i, frame in enumerate(frames):
        cells, _ = evidence.cells(frame)
        for part in np.array_split(cells, max(1, len(cells) // 256)):
            sums[i] += windows[part[:, 1], part[:, 0]].sum(axis=0, dtype=np.float64)
    return sums
