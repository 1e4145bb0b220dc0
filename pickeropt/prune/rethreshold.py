"""Another threshold for a finished run, from its `scores.csv`: no model, no micrograph, no torch."""

import shutil
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pickeropt.errors import FormatError, OutputError, PickeroptError
from pickeropt.files import cannot_write
from pickeropt.io.inputs import Inputs
from pickeropt.prune.outputs import fields_of, read_recorded, write_picks
from pickeropt.prune.prune_config import REASONS, Finish, PruneSummary
from pickeropt.prune.prune_summary import NOTHING_KEPT, JudgedPicks, counts
from pickeropt.pruned_run import (
    FILTER,
    OWN,
    SCORES,
    ScoresTable,
    former_evaluation,
    read_scores,
    read_summary,
    write_kept,
    write_summary,
)
from pickeropt.resumable import bring_back, open_workspace, partial_folder


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
    content = read_summary(folder)
    inputs = read_recorded(content)
    table = _read_table(folder / SCORES, inputs)
    judged = _judge(table, threshold)
    target = folder if out is None else out
    summary = _summary(content, judged, threshold, target)
    in_place = target.resolve() == folder.resolve()
    if in_place and (partial_folder(folder) / "records").exists():
        raise OutputError(f"{partial_folder(folder)}: an unfinished run for {folder}; finish or remove it first")
    with open_workspace(target, {"the command": "rethreshold"}, in_place or overwrite, OWN) as workspace:
        try:
            shutil.rmtree(workspace.staging, ignore_errors=True)
            recorded = _recorded(content, target)
            written = table["score"] if content["settings"].get("write_score") else None
            write_picks(workspace.staging, inputs, judged.keep, Path(str(recorded["out"])), written)
            write_kept(folder / SCORES, workspace.staging / SCORES, judged.keep)
            summary = replace(summary, seconds=time.perf_counter() - begun)
            write_summary(workspace.staging, _content(recorded, summary))
        except OSError as error:
            raise cannot_write(target, error) from error
        doubts = finish(workspace.staging) if finish else ()
        stays = former_evaluation(workspace.publish())
    return replace(summary, warnings=(*summary.warnings, *doubts, *stays))


def _read_table(path: Path, inputs: Inputs) -> ScoresTable:
    """The table, held against the files of picks: the same rows in the same order."""
    table = read_scores(path, ("file", "row", "micrograph", "class", "score", FILTER, "kept"), np.float32)
    sources = [(source.name, len(source.file.picks)) for source in inputs.sources if len(source.file.picks)]
    sizes = [size for _, size in sources]
    rows = np.concatenate([np.arange(size) for size in sizes])
    same = table.files == tuple(name for name, _ in sources) and len(table) == len(rows)
    if not (same and (table["row"] == rows).all() and (table["file"] == np.repeat(np.arange(len(sizes)), sizes)).all()):
        what = "its rows are not those of the files of picks, in their order"
        raise FormatError(f"{path}: {what}; it was sorted or changed: prune once more")
    unknown = [name for name in table.reasons if name not in REASONS]
    if unknown:
        raise FormatError(f"{path}: filter {unknown[0]!r} is none of {', '.join(REASONS)}; prune once more")
    return table


def _judge(table: ScoresTable, threshold: float) -> JudgedPicks:
    return JudgedPicks(
        class_names=table.class_names,
        best=table["class"].astype(np.int64),
        micrographs=table.micrographs,
        micrograph=table["micrograph"].astype(np.int64),
        above=table["score"] >= np.float32(threshold),
        reasons=np.array([REASONS.index(name) for name in table.reasons])[table[FILTER]],
    )


def _summary(content: dict[str, Any], judged: JudgedPicks, threshold: float, out: Path) -> PruneSummary:
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
