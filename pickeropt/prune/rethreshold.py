"""Another threshold for a finished run, from its `scores.csv`: no model, no micrograph, no torch."""

import csv
import io
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError, OutputError, PickeroptError
from pickeropt.files import cannot_write
from pickeropt.io.inputs import SUMMARY, Inputs
from pickeropt.prune.decision import NOTHING_KEPT, Judged, counts
from pickeropt.prune.outputs import OWN, fields_of, former_evaluation, read_recorded, write_json, write_picks
from pickeropt.prune.prune_config import REASONS, SCORES, Finish, PruneSummary
from pickeropt.records import FloatArray
from pickeropt.resumable import bring_back, open_workspace, partial_folder


@dataclass(frozen=True)
class Table:
    """`scores.csv` of a run: header and n rows of cells, as text."""

    path: Path
    header: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        """The cells of one column. Raises FormatError where there is none."""
        if name not in self.header:
            raise FormatError(f"{self.path}: no column {name!r}; give scores.csv as prune wrote it")
        place = self.header.index(name)
        return [row[place] for row in self.rows]


def rethreshold(
    run: Path,
    threshold: float,
    out: Path | None = None,
    *,
    overwrite: bool = False,
    finish: Finish | None = None,
) -> PruneSummary:
    """Write `kept/`, `rejected/`, the `kept` column and the summary of a finished run anew.

    run : its folder, or the `scores.csv` in it
    out : a new folder; None: the run's own, replaced in one step
    finish : as `prune` calls it
    What filters rejected stays rejected. Scores are taken as the table has them, rounded to 6 decimals.
    Raises OutputError for a folder that is no run, an unfinished run on top of it, inputs that are gone or
    have changed; FormatError for a table that does not fit them.
    """
    begun = time.perf_counter()
    if not 0 <= threshold <= 1:
        raise PickeroptError(f"the threshold is {threshold:g}; give one from 0 to 1")
    folder = run.parent if run.name == SCORES and not run.is_dir() else run
    bring_back(folder)
    content = _read_summary(folder)
    inputs = read_recorded(content)
    table = _read_table(folder / SCORES, inputs)
    score, judged = _judge(table, content, threshold)
    target = folder if out is None else out
    summary = _summary(content, judged, threshold, target)
    in_place = target.resolve() == folder.resolve()
    if in_place and (partial_folder(folder) / "records").exists():
        raise OutputError(f"{partial_folder(folder)}: an unfinished run for {folder}; finish or remove it first")
    with open_workspace(target, {"the command": "rethreshold"}, in_place or overwrite, OWN) as workspace:
        try:
            shutil.rmtree(workspace.staging, ignore_errors=True)
            write_scores = bool(content["settings"].get("write_score"))
            recorded = _recorded(content, target)
            written = score if write_scores else None
            write_picks(workspace.staging, inputs, judged.keep, Path(str(recorded["out"])), written)
            _write_table(workspace.staging / SCORES, table, judged)
            summary = replace(summary, seconds=time.perf_counter() - begun)
            write_json(workspace.staging / SUMMARY, _content(recorded, summary))
        except OSError as error:
            raise cannot_write(target, error) from error
        doubts = finish(workspace.staging) if finish else ()
        stays = former_evaluation(workspace.publish())
    return replace(summary, warnings=(*summary.warnings, *doubts, *stays))


def _read_summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise OutputError(f"{folder}: is no finished pruning (no {SUMMARY} in it); give its folder") from None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read ({error}); prune once more") from error
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise OutputError(f"{path}: is no summary of a pruning; prune once more")
    return content


def _read_table(path: Path, inputs: Inputs) -> Table:
    """The table, held against the files of picks: the same rows in the same order."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error) as error:
        raise FormatError(f"{path}: cannot be read as a table ({error}); prune once more") from error
    wrong = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
    if wrong is not None:
        raise FormatError(f"{path}, row {wrong + 1}: {len(rows[wrong])} cells, not {len(header)}; prune once more")
    table = Table(path, header, rows)
    expected = [(source.name, str(i)) for source in inputs.sources for i in range(len(source.file.picks))]
    if list(zip(table.column("file"), table.column("row"), strict=True)) != expected or header[-1] != "kept":
        what = "its rows are not those of the files of picks, in their order, with `kept` last"
        raise FormatError(f"{path}: {what}; it was sorted or changed: prune once more")
    return table


def _judge(table: Table, content: dict[str, Any], threshold: float) -> tuple[FloatArray, Judged]:
    """(n,) scores, and what comes of them."""
    score = _scores(table)
    classes = tuple(name.removeprefix("p_") for name in table.header if name.startswith("p_"))
    names = tuple(dict.fromkeys(table.column("micrograph")))
    reasons = table.column("filter") if "filter" in table.header else [""] * len(score)
    judged = Judged(
        class_names=classes,
        best=_indices(table, classes, table.column("class")),
        micrographs=names,
        micrograph=_indices(table, names, table.column("micrograph")),
        above=score >= np.float32(threshold),
        reasons=_indices(table, REASONS, reasons),
    )
    return score, judged


def _scores(table: Table) -> FloatArray:
    cells = table.column("score")
    try:
        found = np.array([float(cell) for cell in cells], dtype=np.float32)
    except ValueError as error:
        raise FormatError(f"{table.path}: a score is no number ({error}); prune once more") from error
    wrong = ~((found >= 0) & (found <= 1))
    if wrong.any():
        row = int(wrong.argmax())
        raise FormatError(f"{table.path}, row {row + 1}: the score is {cells[row]}, not from 0 to 1; prune once more")
    return found


def _indices(table: Table, names: Sequence[str], cells: Sequence[str]) -> NDArray[np.int64]:
    place = {name: i for i, name in enumerate(names)}
    try:
        return np.array([place[cell] for cell in cells], dtype=np.int64)
    except KeyError as error:
        raise FormatError(f"{table.path}: {error} is none of {', '.join(names)}; prune once more") from None


def _summary(content: dict[str, Any], judged: Judged, threshold: float, out: Path) -> PruneSummary:
    numbers = counts(judged)
    known = {field.name: content[field.name] for field in fields(PruneSummary) if field.name in content}
    warnings = [text for text in content.get("warnings", ()) if text != NOTHING_KEPT]
    warnings += [] if numbers["kept"] else [NOTHING_KEPT]
    known |= {**numbers, "threshold": threshold, "out": out, "warnings": tuple(warnings), "resumed": 0}
    known["pixel_sizes"] = tuple(known.get("pixel_sizes", ()))
    known["notes"] = tuple(known.get("notes", ()))
    try:
        return PruneSummary(**known)
    except TypeError as error:
        raise OutputError(f"summary.json lacks what a pruning writes ({error}); prune once more") from error


def _recorded(content: dict[str, Any], target: Path) -> dict[str, Any]:
    """The summary of the run, `out` and the paths in it as they lead there from its `folder`.

    In place they stay as they were. Elsewhere, or after the run was moved, the folder is the one that this
    is called in, and what was told from another becomes absolute.
    """
    folder = Path(str(content.get("folder") or ""))
    if (folder / str(content.get("out") or "")).resolve() == target.resolve():
        return content
    settings, here = content["settings"], Path.cwd()
    if folder.is_absolute() and folder.resolve() != here:
        content = {**content, "inputs": [str(folder / path) for path in content.get("inputs", ())]}
        paths = {name: folder / settings[name] for name in ("model", "picker_shots") if settings.get(name)}
        places = [folder / path for path in settings.get("micrographs") or ()]
        settings = {**settings, **paths, "micrographs": places}
    return {**content, "folder": str(here), "out": str(target), "settings": {**settings, "out": target}}


def _content(recorded: dict[str, Any], summary: PruneSummary) -> dict[str, Any]:
    """`recorded` with the figures of `summary`."""
    settings = {**recorded["settings"], "threshold": summary.threshold}
    return {**recorded, **fields_of(summary), "out": recorded["out"], "settings": settings}


def _write_table(path: Path, table: Table, judged: Judged) -> None:
    """The same table with another last column, cells quoted as `prune` quotes them."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.header)
    keep = judged.keep.astype(int).tolist()
    writer.writerows([*row[:-1], kept] for row, kept in zip(table.rows, keep, strict=True))
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
