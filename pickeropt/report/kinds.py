"""The kinds of picks in a report: kept, or rejected and why; and the picks of each kind to show."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickeropt.records import PARTICLE
from pickeropt.report.reading import ReportedRun

Rows = NDArray[np.int64]
"""(m,) picks, by their place in `scores.csv`."""

KEPT = "kept"
GREEN = "#009E73"
COLOURS = {PARTICLE: "#F0E442", "contaminant": "#D55E00", "carbon": "#0072B2", "background": "#E69F00"}
OTHERS = ("#CC79A7", "#56B4E9", "#999999", "#7F3C8D")
"""Okabe and Ito's colours, which colour-blind people can tell apart; every kind has a mark of its own too."""
MARKS = {PARTICLE: "square", "contaminant": "tip", "carbon": "triangle", "background": "diamond"}
OTHER_MARKS = ("plus", "cross")
SEED = 0
FEWEST = 5
"""Picks of a micrograph whose share of rejected ones says something."""


@dataclass(frozen=True)
class Kind:
    """Picks of one fate.

    name : "kept", "as carbon", "by --min-std"
    mark : the shape around them: circle, square, diamond, triangle, tip (a triangle upside down), plus, cross
    """

    name: str
    colour: str
    mark: str
    rows: Rows

    @property
    def title(self) -> str:
        return self.name if self.name == KEPT else f"rejected {self.name}"


def kinds_of(run: ReportedRun) -> tuple[Kind, ...]:
    """The kinds that have picks: the kept, the rejected by class, then by filter; each pick is in one."""
    classes, reasons = len(run.classes), len(run.reasons)
    # a filter counts only for picks that no class explains: those that reach the threshold
    above = run.score >= np.float32(run.threshold)
    fate = np.where(above & (run.reason > 0), classes + run.reason, 1 + run.best)
    fate[run.kept] = 0
    names = [KEPT, *map(as_class, run.classes), *(f"by --{name}" for name in run.reasons[1:])]
    order = np.argsort(fate, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(fate, minlength=len(names)))[:-1])
    kinds = [
        Kind(name, colour, mark, rows)
        for name, (colour, mark), rows in zip(names, _looks(run.classes, reasons - 1), parts, strict=True)
    ]
    return tuple(kind for kind in kinds if len(kind.rows))


def as_class(name: str) -> str:
    """What a rejected pick was taken for, in words."""
    return "as particle, but not sure" if name == PARTICLE else f"as {name}"


def _looks(classes: tuple[str, ...], filters: int) -> list[tuple[str, str]]:
    """Colour and mark of the kept, of each class and of each filter."""
    looks, others = [(GREEN, "circle")], 0
    for name in (*classes, *("",) * filters):
        if name in COLOURS:
            looks.append((COLOURS[name], MARKS[name]))
        else:
            looks.append((OTHERS[others % len(OTHERS)], OTHER_MARKS[others % len(OTHER_MARKS)]))
            others += 1
    return looks


def spread(run: ReportedRun, rows: Rows, count: int) -> Rows:
    """So many of the picks, drawn by lot, spread over the micrographs; best score first.

    The lots are the same whatever the picks are, so that several draws meet on the same micrographs.
    """
    rng = np.random.default_rng(SEED)
    lot = rng.permutation(len(run.micrographs))[run.micrograph[rows]]
    order = rows[np.lexsort((rng.random(len(rows)), lot))]
    lot = np.sort(lot)
    starts = np.flatnonzero(np.diff(lot, prepend=-1))
    turn = np.arange(len(lot)) - np.repeat(starts, np.diff(np.append(starts, len(lot))))
    chosen = order[np.lexsort((lot, turn))[:count]]
    return by_score(run, chosen)


def closest(run: ReportedRun, count: int) -> Rows:
    """The picks whose score is nearest to the threshold, best score first; filters' are left out."""
    rows = np.flatnonzero(run.reason == 0)
    away = np.abs(run.score[rows] - run.threshold)
    return by_score(run, rows[np.argsort(away, kind="stable")[:count]])


def by_score(run: ReportedRun, rows: Rows) -> Rows:
    """Best score first; of equal ones the first row."""
    return rows[np.lexsort((rows, -run.score[rows]))]


@dataclass(frozen=True)
class MicrographCounts:
    """picks, kept : (m,) int64 a micrograph, in the order of `run.micrographs`"""

    picks: NDArray[np.int64]
    kept: NDArray[np.int64]

    @property
    def share(self) -> NDArray[np.float64]:
        """(m,) of the picks that are kept."""
        return self.kept / np.maximum(self.picks, 1)


def tally(run: ReportedRun) -> MicrographCounts:
    """Picks and kept picks of every micrograph."""
    count = len(run.micrographs)
    return MicrographCounts(
        np.bincount(run.micrograph, minlength=count),
        np.bincount(run.micrograph[run.kept], minlength=count),
    )


def extremes(run: ReportedRun, numbers: MicrographCounts, count: int) -> tuple[list[int], list[int]]:
    """The micrographs that lost the largest and the smallest share of their picks, up to `count` of each.

    None is in both. Micrographs with fewer than five picks count only where there are no others.
    """
    enough = numbers.picks >= FEWEST
    known = np.flatnonzero(enough if enough.any() else numbers.picks > 0).tolist()
    known.sort(key=lambda i: (numbers.share[i], -int(numbers.picks[i]), run.micrographs[i]))
    half = (len(known) + 1) // 2
    most = known[: min(count, half)]
    return most, known[half:][::-1][:count]
