"""The folder of a pruning: kept and rejected picks, a table of scores, a summary."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pickeropt
from pickeropt.io.lists import rewrite_coordinate_list
from pickeropt.io.picks import subset
from pickeropt.prune.config import PruneConfig, PruneSummary
from pickeropt.prune.plan import Plan
from pickeropt.prune.progress import SUMMARY
from pickeropt.records import Scores

KEPT, REJECTED = "kept", "rejected"
PIECE = 20_000
"""Rows of the table that are text at once."""


def write_picks(folder: Path, plan: Plan, keep: NDArray[np.bool_], out: Path) -> None:
    """`kept/NAME` and `rejected/NAME` of every input, under `folder`.

    keep : (n,) bool; out : the name that `folder` will have, in the paths of a list
    """
    for side, chosen in ((KEPT, keep), (REJECTED, ~keep)):
        for i, source in enumerate(plan.sources):
            rows = chosen[plan.starts[i] : plan.starts[i + 1]]
            _write(folder / side / source.name, subset(source.file, rows))
        for listed in plan.lists:
            paths = [(out / side / target).as_posix() for target in listed.targets]
            _write(folder / side / listed.name, rewrite_coordinate_list(listed.coordinates, paths))


def write_scores(path: Path, plan: Plan, scores: Scores, keep: NDArray[np.bool_]) -> None:
    """`scores.csv`: a row a pick, in the order of the files; probabilities with 6 decimals.

    `row` is the 0-based place among the picks of the file; `figure_of_merit` is the
    picker's score, empty where there is none.
    """
    classes = [f"p_{name}" for name in scores.class_names]
    header = ["file", "row", "micrograph", "x", "y", "figure_of_merit", "class", "score", *classes, "kept"]
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(map(_cell, header)) + "\n")
        for piece in _pieces(plan, scores, keep):
            file.write(piece)


def _pieces(plan: Plan, scores: Scores, keep: NDArray[np.bool_]) -> Iterator[str]:
    """The lines of the table, some thousand in a string."""
    micrographs = [_cell(task.name) for task in plan.tasks]
    classes = [_cell(name) for name in scores.class_names]
    for i, source in enumerate(plan.sources):
        start, end = plan.starts[i : i + 2].tolist()
        merits = source.file.picks.figure_of_merit
        name = _cell(source.name).replace("%", "%%")
        line = f"{name},%d,%s,%r,%r,%s,%s,{'%.6f,' * (1 + len(classes))}%d\n"
        for first in range(start, end, PIECE):
            here = slice(first, min(first + PIECE, end))
            part = scores.probabilities[here]
            columns = [
                range(here.start - start, here.stop - start),
                [micrographs[m] for m in plan.micrograph[here].tolist()],
                *plan.coordinates[here].T.tolist(),
                [_merit(value) for value in merits[here.start - start : here.stop - start].tolist()],
                [classes[c] for c in part.argmax(axis=1).tolist()],
                scores.particle[here].tolist(),
                *part.T.tolist(),
                keep[here].tolist(),
            ]
            yield "".join([line % row for row in zip(*columns, strict=True)])


def _merit(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""


def _cell(text: str) -> str:
    """The text as a cell of a CSV table, quoted where it must be."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow([text])
    return buffer.getvalue()


def write_summary(folder: Path, summary: PruneSummary, config: PruneConfig, inputs: Sequence[Path]) -> None:
    """`summary.json`: the counts, and what the run was told."""
    settings: Mapping[str, Any] = asdict(config)
    content = {"pickeropt": pickeropt.__version__, **asdict(summary)}
    content["worst"] = [
        {"micrograph": name, "picks": picks, "rejected": lost} for name, picks, lost in summary.worst
    ]
    content |= {"inputs": [str(path) for path in inputs], "settings": settings}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    _write(folder / SUMMARY, f"{text}\n".encode())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
