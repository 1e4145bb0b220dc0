"""One-to-one matching of picks to true particles.

Greedy in the order given, best pick first: each pick takes the nearest true particle
within the radius that no earlier pick took, and is false where there is none. A second
pick on the same particle is therefore false.

Two facts that the reports rest on, for one and the same order: adding a pick never lowers
the number of matches, so recall after pruning is at most recall before it; and matching
the first k picks alone gives the same as the first k of matching them all.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Coordinates = NDArray[np.float64]
Flags = NDArray[np.bool_]
Order = NDArray[np.int64]


def descending(scores: NDArray[np.float64]) -> Order:
    """Rows by descending score, (n,) int64; equal scores by row, NaN last."""
    return np.argsort(-scores, kind="stable").astype(np.int64)


def match(picks_xy: Coordinates, truth_xy: Coordinates, order: Order, radius: float) -> Flags:
    """Which picks of one micrograph are true.

    picks_xy : (n, 2) px
    truth_xy : (m, 2) px
    order : (n,) the rows of `picks_xy`, best first: a permutation, as `descending` gives
    radius : px, inclusive
    returns : (n,) bool by row of `picks_xy`; at most min(n, m) are true

    Of two true particles equally near, the first in `truth_xy` is taken.
    """
    is_true = np.zeros(len(picks_xy), dtype=np.bool_)
    if not len(picks_xy) or not len(truth_xy):
        return is_true
    ranked = picks_xy[order]
    rank, truth, squared = _pairs_within(ranked, truth_xy, radius)
    best_first = np.lexsort((truth, squared, rank))
    taken = bytearray(len(truth_xy))
    matched = bytearray(len(picks_xy))
    for pick, particle in zip(rank[best_first].tolist(), truth[best_first].tolist(), strict=True):
        if not matched[pick] and not taken[particle]:
            matched[pick] = taken[particle] = 1
    is_true[order] = np.frombuffer(matched, dtype=np.bool_)
    return is_true


def match_micrographs(
    picks_xy: Coordinates,
    micrograph_index: NDArray[np.int64],
    truths: Sequence[Coordinates],
    order: Order,
    radius: float,
) -> Flags:
    """Which picks are true, micrograph by micrograph.

    picks_xy : (n, 2) px
    micrograph_index : (n,) into `truths`
    truths : one (m, 2) px a micrograph, m may be 0
    order : (n,) rows of `picks_xy`, best first over all micrographs
    radius : px, inclusive
    returns : (n,) bool by row
    """
    is_true = np.zeros(len(picks_xy), dtype=np.bool_)
    # rows by micrograph, and within a micrograph still best first
    grouped = order[np.argsort(micrograph_index[order], kind="stable")]
    ends = np.cumsum(np.bincount(micrograph_index, minlength=len(truths)))
    for rows, truth_xy in zip(np.split(grouped, ends[:-1]), truths, strict=True):
        is_true[rows] = match(picks_xy[rows], truth_xy, np.arange(len(rows)), radius)
    return is_true


def _pairs_within(
    picks_xy: Coordinates, truth_xy: Coordinates, radius: float
) -> tuple[Order, Order, NDArray[np.float64]]:
    """All pairs at most `radius` apart: pick rows, truth rows, squared distances (px²)."""
    pairs = cKDTree(picks_xy).sparse_distance_matrix(
        cKDTree(truth_xy), radius * (1 + 1e-9), output_type="ndarray"
    )
    rows = pairs["i"].astype(np.int64)
    particles = pairs["j"].astype(np.int64)
    # the tree's distances are rounded: decide "within" from the coordinates
    squared: NDArray[np.float64] = ((picks_xy[rows] - truth_xy[particles]) ** 2).sum(axis=1)
    inside = squared <= radius**2
    return rows[inside], particles[inside], squared[inside]
