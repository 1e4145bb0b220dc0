"""A finished pruning read back from its folder: `summary.json` and, frugally, `scores.csv`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.pruned_run import FILTER, open_run


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
