"""Suggestions: the few-shot model of the labels so far, the picks to label next, and an estimate of its quality.

The model is the default recipe of `finetune` on features that are computed once. Classes without labels have the
probabilities of the general model.

The next picks are chosen one at a time, by the product of the model's uncertainty, the distance in feature space to
the nearest pick labelled or chosen, and the rarity of its micrograph and of its fifth of the picker's scores. While a
class has too few labels, counting the picks chosen so far by their probabilities, the probability of the rarest class
counts too.

The estimate uses two cross-validations. One holds out whole micrographs, as the classifier will be used; it is
pessimistic with few micrographs, since a class that is on one micrograph cannot be learnt when that one is held out.
The other holds out single labels and is optimistic. The interval goes from the low end of the one to the high end of
the other, each from the posterior of the confusion matrix. Suggested picks are the uncertain ones, so each label is
weighted by how many picks of the pool are as uncertain.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.recipes import (
    Trial,
    ask,
    fit_default,
    fit_measured,
    fresh_head,
    make_classifier,
    set_temperature,
)
from pickeropt.label.label_store import UNLABELLED
from pickeropt.models.classifier import PickClassifier
from pickeropt.models.head import LIMIT
from pickeropt.records import PARTICLE
from pickeropt.shots import Split

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

MIN_LABELS_TO_FIT = 2
"""A class with fewer labels has the probability of the general model."""
COMPONENTS = 32
"""Principal components of the features that distances are measured in."""
CERTAIN_WEIGHT = 0.3
"""Weight of a pick that the model is certain of; one that is open between two classes has 1."""
TARGET_LABELS = 5.0
"""A class with fewer labels, the chosen picks counted by their probabilities, is searched for."""
MIN_PROBABILITY = 0.05
"""A class that no remaining pick has with this probability is not searched for."""
RANDOM_SHARE = 0.1
"""The share of a pick's value that the seed decides."""
MERIT_BINS = 5
MIN_LABELS = 5
"""Labels that a class needs to count in the estimate, which needs two such classes."""
FOLDS = 4
FIFTHS = 5
MAX_UNLABELLED = 2000
"""Unlabelled picks that the uncertainty of the labelled ones is compared with."""
SAMPLES = 2000
"""Drawn from the posterior."""
COVERAGE = 0.9
"""Of the interval."""


def fewshot_classifier(diameter_angstrom: float, class_names: tuple[str, ...]) -> PickClassifier:
    """A fresh classifier of `finetune`'s default recipe; `describe_micrograph` with its spec gives features.

    Its backbone is the shipped one: `inference_copy(classifier.backbone, device, inference_dtype(device))`.
    """
    return make_classifier(FinetuneConfig(diameter_angstrom), class_names, None)


def refit(classifier: PickClassifier, features: Tensor, labels: Rows, groups: Rows, seed: int = 0) -> Floats:
    """Fit the classifier, in place, to the labels so far, and predict every pick.

    classifier : of `fewshot_classifier`
    features : (n, d) float32 of the pool, as `describe_micrograph` gives them for `classifier.spec`
    labels : (n,) index into the class names, UNLABELLED or SKIPPED
    groups : (n,) micrograph of each pick
    returns : (n, k), rows sum to 1. A class with fewer than two labels has the probability of the general model,
        and the few-shot model divides the rest; with fewer than two classes labelled, all are the general model's
    """
    general = general_probabilities(classifier, features)
    counts = np.bincount(labels[labels >= 0], minlength=general.shape[1])
    known = counts >= MIN_LABELS_TO_FIT
    if known.sum() < 2:
        return general
    rows = np.flatnonzero((labels >= 0) & known[labels])
    config = FinetuneConfig(1.0, seed=seed)
    chosen = torch.from_numpy(labels[rows])
    fit_measured(classifier, features[rows], groups[rows], chosen, config, lambda done, of: None)
    with torch.no_grad():
        learnt = classifier.probabilities(features).double().numpy()
    learnt = learnt * known
    learnt /= learnt.sum(1, keepdims=True).clip(min=1e-12)
    spare = general * ~known
    found: Floats = spare + learnt * (1 - spare.sum(1, keepdims=True))
    return found


def general_probabilities(classifier: PickClassifier, features: Tensor) -> NDArray[np.float64]:
    """(n, k) probabilities of the general model, before any label; even where there is no source head."""
    names = classifier.spec.class_names
    prior = torch.zeros(len(names))
    prior[names.index(PARTICLE)] = math.log(max(len(names) - 1, 1))
    with torch.no_grad():
        logits = torch.zeros(len(features), len(names))
        if classifier.source_prior is not None:
            logits = classifier.source_prior(features)
        found: Floats = torch.softmax(logits + prior, 1).double().numpy()
    return found


@dataclass(frozen=True)
class PickPool:
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
    pool: PickPool, probabilities: Floats, labels: Rows, radius_px: float, count: int = 20, seed: int = 0
) -> Rows:
    """The next picks to label, the most useful first.

    probabilities : (n, k) of `refit`, `particle` first
    labels : (n,) index into the classes, UNLABELLED or SKIPPED; only unlabelled ones are suggested
    radius_px : least distance between suggestions, and to labels, on one micrograph
    returns : (m,) int64 indices into the pool, m at most `count`; the same for the same arguments
    """
    if not (labels == UNLABELLED).any():
        return np.empty(0, dtype=np.int64)
    selection = _Selection(pool, labels, radius_px)
    even = balanced(probabilities)
    value = CERTAIN_WEIGHT + (1 - CERTAIN_WEIGHT) * uncertainty(even)
    value *= np.random.default_rng(seed).uniform(1 - RANDOM_SHARE, 1, len(labels))
    expected = np.bincount(labels[labels >= 0], minlength=even.shape[1]).astype(np.float64)
    rows: list[int] = []
    while len(rows) < count and selection.free.any():
        product = value * selection.novelty() * selection.rarity()
        rare = (expected < TARGET_LABELS) & (even[selection.free].max(0) >= MIN_PROBABILITY)
        if rare.any():
            product = product * even[:, int(np.where(rare, expected, np.inf).argmin())]
        row = int(np.where(selection.free, product, -1.0).argmax())
        expected += even[row]
        selection.take(row)
        rows.append(row)
    return np.array(rows, dtype=np.int64)


def balanced(probabilities: Floats) -> Floats:
    """(n, k) probabilities with a prior of 1/2 for particles, class 0 -> the same with equal priors."""
    odds = np.ones(probabilities.shape[1])
    odds[0] = max(len(odds) - 1, 1)
    found: Floats = probabilities / odds
    found /= found.sum(1, keepdims=True)
    return found


def uncertainty(probabilities: Floats) -> Floats:
    """(n, k) -> (n,): 1 where the two likeliest classes are equally likely, 0 where one is certain."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    two = np.sort(probabilities, axis=1)[:, -2:]
    found: Floats = 1 - (two[:, 1] - two[:, 0])
    return found


def principal_components(features: Tensor) -> Floats:
    """(n, d) features -> (n, c), standardised and clamped as the head does."""
    x = features.float()
    spread = x.std(0, correction=0)
    x = ((x - x.mean(0)) / spread.clamp(min=1e-6) * (spread > 1e-6)).clamp(-LIMIT, LIMIT)
    x = x - x.mean(0)
    _, axes = torch.linalg.eigh(x.T @ x / max(len(x), 1))
    found: Floats = (x @ axes[:, -COMPONENTS:]).double().numpy()
    return found


class _Selection:
    """The picks labelled, skipped or chosen so far; `free` (n,) bool are those that may still be chosen."""

    def __init__(self, pool: PickPool, labels: Rows, radius_px: float) -> None:
        self._pool, self._radius = pool, radius_px
        self._components = principal_components(pool.features)
        self._micrograph = np.unique(pool.micrograph, return_inverse=True)[1]
        self._bin = merit_fifths(pool.merit)
        self._nearest = np.full(len(labels), np.inf)
        self._of_micrograph = np.zeros(self._micrograph.max(initial=0) + 1)
        self._of_bin = np.zeros(MERIT_BINS + 1)
        self.free = labels == UNLABELLED
        for row in np.flatnonzero(labels != UNLABELLED).tolist():
            self.take(row)

    def take(self, row: int) -> None:
        """Add a pick; near ones on its micrograph are no longer free."""
        apart = np.linalg.norm(self._components - self._components[row], axis=1)
        self._nearest = np.minimum(self._nearest, apart)
        here = self._pool.micrograph == self._pool.micrograph[row]
        close = np.linalg.norm(self._pool.coordinates - self._pool.coordinates[row], axis=1) < self._radius
        self.free &= ~(here & close)
        self.free[row] = False
        self._of_micrograph[self._micrograph[row]] += 1
        self._of_bin[self._bin[row]] += 1

    def novelty(self) -> Floats:
        """(n,) distance to the nearest pick taken, as a share of the largest; 1 where none is taken."""
        if not np.isfinite(self._nearest).all():
            return np.ones(len(self._nearest))
        found: Floats = self._nearest / max(self._nearest[self.free].max(), 1e-12)
        return found

    def rarity(self) -> Floats:
        """(n,) lower where more picks are taken from the micrograph or the fifth of the picker's scores."""
        micrograph, merit = self._of_micrograph, self._of_bin
        found: Floats = ((1 + micrograph[self._micrograph]) * (1 + merit[self._bin] / MERIT_BINS)) ** -0.25
        return found


def merit_fifths(merit: Floats) -> Rows:
    """(n,) -> (n,) fifth of the picker's scores, 0 to 4; 5 where there is none."""
    known = np.isfinite(merit)
    found = np.full(len(merit), MERIT_BINS, dtype=np.int64)
    if known.any():
        edges = np.quantile(merit[known], np.arange(1, MERIT_BINS) / MERIT_BINS)
        found[known] = np.searchsorted(edges, merit[known], side="right")
    return found


@dataclass(frozen=True)
class Estimate:
    """macro_f1, low, high : with a 90 % interval; None where `enough` is false, as labels are too few

    shots : labels used; text : one line
    """

    macro_f1: float | None
    low: float | None
    high: float | None
    shots: int
    enough: bool
    text: str


@dataclass(frozen=True)
class _Labelled:
    """Features (n, d) and labels (n,) of the labelled picks, and features (u, d) of unlabelled ones."""

    shots: Tensor
    truth: Tensor
    others: Tensor


def estimate(classifier: PickClassifier, features: Tensor, labels: Rows, groups: Rows, seed: int = 0) -> Estimate:
    """Macro-F1, over the labelled classes, of the default recipe on picks like those of the pool.

    classifier : of `fewshot_classifier`; left fitted to a part of the labels, so refit it before use
    features, labels, groups : as for `refit`. Classes with fewer than MIN_LABELS labels do not count
    """
    rows = np.flatnonzero(labels >= 0)
    names = classifier.spec.class_names
    counts = np.bincount(labels[rows], minlength=len(names))
    missing = missing_labels(counts, names)
    if missing is not None:
        return Estimate(None, None, None, len(rows), False, f"too few labels to say: {missing}")
    group = groups[rows]
    generator = np.random.default_rng(seed)
    others = np.flatnonzero(labels == UNLABELLED)
    others = others[generator.permutation(len(others))[:MAX_UNLABELLED]]
    known = _Labelled(features[rows], torch.from_numpy(labels[rows]), features[others])
    by_label = _confusion(classifier, known, folds_by_label(labels[rows], generator), seed)
    by_micrograph = by_label
    several = len(np.unique(group)) > 1
    if several:
        by_micrograph = _confusion(classifier, known, folds_by_micrograph(group, generator), seed)
    low, high = (1 - COVERAGE) / 2, (1 + COVERAGE) / 2
    worst, best = (macro_f1(posterior(c, SAMPLES, generator)) for c in (by_micrograph, by_label))
    ends = (
        float(min(np.quantile(worst, low), np.quantile(best, low))),
        float(max(np.quantile(worst, high), np.quantile(best, high))),
    )
    points = macro_f1(by_micrograph[None]), macro_f1(by_label[None])
    middle = min(max(float(points[0][0] + points[1][0]) / 2, ends[0]), ends[1])
    text = _summary(middle, ends, [n for n, count in zip(names, counts, strict=True) if count < MIN_LABELS], several)
    return Estimate(middle, *ends, len(rows), True, text)


def missing_labels(counts: Rows, names: Sequence[str]) -> str | None:
    """Why (k,) labels a class are too few for an estimate, in words; None where they are enough."""
    if (counts >= MIN_LABELS).sum() >= 2:
        return None
    shown = ", ".join(f"{name} {count}" for name, count in zip(names, counts.tolist(), strict=True))
    return f"two classes need {MIN_LABELS} each, there are {shown}"


def folds_by_label(labels: Rows, generator: np.random.Generator) -> Rows:
    """(n,) fold of each label, every class spread evenly over the folds."""
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[order] = np.arange(len(labels)) % FOLDS
    return fold


def folds_by_micrograph(groups: Rows, generator: np.random.Generator) -> Rows:
    """(n,) fold of each label: each micrograph in one fold, the largest placed first."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = generator.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    load, fold = np.zeros(FOLDS), np.empty(len(sizes), dtype=np.int64)
    for one in order.tolist():
        fold[one] = load.argmin()
        load[fold[one]] += sizes[one]
    found: Rows = fold[group]
    return found


def _confusion(classifier: PickClassifier, known: _Labelled, fold: Rows, seed: int) -> Floats:
    """(k, k + 1) weighted counts of the k classes with enough labels, row = label, column = prediction (the last:
    any other class), each by a classifier that was not fitted to the label."""
    trials, elsewhere = _trials(classifier, known, fold, seed)
    set_temperature(classifier, trials)
    truth = np.concatenate([t.labels.numpy() for t in trials])
    predicted = [classifier.calibrated(t.logits, classifier.temperature).double().numpy() for t in trials]
    rest = [classifier.calibrated(z, classifier.temperature).double().numpy() for z in elsewhere]
    ranks = [
        uncertainty_ranks(uncertainty(mine), uncertainty(others)) for mine, others in zip(predicted, rest, strict=True)
    ]
    classes = len(classifier.spec.class_names)
    found = np.zeros((classes, classes))
    np.add.at(found, (truth, np.concatenate(predicted).argmax(1)), rank_weights(np.concatenate(ranks)))
    present = np.bincount(truth, minlength=classes) >= MIN_LABELS
    return np.column_stack([found[np.ix_(present, present)], found[present][:, ~present].sum(1)])


def _trials(classifier: PickClassifier, known: _Labelled, fold: Rows, seed: int) -> tuple[list[Trial], list[Tensor]]:
    """By fold, the logits of the classifier of the other folds: of the fold's labels, and of unlabelled picks."""
    trials, elsewhere = [], []
    for number in np.unique(fold).tolist():
        split = Split(np.flatnonzero(fold != number), np.flatnonzero(fold == number), "shot")
        fresh_head(classifier, seed)
        fit_default(classifier, known.shots[split.train], known.truth[split.train])
        trials.append(ask(classifier, known.shots, known.truth, split))
        with torch.no_grad():
            elsewhere.append(classifier.logits(known.others))
    return trials, elsewhere


def uncertainty_ranks(mine: Floats, others: Floats) -> Floats:
    """(m,) share of all picks, 0 to 1, that are less uncertain than each of the m labelled ones.

    others : (u,) of unlabelled picks. The m stand for the labels of all folds
    """
    everything = np.concatenate([others, np.repeat(mine, FOLDS)])
    below = np.searchsorted(np.sort(everything), mine, side="left")
    up_to = np.searchsorted(np.sort(everything), mine, side="right")
    found: Floats = (below + up_to) / 2 / len(everything)
    return found


def rank_weights(ranks: Floats) -> Floats:
    """(n,) weights with which each fifth of all picks, by uncertainty, counts the same.

    Their sum is the effective sample size.
    """
    fifth = np.minimum((ranks * FIFTHS).astype(np.int64), FIFTHS - 1)
    share = (np.bincount(fifth, minlength=FIFTHS) + 1) / (len(ranks) + FIFTHS)
    weights = 1 / (FIFTHS * share[fifth])
    found: Floats = weights * weights.sum() / np.square(weights).sum()
    return found


def posterior(confusion: Floats, samples: int, generator: np.random.Generator) -> Floats:
    """(k, j) counts -> (samples, k, j) confusions, the shares of each row drawn from their Dirichlet posterior.

    The prior is half a label, spread over all columns.
    """
    rows = [generator.dirichlet(row + 0.5 / len(row), samples) * row.sum() for row in confusion]
    return np.stack(rows, axis=1)


def macro_f1(confusions: Floats) -> Floats:
    """(b, k, j) counts, row = label, the first k columns those classes -> (b,) mean F1 of the k classes."""
    k = confusions.shape[1]
    right = np.einsum("bii->bi", confusions[:, :, :k])
    total = confusions.sum(2) + confusions[:, :, :k].sum(1)
    found: Floats = (2 * right / np.maximum(total, 1e-12)).mean(1)
    return found


def _summary(middle: float, ends: tuple[float, float], without: list[str], several: bool) -> str:
    text = f"macro-F1 about {middle:.2f} ({ends[0]:.2f} to {ends[1]:.2f})"
    if without:
        text += f", not counting {' and '.join(without)}: fewer than {MIN_LABELS} labels"
    if not several:
        text += "; all labels are on one micrograph, and others may do worse"
    return text
