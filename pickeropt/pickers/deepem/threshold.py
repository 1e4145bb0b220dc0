"""The threshold: that of the highest F2 against known particles (the paper's Eq. 6)."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Coordinates = NDArray[np.float64]
Flags = NDArray[np.bool_]
BETA = 2.0
"""Recall weighs so many times as much as precision."""


def found(picks: Coordinates, particles: Coordinates, radius: float) -> tuple[Flags, Flags]:
    """Which picks, (n, 2) best first, are true, and which particles, (m, 2), were found.

    radius : px, inclusive. Each pick takes the nearest particle that no better one took.
    """
    true, taken = np.zeros(len(picks), dtype=np.bool_), np.zeros(len(particles), dtype=np.bool_)
    if not len(picks) or not len(particles):
        return true, taken
    for number, near in enumerate(cKDTree(particles).query_ball_point(picks, radius)):
        free = [index for index in near if not taken[index]]
        if free:
            distances = np.hypot(*(particles[free] - picks[number]).T)
            taken[free[int(distances.argmin())]] = true[number] = True
    return true, taken


def best_threshold(scores: NDArray[np.float64], true: Flags, particles: int) -> tuple[float, float]:
    """The threshold with the highest F2, and that F2; of equal ones the highest threshold.

    scores, true : (n,) of all candidates; particles : how many there are, found or not
    returns : threshold 0.5 where there is no true candidate
    """
    if not true.any():
        return 0.5, 0.0
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.diff(ranked) != 0, True)  # equal scores stand or fall together
    hits, kept = np.cumsum(true[order])[last], np.flatnonzero(last) + 1
    f_beta = (1 + BETA**2) * hits / (BETA**2 * particles + kept)
    best = int(np.argmax(f_beta))
    return float(ranked[last][best]), float(f_beta[best])
