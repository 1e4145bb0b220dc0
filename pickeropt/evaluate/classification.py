"""How well the classes are told apart, for labelled boxes: scikit-learn, in our words."""

from dataclasses import dataclass

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
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0.0
    )
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
