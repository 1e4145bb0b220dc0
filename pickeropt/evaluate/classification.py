"""Quality of a classification of labelled boxes by scikit-learn, and the calibration of its probabilities."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

from pickeropt.records import PARTICLE, Scores


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
