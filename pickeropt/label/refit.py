"""The few-shot model behind the suggestions: what the labels so far teach, asked about the whole pool.

It is the default recipe of `finetune` on features that were looked at once. What no label has taught yet is
left to the general model's opinion, which is there before the first label.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pickeropt.classifier import PickClassifier
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.recipes import make_classifier
from pickeropt.finetune.trials import fit_measured
from pickeropt.records import PARTICLE

UNLABELLED = -1
SKIPPED = -2
"""Seen and passed over: neither a label nor suggested again."""
FEWEST = 2
"""A class with fewer labels than this is left to the general model's opinion."""


def fewshot_classifier(diameter_angstrom: float, class_names: tuple[str, ...]) -> PickClassifier:
    """A fresh classifier of `finetune`'s default recipe; `describe_micrograph` with its spec gives features.

    Its backbone is the shipped one: `inference_copy(classifier.backbone, device, inference_dtype(device))`.
    """
    return make_classifier(FinetuneConfig(diameter_angstrom), class_names, None)


def refit(
    classifier: PickClassifier,
    features: Tensor,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    seed: int = 0,
) -> NDArray[np.float64]:
    """Fit the classifier, in place, to the labels so far, and ask it about every pick.

    classifier : of `fewshot_classifier`
    features : (n, d) float32 of the pool, as `describe_micrograph` gives them for `classifier.spec`
    labels : (n,) index into the class names, UNLABELLED or SKIPPED
    groups : (n,) micrograph of each pick
    returns : (n, k), rows sum to 1. A class with fewer than two labels has the probability that the general
        model gives it, and the few-shot model shares out the rest; with fewer than two classes labelled,
        all is the general model's
    """
    opinion = general_probabilities(classifier, features)
    counts = np.bincount(labels[labels >= 0], minlength=opinion.shape[1])
    known = counts >= FEWEST
    if known.sum() < 2:
        return opinion
    rows = np.flatnonzero((labels >= 0) & known[labels])
    config = FinetuneConfig(1.0, seed=seed)
    chosen = torch.from_numpy(labels[rows])
    fit_measured(classifier, features[rows], groups[rows], chosen, config, lambda done, of: None)
    with torch.no_grad():
        learnt = classifier.probabilities(features).double().numpy()
    learnt = learnt * known
    learnt /= learnt.sum(1, keepdims=True).clip(min=1e-12)
    spare = opinion * ~known
    found: NDArray[np.float64] = spare + learnt * (1 - spare.sum(1, keepdims=True))
    return found


def general_probabilities(classifier: PickClassifier, features: Tensor) -> NDArray[np.float64]:
    """(n, k) probabilities of the general model, which has seen no label; even where it has no opinion."""
    names = classifier.spec.class_names
    prior = torch.zeros(len(names))
    prior[names.index(PARTICLE)] = math.log(max(len(names) - 1, 1))
    with torch.no_grad():
        logits = torch.zeros(len(features), len(names))
        if classifier.opinion is not None:
            logits = classifier.opinion(features)
        found: NDArray[np.float64] = torch.softmax(logits + prior, 1).double().numpy()
    return found
