"""Classifiers measured on shots that they had not seen, and probabilities set by what came out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pickeropt.classifier import PickClassifier
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.recipes import fit_default
from pickeropt.finetune.splits import Split, validation_split
from pickeropt.models.fitting import Quality, fit_temperature, quality
from pickeropt.records import PARTICLE

SPLITS = 5
"""Splits that the default recipe is measured on; its classifier is fitted in a second."""


@dataclass(frozen=True)
class Trial:
    """One classifier measured on the shots it had not seen: logits (m, k) and labels (m,) of those."""

    split: Split
    logits: Tensor
    labels: Tensor

    def quality(self, classifier: PickClassifier) -> Quality:
        """Accuracy and F1 of the classes that `prune` would name."""
        said = classifier.calibrated(self.logits, classifier.temperature).argmax(1)
        return quality(self.labels.numpy(), said.numpy())


def ask(classifier: PickClassifier, features: Tensor, labels: Tensor, split: Split) -> Trial:
    """The fitted classifier's answers on the split's held-out shots; features and labels are of all shots."""
    held = torch.from_numpy(split.validation)
    with torch.no_grad():
        return Trial(split, classifier.logits(features[held]), labels[held])


def fresh_head(classifier: PickClassifier, seed: int) -> None:
    """Draw the classifier anew, from uniform distributions."""
    torch.manual_seed(seed)
    for module in classifier.head.modules():
        if isinstance(module, torch.nn.Linear):
            module.reset_parameters()


def fit_measured(
    classifier: PickClassifier,
    features: Tensor,
    groups: NDArray[np.int64],
    labels: Tensor,
    config: FinetuneConfig,
    on_fit: Callable[[int, int], None],
) -> list[Trial]:
    """The default recipe on fixed features: fitted on five splits to measure, then on all shots.

    features : (n, d); groups : (n,) micrograph of each shot; labels : (n,) int
    on_fit : called with the number of fits done and of all
    The classifier's temperature is taken from the held-out shots of all splits.
    """
    trials: list[Trial] = []
    for number in range(SPLITS):
        split = validation_split(labels.numpy(), groups, config.validation_fraction, config.seed + number)
        if len(split.validation):
            fresh_head(classifier, config.seed)
            fit_default(classifier, features[split.train], labels[split.train])
            trials.append(ask(classifier, features, labels, split))
        on_fit(number + 1, SPLITS + 1)
    fresh_head(classifier, config.seed)
    fit_default(classifier, features, labels)
    set_temperature(classifier, trials)
    on_fit(SPLITS + 1, SPLITS + 1)
    return trials


def set_temperature(classifier: PickClassifier, trials: list[Trial]) -> None:
    """Make P(particle) as sure as the held-out shots allow; 1 where there are none."""
    if not trials:
        classifier.temperature.fill_(1.0)
        return
    particle = classifier.spec.class_names.index(PARTICLE)
    logits = torch.cat([trial.logits for trial in trials])
    is_particle = torch.cat([trial.labels for trial in trials]) == particle
    found = fit_temperature(lambda t: classifier.calibrated(logits, t)[:, particle], is_particle)
    classifier.temperature.fill_(found)
