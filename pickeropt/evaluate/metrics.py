"""Metrics: picks matched to true particles, precision and recall over thresholds, classification, calibration.

A threshold t keeps the picks with score >= t. Precision is true / kept, recall is
true / all true particles (found or not), F1 their harmonic mean. Equal scores stand or
fall together: there is one point for each distinct score.

Greedy matching depends on the order of the picks, so a precision-recall curve takes
`is_true` matched in the order of the score it ranks by. To compare two scores pick by pick
(`false_removed_at_recall`), match once, in an order that neither of the compared
classifiers chose: the picker's own score, or the row order where it gave none.

Matching is one-to-one and greedy in the order given, best pick first: each pick takes the nearest true particle
within the radius that no earlier pick took, and is false where there is none. A second
pick on the same particle is therefore false.

Two facts that the reports rest on, for one and the same order: adding a pick never lowers
the number of matches, so recall after pruning is at most recall before it; and matching
the first k picks alone gives the same as the first k of matching them all.

The classification of labelled boxes is measured with scikit-learn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

from pickeropt.records import PARTICLE, Scores

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


def false_removed_at_recall(scores: Floats, is_true: NDArray[np.bool_], keep_fraction: float = 0.95) -> float | None:
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
    pairs = cKDTree(picks_xy).sparse_distance_matrix(cKDTree(truth_xy), radius * (1 + 1e-9), output_type="ndarray")
    rows = pairs["i"].astype(np.int64)
    particles = pairs["j"].astype(np.int64)
    # the tree's distances are rounded: decide "within" from the coordinates
    squared: NDArray[np.float64] = ((picks_xy[rows] - truth_xy[particles]) ** 2).sum(axis=1)
    inside = squared <= radius**2
    return rows[inside], particles[inside], squared[inside]


@dataclass(frozen=True)
class ClassQuality:
    """One class against all others; support is the number of labels of the class."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Classification:
    """How a classifier did on labelled boxes.

    macro_f1 : mean F1 of the classes that have a label; a class without one does not count
    accuracy : share of boxes given their own class
    particle_auc : area under the ROC curve of P(particle), particle against all others;
        None where only one side has labels
    classes : in the order of the class names; precision, recall and F1 are 0 where undefined
    confusion : (k, k) counts, row = label, column = prediction
    """

    macro_f1: float
    accuracy: float
    particle_auc: float | None
    classes: tuple[ClassQuality, ...]
    confusion: tuple[tuple[int, ...], ...]


def classification(labels: NDArray[np.int64], scores: Scores) -> Classification:
    """Measure n scores against their labels; the class predicted is the most probable one.

    labels : (n,) into `scores.class_names`, n at least 1
    scores : n by k probabilities; of equal ones the first class is predicted
    """
    names = scores.class_names
    predicted = np.argmax(scores.probabilities, axis=1)
    every = list(range(len(names)))
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0.0)
    confusion = confusion_matrix(labels, predicted, labels=every)
    return Classification(
        macro_f1=float(np.mean(f1[support > 0])),
        accuracy=float(np.mean(labels == predicted)),
        particle_auc=particle_auc(labels == names.index(PARTICLE), scores.particle.astype(np.float64)),
        classes=tuple(
            ClassQuality(name, float(precision[k]), float(recall[k]), float(f1[k]), int(support[k]))
            for k, name in enumerate(names)
        ),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def particle_auc(is_particle: NDArray[np.bool_], score: NDArray[np.float64]) -> float | None:
    """Area under the ROC curve: P(a particle outscores another box), equal scores count half.

    is_particle : (n,) bool
    score : (n,), higher is more particle-like; any scale
    returns : None where all or none are particles
    """
    if is_particle.all() or not is_particle.any():
        return None
    return float(roc_auc_score(is_particle, score))


@dataclass(frozen=True)
class Calibration:
    """How far P(particle) is from the observed share of particles.

    expected_calibration_error : 0 to 1, 0 is perfect
    brier_score : mean squared difference of probability and outcome, 0 to 1
    mean_probability, true_share : per bin, None where it is empty
    counts : per bin
    """

    expected_calibration_error: float
    brier_score: float
    mean_probability: tuple[float | None, ...]
    true_share: tuple[float | None, ...]
    counts: tuple[int, ...]


def calibration(probability: NDArray[np.float64], is_true: NDArray[np.bool_], bins: int = 15) -> Calibration:
    """Calibration of one probability against what the picks turned out to be.

    probability : (n,) P(particle), 0 to 1, n at least 1
    is_true : (n,) bool
    bins : of equal width, [0, 1/bins), ... the last one closed; the value does not depend
        on the order of the picks, as bins of equal mass would at equal probabilities

    Expected calibration error: over the bins, share of picks in the bin x |mean probability
    - share of true picks| (Guo et al., ICML 2017, section 2, there for the predicted
    class). An incomplete truth makes a good classifier look overconfident.
    """
    outcome = is_true.astype(np.float64)
    index = np.minimum((probability * bins).astype(np.int64), bins - 1)
    counts = np.bincount(index, minlength=bins)
    probability_sum = np.bincount(index, weights=probability, minlength=bins)
    true_sum = np.bincount(index, weights=outcome, minlength=bins)
    error = np.abs(probability_sum - true_sum).sum() / len(probability)
    return Calibration(
        expected_calibration_error=float(error),
        brier_score=float(np.mean((probability - outcome) ** 2)),
        mean_probability=_means(probability_sum, counts),
        true_share=_means(true_sum, counts),
        counts=tuple(counts.tolist()),
    )


def _means(sums: NDArray[Any], counts: NDArray[Any]) -> tuple[float | None, ...]:
    pairs = zip(sums.tolist(), counts.tolist(), strict=True)
    return tuple(total / count if count else None for total, count in pairs)
