"""How the classifier would do now, measured on the labels so far, with an interval and an honest "too few".

Two cross-validations: one holds out whole micrographs, which is how the classifier will be used; one holds
out labels here and there, which is how it would do had it seen labels of every micrograph. With labels from
few micrographs the first says too little (a class that is on one micrograph cannot be learnt when that one
is held out) and the second too much, so the interval goes from the low end of the one to the high end of the
other. Each end comes from the posterior of the confusion matrix, so that a handful of labels all told right
is no certainty. Suggested picks are the doubtful ones: each label counts by how many picks of the pool are as
doubtful, else the estimate would be that of the hardest picks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pickeropt.classifier import PickClassifier
from pickeropt.finetune.recipes import fit_default
from pickeropt.finetune.splits import Split
from pickeropt.finetune.trials import Trial, ask, fresh_head, set_temperature
from pickeropt.label.refit import UNLABELLED
from pickeropt.label.suggest import doubt

FEWEST = 5
"""Labels that a class needs to be counted; nothing is said before two classes have them."""
FOLDS = 4
FIFTHS = 5
MOST_OTHERS = 2000
"""Unlabelled picks that are asked about to see how doubtful the labelled ones are beside them."""
SAMPLES = 2000
COVERAGE = 0.9
"""Of the interval."""

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]


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


def _trials(
    classifier: PickClassifier, known: _Known, fold: Rows, seed: int
) -> tuple[list[Trial], list[Tensor]]:
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
