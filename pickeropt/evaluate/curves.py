"""Precision, recall and F1 over thresholds, and the numbers read off them.

A threshold t keeps the picks with score >= t. Precision is true / kept, recall is
true / all true particles (found or not), F1 their harmonic mean. Equal scores stand or
fall together: there is one point for each distinct score.

Greedy matching depends on the order of the picks, so a precision-recall curve takes
`is_true` matched in the order of the score it ranks by. To compare two scores pick by pick
(`false_removed_at_recall`), match once, in an order that neither of the compared
classifiers chose: the picker's own score, or the row order where it gave none.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Points by descending threshold, one for each distinct score.

    thresholds, precision, recall, f1 : (t,) float64; recall never falls along them
    kept : (t,) int64, picks at or above the threshold
    """

    thresholds: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    kept: NDArray[np.int64]


def f1_score(precision: Floats, recall: Floats) -> Floats:
    """Harmonic mean, (t,); 0 where both are 0."""
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)


def precision_recall(scores: Floats, is_true: NDArray[np.bool_], truths: int) -> Curve:
    """The curve of one score.

    scores : (n,) finite, higher is better
    is_true : (n,) bool, matched in the order of `scores`
    truths : number of true particles, at least 1
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_equals = np.flatnonzero(np.append(np.diff(ranked) != 0, True)[: len(ranked)])
    true_kept = np.cumsum(is_true[order])[last_of_equals]
    kept = last_of_equals + 1
    precision = true_kept / kept
    recall = true_kept / truths
    return Curve(ranked[last_of_equals], precision, recall, f1_score(precision, recall), kept)


def average_precision(curve: Curve) -> float:
    """Sum over the points of (recall step) x (precision there), without interpolation.

    The step rule of scikit-learn, but recall counts the particles that no pick hit, so the
    value is scikit-learn's times the recall of all picks, and at most that recall.
    """
    return float(np.sum(np.diff(curve.recall, prepend=0.0) * curve.precision))


def best_f1(curve: Curve) -> tuple[float, float]:
    """The highest F1 and the threshold that gives it; the highest such threshold at a tie.

    The threshold is chosen with the truth in hand: an upper bound, not a result.
    """
    best = int(np.argmax(curve.f1))
    return float(curve.f1[best]), float(curve.thresholds[best])


def point_at_recall(curve: Curve, recall: float) -> int | None:
    """Index of the highest threshold whose recall is at least `recall`, None where none is."""
    if not len(curve.recall) or curve.recall[-1] < recall:
        return None
    return int(np.searchsorted(curve.recall, recall, side="left"))


def false_removed_at_recall(
    scores: Floats, is_true: NDArray[np.bool_], keep_fraction: float = 0.95
) -> float | None:
    """Share of the false picks below the highest threshold that keeps that share of the true.

    scores : (n,) finite
    is_true : (n,) bool, matched once and the same for every score compared
    keep_fraction : of the true picks, in (0, 1]; at least this share is kept
    returns : 0 to 1, or None where there is no true or no false pick
    """
    true_scores = np.sort(scores[is_true])[::-1]
    false_scores = scores[~is_true]
    if not len(true_scores) or not len(false_scores):
        return None
    # 1e-9: 0.55 x 100 is 55.00000000000001 and means 55
    needed = max(1, int(np.ceil(keep_fraction * len(true_scores) - 1e-9)))
    return float(np.mean(false_scores < true_scores[needed - 1]))
