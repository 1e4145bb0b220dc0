"""Which boxes to label next: uncertain, unlike one another, spread over micrographs and picker's scores.

One pick at a time: the one whose product is largest of how unsure the model is, distance in feature space
to the nearest label or pick chosen, and how seldom its micrograph and its fifth of the picker's scores had a
turn. As long as a class has too few (labels, and what the picks chosen so far are expected to be), the
probability of the class that has least counts too, so that rare classes are found early.

The few-shot model behind the suggestions: what the labels so far teach, asked about the whole pool.

It is the default recipe of `finetune` on features that were looked at once. What no label has taught yet is
left to the general model's opinion, which is there before the first label.

How the classifier would do now, measured on the labels so far, with an interval and an honest "too few".

Two cross-validations: one holds out whole micrographs, which is how the classifier will be used; one holds
out labels here and there, which is how it would do had it seen labels of every micrograph. With labels from
few micrographs the first says too little (a class that is on one micrograph cannot be learnt when that one
is held out) and the second too much, so the interval goes from the low end of the one to the high end of the
other. Each end comes from the posterior of the confusion matrix, so that a handful of labels all told right
is no certainty. Suggested picks are the doubtful ones: each label counts by how many picks of the pool are as
doubtful, else the estimate would be that of the hardest picks.
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
from pickeropt.finetune.splits import Split
from pickeropt.models.classifier import PickClassifier
from pickeropt.models.head import LIMIT
from pickeropt.records import PARTICLE

UNLABELLED = -1
SKIPPED = -2
"""Seen and passed over: neither a label nor suggested again."""
FEWEST_TO_FIT = 2
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
    known = counts >= FEWEST_TO_FIT
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


FEWEST = 5
"""Labels that a class needs to be counted; nothing is said before two classes have them."""
FOLDS = 4
FIFTHS = 5
MOST_OTHERS = 2000
"""Unlabelled picks that are asked about to see how doubtful the labelled ones are beside them."""
SAMPLES = 2000
COVERAGE = 0.9
"""Of the interval."""


@dataclass(frozen=True)
class Estimate:
    """macro_f1, low, high : None where there are too few labels; the interval is of 90 %

    shots : labels that it rests on
    enough : whether there are labels enough to say anything
    text : one line
    """

    macro_f1: float | None
    low: float | None
    high: float | None
    shots: int
    enough: bool
    text: str


@dataclass(frozen=True)
class _Known:
    """Features (n, d) and labels (n,) of the labelled picks, and features (u, d) of unlabelled ones."""

    shots: Tensor
    truth: Tensor
    others: Tensor


def estimate(
    classifier: PickClassifier,
    features: Tensor,
    labels: Rows,
    groups: Rows,
    seed: int = 0,
) -> Estimate:
    """Macro-F1 over the labelled classes that the default recipe would have on picks like the pool's.

    classifier : of `fewshot_classifier`; left fitted to a part of the labels, so refit it before it is asked
    features, labels, groups : as for `refit`. Classes with fewer than FEWEST labels do not count
    """
    rows = np.flatnonzero(labels >= 0)
    names = classifier.spec.class_names
    counts = np.bincount(labels[rows], minlength=len(names))
    missing = what_is_missing(counts, names)
    if missing is not None:
        return Estimate(None, None, None, len(rows), False, f"too few labels to say: {missing}")
    group = groups[rows]
    generator = np.random.default_rng(seed)
    others = np.flatnonzero(labels == UNLABELLED)
    others = others[generator.permutation(len(others))[:MOST_OTHERS]]
    known = _Known(features[rows], torch.from_numpy(labels[rows]), features[others])
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
    text = _told(middle, ends, [n for n, count in zip(names, counts, strict=True) if count < FEWEST], several)
    return Estimate(middle, *ends, len(rows), True, text)


def what_is_missing(counts: Rows, names: Sequence[str]) -> str | None:
    """What (k,) labels a class lack for an estimate, in words; None where they are enough."""
    if (counts >= FEWEST).sum() >= 2:
        return None
    shown = ", ".join(f"{name} {count}" for name, count in zip(names, counts.tolist(), strict=True))
    return f"two classes need {FEWEST} each, there are {shown}"


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


def _confusion(classifier: PickClassifier, known: _Known, fold: Rows, seed: int) -> Floats:
    """(k, k + 1) weighted counts of the k classes with labels enough, row = label, column = said (the last:
    any other class), each label told by a classifier that had not seen it."""
    trials, elsewhere = _trials(classifier, known, fold, seed)
    set_temperature(classifier, trials)
    asked = np.concatenate([t.labels.numpy() for t in trials])
    told = [classifier.calibrated(t.logits, classifier.temperature).double().numpy() for t in trials]
    rest = [classifier.calibrated(z, classifier.temperature).double().numpy() for z in elsewhere]
    ranks = [doubt_ranks(doubt(mine), doubt(others)) for mine, others in zip(told, rest, strict=True)]
    classes = len(classifier.spec.class_names)
    found = np.zeros((classes, classes))
    np.add.at(found, (asked, np.concatenate(told).argmax(1)), rank_weights(np.concatenate(ranks)))
    present = np.bincount(asked, minlength=classes) >= FEWEST
    return np.column_stack([found[np.ix_(present, present)], found[present][:, ~present].sum(1)])


def _trials(classifier: PickClassifier, known: _Known, fold: Rows, seed: int) -> tuple[list[Trial], list[Tensor]]:
    """Of each fold the classifier of the others, asked about its labels and about unlabelled picks."""
    trials, elsewhere = [], []
    for number in np.unique(fold).tolist():
        split = Split(np.flatnonzero(fold != number), np.flatnonzero(fold == number), "shot")
        fresh_head(classifier, seed)
        fit_default(classifier, known.shots[split.train], known.truth[split.train])
        trials.append(ask(classifier, known.shots, known.truth, split))
        with torch.no_grad():
            elsewhere.append(classifier.logits(known.others))
    return trials, elsewhere


def doubt_ranks(mine: Floats, others: Floats) -> Floats:
    """(m,) share of all picks, 0 to 1, that are less doubtful than each of the m labelled ones.

    others : (u,) doubts of unlabelled picks. The m stand for all folds' labels beside them
    """
    everything = np.concatenate([others, np.repeat(mine, FOLDS)])
    below = np.searchsorted(np.sort(everything), mine, side="left")
    up_to = np.searchsorted(np.sort(everything), mine, side="right")
    found: Floats = (below + up_to) / 2 / len(everything)
    return found


def rank_weights(ranks: Floats) -> Floats:
    """(n,) weights that make labels of doubtful picks count as much as such picks are there.

    Each fifth of all picks, by doubt, counts the same. The sum is how many even labels are worth as much.
    """
    fifth = np.minimum((ranks * FIFTHS).astype(np.int64), FIFTHS - 1)
    share = (np.bincount(fifth, minlength=FIFTHS) + 1) / (len(ranks) + FIFTHS)
    weights = 1 / (FIFTHS * share[fifth])
    found: Floats = weights * weights.sum() / np.square(weights).sum()
    return found


def posterior(confusion: Floats, samples: int, generator: np.random.Generator) -> Floats:
    """(k, j) counts -> (samples, k, j): what the confusion of as many other boxes may be.

    The shares of each row are drawn from their posterior; the prior is half a label, spread over all answers.
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


def _told(middle: float, ends: tuple[float, float], without: list[str], several: bool) -> str:
    text = f"macro-F1 about {middle:.2f} ({ends[0]:.2f} to {ends[1]:.2f})"
    if without:
        text += f", not counting {' and '.join(without)}: fewer than {FEWEST} labels"
    if not several:
        text += "; all labels are on one micrograph, and others may do worse"
    return text
