"""The record of one evaluation, and its JSON."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pickeropt.evaluate.calibration import Calibration
from pickeropt.evaluate.curves import Curve

CURVE_POINTS = 1000
"""The most points of a curve that the JSON and the figure hold."""


@dataclass(frozen=True)
class Quality:
    """One set of picks against the truth. Precision is 0 where there are no picks, recall
    where there are no particles, F1 where either is so."""

    picks: int
    true_picks: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Ranking:
    """All picks ranked by one score; the fields are those of `pickeropt.evaluate.curves`.

    false_removed : share of the false picks below the threshold that keeps 95 % of the true
        ones, None where there are no true or no false picks
    """

    average_precision: float
    best_f1: float
    best_f1_threshold: float
    false_removed: float | None
    curve: Curve


@dataclass(frozen=True)
class EqualRecall:
    """The kept picks against the picker's own score, cut at its highest threshold that
    recalls as much as the kept picks or more."""

    recall: float
    precision: float
    picker_recall: float
    picker_precision: float
    picker_threshold: float


@dataclass(frozen=True)
class Part:
    """One coordinate file or one micrograph by itself; truths counts its micrographs' particles."""

    name: str
    truths: int
    before: Quality
    after: Quality


@dataclass(frozen=True)
class Evaluation:
    """What `pickeropt evaluate` reports, on the micrographs that have both picks and truth.

    before, after : all picks and the kept picks, each matched as a set, best picker's score
        first (row order where there is none): so `before` does not depend on the
        classifier, and recall never rises by pruning
    ranking : by P(particle); picker_ranking : by the picker's score, None where it does not
        rank. Each curve is matched in the order of its own score; `false_removed` of both
        is read from the matching of `before`
    at_equal_recall : None where the picker does not rank or no true pick is kept
    calibration : of P(particle) against the matching of `before`
    by_file : each file matched without the others
    """

    scores_file: str
    truth: str
    radius_px: float
    micrographs: int
    picks: int
    truths: int
    before: Quality
    after: Quality
    ranking: Ranking
    picker_ranking: Ranking | None
    at_equal_recall: EqualRecall | None
    calibration: Calibration
    by_file: tuple[Part, ...]
    by_micrograph: tuple[Part, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain lists, numbers and None, curves thinned: ready for `json`."""
        plain = asdict(self)
        for name, ranking in (("ranking", self.ranking), ("picker_ranking", self.picker_ranking)):
            if ranking is not None:
                arrays = vars(thinned(ranking.curve))
                plain[name]["curve"] = {key: values.tolist() for key, values in arrays.items()}
        return plain


def quality(picks: int, true_picks: int, truths: int) -> Quality:
    """Precision, recall and F1 from counts; F1 = 2 TP / (picks + particles)."""
    return Quality(
        picks=picks,
        true_picks=true_picks,
        precision=true_picks / picks if picks else 0.0,
        recall=true_picks / truths if truths else 0.0,
        f1=2 * true_picks / (picks + truths) if picks and truths else 0.0,
    )


def thinned(curve: Curve, points: int = CURVE_POINTS) -> Curve:
    """At most `points` of a curve, evenly by index, first and last among them."""
    if len(curve.thresholds) <= points:
        return curve
    chosen = np.round(np.linspace(0, len(curve.thresholds) - 1, points)).astype(np.int64)
    return replace(curve, **{name: values[chosen] for name, values in vars(curve).items()})
