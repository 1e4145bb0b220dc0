"""The folder of a pruning: kept and rejected picks, a table of scores, a summary.

Which files a run read, as `summary.json` keeps it: enough to write its outputs again.
"""

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import pickeropt
from pickeropt.errors import OutputError
from pickeropt.io.inputs import SUMMARY, Inputs, ListSource, Source
from pickeropt.io.lists import is_suffix_file, read_coordinate_list, read_suffix_file, rewrite_coordinate_list
from pickeropt.io.picks import companion_subsets, read_picks, subset
from pickeropt.io.picks_file import PicksFile
from pickeropt.io.scores import with_scores
from pickeropt.prune.prune_config import KEPT, REASONS, REJECTED, SCORES, PruneConfig, PruneSummary

if TYPE_CHECKING:
    from pickeropt.prune.decision import Decision
    from pickeropt.prune.plan import Plan


FILES, LISTS, PLACES = "files", "lists", "places"


def record(inputs: "Plan") -> dict[str, Any]:
    """Name, path and sha256 of each file of picks and each list; path and Å/px of each micrograph."""
    files = [{"name": source.name, **_place(source.file.path, _contents(source.file))} for source in inputs.sources]
    lists = [
        {
            "name": listed.name,
            **_place(listed.coordinates.path, [listed.coordinates.content]),
            "targets": list(listed.targets),
        }
        for listed in inputs.lists
    ]
    places = {site.name: [str(site.path), float(site.pixel_size)] for site in inputs.picks.sites}
    return {FILES: files, **({LISTS: lists} if lists else {}), PLACES: places}


def read_recorded(summary: Mapping[str, Any]) -> Inputs:
    """The inputs of a run, read again.

    Raises OutputError for a summary that has none, and for a file that is gone or has changed;
    FormatError as `read_picks` does.
    """
    try:
        files = [(Path(entry["path"]), str(entry["name"]), entry["sha256"]) for entry in summary[FILES]]
        lists = [
            (Path(entry["path"]), str(entry["name"]), entry["sha256"], tuple(map(str, entry["targets"])))
            for entry in summary.get(LISTS, ())
        ]
    except (KeyError, TypeError) as error:
        what = "summary.json does not say which files the run read; it is of an earlier pickeropt, or changed"
        raise OutputError(f"{what}: prune once more") from error
    _check_there([*(entry[0] for entry in files), *(entry[0] for entry in lists)])
    sources = []
    for path, name, digest in files:
        file = read_picks(path)
        _check_same(path, _digest(_contents(file)), digest)
        sources.append(Source(file, name))
    listed = []
    for path, name, digest, targets in lists:
        coordinates = read_suffix_file(path) if is_suffix_file(path) else read_coordinate_list(path)
        _check_same(path, _digest([coordinates.content]), digest)
        listed.append(ListSource(coordinates, name, targets))
    return Inputs(tuple(sources), tuple(listed), ())


def _place(path: Path, contents: Sequence[bytes]) -> dict[str, str]:
    return {"path": str(path.absolute()), "sha256": _digest(contents)}


def _contents(file: PicksFile) -> list[bytes]:
    """The bytes of a file of picks, and of those that go with it."""
    return [file.content, *(companion.path.read_bytes() for companion in file.companions)]


def _digest(contents: Sequence[bytes]) -> str:
    """sha256 of the bytes of one file, or of several one after the other."""
    found = hashlib.sha256()
    for content in contents:
        found.update(content)
    return found.hexdigest()


def _check_there(paths: Sequence[Path]) -> None:
    gone = [str(path) for path in paths if not path.is_file()]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise OutputError(f"{gone[0]}{more}: the run read it, but it is gone; put it back, or prune once more")


def _check_same(path: Path, found: str, recorded: object) -> None:
    if found != recorded:
        raise OutputError(f"{path}: has changed since the run read it; prune once more")


REPORT, SHEET, OVERLAYS = "report.html", "contact_sheet.png", "overlays"
"""What the report of a pruning adds."""
OWN = frozenset({KEPT, REJECTED, SCORES, SUMMARY, REPORT, SHEET, OVERLAYS})
"""What a pruning replaces in its folder; all else in there is the user's."""
EVALUATION = ("evaluation.json", "pr_curve.png")
"""What `pickeropt evaluate` leaves beside the scores."""
PIECE = 20_000
"""Rows of the table that are text at once."""


def write_picks(
    folder: Path, inputs: Inputs, keep: NDArray[np.bool_], out: Path, scores: NDArray[np.floating] | None
) -> None:
    """`kept/NAME` and `rejected/NAME` of every input, under `folder`.

    keep : (n,) bool; out : the name that `folder` will have, in the paths of a list
    scores : (n,) P(particle) to put into the files, None to leave them as they are
    """
    start = 0
    for source in inputs.sources:
        rows = slice(start, start + len(source.file.picks))
        start = rows.stop
        file = source.file if scores is None else with_scores(source.file, scores[rows])
        for side, chosen in ((KEPT, keep[rows]), (REJECTED, ~keep[rows])):
            place = folder / side / source.name
            _write(place, subset(file, chosen))
            for name, data in companion_subsets(file, chosen).items():
                _write(place.parent / name, data)
    for side in (KEPT, REJECTED):
        for listed in inputs.lists:
            paths = [(out / side / target).as_posix() for target in listed.targets]
            _write(folder / side / listed.name, rewrite_coordinate_list(listed.coordinates, paths))


def write_scores(path: Path, plan: "Plan", decision: "Decision") -> None:
    """`scores.csv`: a row a pick, in the order of the files; probabilities with 6 decimals.

    `row` is the 0-based place among the picks of the file; `figure_of_merit` is the
    picker's score, empty where there is none. With filters come what they measured, and in `filter`
    the one that is against the pick. `kept` is the last column.
    """
    classes = [f"p_{name}" for name in decision.scores.class_names]
    header = ["file", "row", "micrograph", "x", "y", "figure_of_merit", "class", "score", *classes]
    header += [*decision.measures, *(["filter"] if decision.filtered else []), "kept"]
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(map(_cell, header)) + "\n")
        for piece in _pieces(plan, decision):
            file.write(piece)


def former_evaluation(stays: Sequence[str]) -> tuple[str, ...]:
    """A warning where an evaluation is among what stays in the folder: it is of the former run."""
    found = [name for name in EVALUATION if name in stays]
    if not found:
        return ()
    said = f"{' and '.join(found)} in the folder {'are' if len(found) > 1 else 'is'} of the former run"
    return (f"{said}; `pickeropt evaluate` measures this one",)


def _pieces(plan: "Plan", decision: "Decision") -> Iterator[str]:
    """The lines of the table, some thousand in a string."""
    scores, judged = decision.scores, decision.judged
    micrographs = [_cell(site.name) for site in plan.picks.sites]
    classes = [_cell(name) for name in scores.class_names]
    extra = "%.6g," * len(decision.measures) + "%s," * decision.filtered
    keep = judged.keep
    for i, source in enumerate(plan.sources):
        start, end = plan.picks.starts[i : i + 2].tolist()
        merits = source.file.picks.figure_of_merit
        name = _cell(source.name).replace("%", "%%")
        line = f"{name},%d,%s,%r,%r,%s,%s,{'%.6f,' * (1 + len(classes))}{extra}%d\n"
        for first in range(start, end, PIECE):
            here = slice(first, min(first + PIECE, end))
            part = scores.probabilities[here]
            columns = [
                range(here.start - start, here.stop - start),
                [micrographs[m] for m in plan.picks.micrograph[here].tolist()],
                *plan.picks.coordinates[here].T.tolist(),
                [_merit(value) for value in merits[here.start - start : here.stop - start].tolist()],
                [classes[c] for c in judged.best[here].tolist()],
                scores.particle[here].tolist(),
                *part.T.tolist(),
                *(values[here].tolist() for values in decision.measures.values()),
                *([[REASONS[r] for r in judged.reasons[here].tolist()]] if decision.filtered else []),
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


def write_summary(
    folder: Path, summary: PruneSummary, config: PruneConfig, inputs: tuple[Sequence[Path], "Plan"]
) -> None:
    """`summary.json`: the counts, what the run was told and where, and which files it read.

    inputs : as they were given, and as they were found
    """
    given, plan = inputs
    content = {"pickeropt": pickeropt.__version__, **fields_of(summary)}
    content |= {"inputs": [str(path) for path in given], "folder": str(Path.cwd())}
    content |= {"settings": asdict(config), **record(plan)}
    write_json(folder / SUMMARY, content)


def fields_of(summary: PruneSummary) -> dict[str, Any]:
    """The summary as `summary.json` has it."""
    worst = [{"micrograph": name, "picks": picks, "rejected": lost} for name, picks, lost in summary.worst]
    return {**asdict(summary), "worst": worst}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Paths become text; numbers that are none are refused."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    _write(path, f"{text}\n".encode())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
