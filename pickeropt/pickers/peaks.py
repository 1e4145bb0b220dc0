"""Local maxima of a map of scores."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Indices = NDArray[np.int64]


def local_maxima(
    scores: NDArray[np.floating], radius: float, floor: float = 0.0
) -> tuple[Indices, Indices, NDArray[np.float64]]:
    """Where a map is highest within `radius`, best first.

    scores : (h, w); NaN is nowhere a maximum
    radius : cells, inclusive; no two maxima are that close to each other or closer
    floor : maxima of less are left out
    returns : rows, columns and scores of the maxima, (n,) each; of equal scores the first by row and column

    A cell is a candidate where no cell within `radius` is higher; of candidates with equal scores that lie
    so close the first stays.
    """
    known = np.where(np.isnan(scores), -np.inf, scores).astype(np.float64)
    reach = int(radius)
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    highest = ndimage.maximum_filter(
        known, footprint=down**2 + across**2 <= radius**2, mode="constant", cval=-np.inf
    )
    rows, columns = np.nonzero((known == highest) & (known >= floor) & np.isfinite(known))
    values = known[rows, columns]
    order = np.argsort(-values, kind="stable")
    rows, columns, values = rows[order], columns[order], values[order]
    kept = _apart(np.column_stack([rows, columns]).astype(np.float64), radius)
    return rows[kept].astype(np.int64), columns[kept].astype(np.int64), values[kept]


def _apart(points: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    """Which points, (n, 2) best first, are farther than `radius` from all better ones that stay."""
    from scipy.spatial import cKDTree

    kept = np.ones(len(points), dtype=np.bool_)
    pairs = cKDTree(points).query_pairs(radius, output_type="ndarray") if len(points) else np.empty((0, 2))
    for better, worse in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].astype(np.int64).tolist():
        if kept[better]:
            kept[worse] = False
    return kept
