"""Which boxes to label next: uncertain, unlike one another, spread over micrographs and picker's scores.

One pick at a time: the one whose product is largest of how unsure the model is, distance in feature space
to the nearest label or pick chosen, and how seldom its micrograph and its fifth of the picker's scores had a
turn. As long as a class has too few (labels, and what the picks chosen so far are expected to be), the
probability of the class that has least counts too, so that rare classes are found early.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pickeropt.label.refit import UNLABELLED
from pickeropt.models.head import LIMIT

COMPONENTS = 32
"""Principal components of the features that distances are measured in."""
SURE = 0.3
"""What a pick counts for that the model is sure of, beside one that is open between two classes."""
ENOUGH = 5.0
"""A class that has fewer labels, the chosen picks counted by their probabilities, is looked for."""
LIKELY = 0.05
"""A class that no pick left has with this probability is not looked for."""
CHANCE = 0.1
"""The part of a pick's worth that the seed decides."""
MERIT_BINS = 5

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """n picks to choose from.

    features : (n, d) float32, as for `refit`
    coordinates : (n, 2) float64, x and y, px
    micrograph : (n,) int64, any number for each micrograph
    merit : (n,) float64, the picker's own score, NaN where it gave none
    """

    features: Tensor
    coordinates: Floats
    micrograph: Rows
    merit: Floats


def suggest(
    pool: Pool,
    probabilities: Floats,
    labels: Rows,
    radius_px: float,
    count: int = 20,
    seed: int = 0,
) -> Rows:
    """The next picks to label, the most useful first.

    probabilities : (n, k) of `refit`, `particle` first
    labels : (n,) index into the classes, UNLABELLED (-1) or SKIPPED (-2): only unlabelled ones are suggested
    radius_px : no two suggestions, nor a suggestion and a label, closer than this on one micrograph
    returns : (m,) int64 indices into the pool, m at most `count`; the same for the same arguments
    """
    if not (labels == UNLABELLED).any():
        return np.empty(0, dtype=np.int64)
    chosen = _Chosen(pool, labels, radius_px)
    even = evened(probabilities)
    worth = SURE + (1 - SURE) * doubt(even)
    worth *= np.random.default_rng(seed).uniform(1 - CHANCE, 1, len(labels))
    expected = np.bincount(labels[labels >= 0], minlength=even.shape[1]).astype(np.float64)
    rows: list[int] = []
    while len(rows) < count and chosen.free.any():
        value = worth * chosen.novelty() * chosen.seldom()
        wanted = (expected < ENOUGH) & (even[chosen.free].max(0) >= LIKELY)
        if wanted.any():
            value = value * even[:, int(np.where(wanted, expected, np.inf).argmin())]
        row = int(np.where(chosen.free, value, -1.0).argmax())
        expected += even[row]
        chosen.take(row)
        rows.append(row)
    return np.array(rows, dtype=np.int64)


def evened(probabilities: Floats) -> Floats:
    """(n, k) probabilities that took half of the picks for particles, class 0, with all classes alike."""
    odds = np.ones(probabilities.shape[1])
    odds[0] = max(len(odds) - 1, 1)
    found: Floats = probabilities / odds
    found /= found.sum(1, keepdims=True)
    return found


def doubt(probabilities: Floats) -> Floats:
    """(n, k) -> (n,): 1 where the two likeliest classes are equally likely, 0 where one is certain."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    two = np.sort(probabilities, axis=1)[:, -2:]
    found: Floats = 1 - (two[:, 1] - two[:, 0])
    return found


def embed(features: Tensor) -> Floats:
    """(n, d) features -> (n, c) principal components of the standardised ones, clamped as the head does."""
    x = features.float()
    spread = x.std(0, correction=0)
    x = ((x - x.mean(0)) / spread.clamp(min=1e-6) * (spread > 1e-6)).clamp(-LIMIT, LIMIT)
    x = x - x.mean(0)
    _, axes = torch.linalg.eigh(x.T @ x / max(len(x), 1))
    found: Floats = (x @ axes[:, -COMPONENTS:]).double().numpy()
    return found


class _Chosen:
    """What is labelled, seen or chosen already, and what that leaves.

    free : (n,) bool, picks that may still be chosen
    """

    def __init__(self, pool: Pool, labels: Rows, radius_px: float) -> None:
        self._pool, self._radius = pool, radius_px
        self._places = embed(pool.features)
        self._micrograph = np.unique(pool.micrograph, return_inverse=True)[1]
        self._bin = merit_bins(pool.merit)
        self._nearest = np.full(len(labels), np.inf)
        self._of_micrograph = np.zeros(self._micrograph.max(initial=0) + 1)
        self._of_bin = np.zeros(MERIT_BINS + 1)
        self.free = labels == UNLABELLED
        for row in np.flatnonzero(labels != UNLABELLED).tolist():
            self.take(row)

    def take(self, row: int) -> None:
        """Choose a pick, or count a label: near ones on its micrograph are out."""
        apart = np.linalg.norm(self._places - self._places[row], axis=1)
        self._nearest = np.minimum(self._nearest, apart)
        here = self._pool.micrograph == self._pool.micrograph[row]
        close = np.linalg.norm(self._pool.coordinates - self._pool.coordinates[row], axis=1) < self._radius
        self.free &= ~(here & close)
        self.free[row] = False
        self._of_micrograph[self._micrograph[row]] += 1
        self._of_bin[self._bin[row]] += 1

    def novelty(self) -> Floats:
        """(n,) distance to the nearest one taken, as a share of the furthest; 1 where none is taken."""
        if not np.isfinite(self._nearest).all():
            return np.ones(len(self._nearest))
        found: Floats = self._nearest / max(self._nearest[self.free].max(), 1e-12)
        return found

    def seldom(self) -> Floats:
        """(n,) lower where the micrograph or the range of picker's scores had more turns."""
        micrograph, merit = self._of_micrograph, self._of_bin
        found: Floats = ((1 + micrograph[self._micrograph]) * (1 + merit[self._bin] / MERIT_BINS)) ** -0.25
        return found


def merit_bins(merit: Floats) -> Rows:
    """(n,) -> (n,) fifth of the picker's scores that each is in, 0 to 4; 5 where it gave none."""
    known = np.isfinite(merit)
    found = np.full(len(merit), MERIT_BINS, dtype=np.int64)
    if known.any():
        edges = np.quantile(merit[known], np.arange(1, MERIT_BINS) / MERIT_BINS)
        found[known] = np.searchsorted(edges, merit[known], side="right")
    return found
