"""What a report is about: the finished run, and its kinds of picks, kept or rejected and why.

A finished pruning read back from its folder: `summary.json` and, frugally, `scores.csv`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.pruned_run import FILTER, open_run
from pickeropt.records import PARTICLE


@dataclass(frozen=True)
class Place:
    """Where a micrograph was when it was pruned, and its Å/px."""

    path: Path
    pixel_size: float


@dataclass(frozen=True)
class ReportedRun:
    """A pruning of n picks.

    summary : `summary.json`
    classes : the model's, `particle` first
    reasons : filters that rejected picks; the first is "", none
    files, micrographs : their names, in order of first mention
    file, micrograph, best, reason : (n,) int32, of each pick, into these
    row : (n,) int32, its place in the file, 0-based
    xy : (n, 2) float32 px, rows as stored; score : (n,) float32; kept : (n,) bool
    places : of the micrographs, by name; empty for a run of a pickeropt that did not note them
    """

    summary: Mapping[str, Any]
    classes: tuple[str, ...]
    reasons: tuple[str, ...]
    files: tuple[str, ...]
    micrographs: tuple[str, ...]
    file: NDArray[np.int32]
    micrograph: NDArray[np.int32]
    best: NDArray[np.int32]
    reason: NDArray[np.int32]
    row: NDArray[np.int32]
    xy: NDArray[np.float32]
    score: NDArray[np.float32]
    kept: NDArray[np.bool_]
    places: Mapping[str, Place]

    def __len__(self) -> int:
        return len(self.score)

    @property
    def threshold(self) -> float:
        return float(self.summary["threshold"])

    @property
    def diameter_angstrom(self) -> float:
        return float(self.summary["diameter_angstrom"])


def read_run(folder: Path) -> ReportedRun:
    """A finished run, from its folder.

    Raises OutputError for a folder that is none, FormatError (file, line) for a table that is not as
    `prune` wrote it.
    """
    run = open_run(folder)
    table = run.scores(("file", "row", "micrograph", "x", "y", "class", "score", FILTER, "kept"), np.float32)
    if not len(table):
        raise FormatError(f"{folder}: has no picks to report on")
    return ReportedRun(
        summary=run.summary,
        classes=table.class_names,
        reasons=table.reasons,
        files=table.files,
        micrographs=table.micrographs,
        file=table["file"],
        micrograph=table["micrograph"],
        best=table["class"],
        reason=table[FILTER],
        row=table["row"],
        xy=table.coordinates,
        score=table["score"],
        kept=table["kept"],
        places=_places(run.summary),
    )


def _places(summary: Mapping[str, Any]) -> dict[str, Place]:
    try:
        return {str(name): Place(Path(path), float(size)) for name, (path, size) in summary["places"].items()}
    except (KeyError, AttributeError, TypeError, ValueError):
        return {}


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
