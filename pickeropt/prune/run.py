"""Prune files of picks: score every pick in its micrograph, write the files less the wrong rows."""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import pickeropt
from pickeropt.errors import MicrographError, PickeroptError
from pickeropt.io.micrographs import read_micrograph
from pickeropt.prune.config import MicrographScorer, PruneConfig, PruneSummary
from pickeropt.prune.outputs import write_picks, write_scores, write_summary
from pickeropt.prune.plan import Plan, Task, make_plan
from pickeropt.prune.progress import Workspace, cannot_write, open_workspace, record_key
from pickeropt.records import FloatArray, Micrograph, Scores

OnProgress = Callable[[int, int], None]
WORST = 5
ROUNDING = 1e-3
"""How far the probabilities of a pick may sum from 1."""


def prune(
    inputs: Sequence[Path],
    config: PruneConfig,
    scorer: MicrographScorer,
    *,
    on_progress: OnProgress | None = None,
) -> PruneSummary:
    """Score the picks of files, lists or folders; make `config.out`.

    A pick is kept where P(particle) >= `config.threshold`. A run that was killed, or met a
    micrograph it could not use, goes on from `OUT.partial` when the same command is given;
    the threshold may differ. With `overwrite` everything may: what was finished still counts
    where micrograph, picks and model are the same. Inputs are only read, and their order
    changes nothing.

    on_progress : called with the number of picks done and of all picks
    Raises PickeroptError as `make_plan` does before any compute; later MicrographError
    for pixels that are constant or not finite, OutputError where nothing can be written.
    """
    begun = time.perf_counter()
    plan = make_plan(inputs, config, scorer)
    with open_workspace(config.out, _settings(plan, config, scorer), config.overwrite) as workspace:
        scores, resumed = _score(plan, scorer, workspace, on_progress or (lambda done, of: None))
        keep = scores.particle >= np.float32(config.threshold)
        try:
            shutil.rmtree(workspace.staging, ignore_errors=True)
            write_picks(workspace.staging, plan, keep, config.out)
            write_scores(workspace.staging / "scores.csv", plan, scores, keep)
            summary = _summary(plan, config, scorer, (scores, keep, resumed, time.perf_counter() - begun))
            write_summary(workspace.staging, summary, config, inputs)
        except OSError as error:
            raise cannot_write(config.out, error) from error
        workspace.publish()
    return summary


def _settings(plan: Plan, config: PruneConfig, scorer: MicrographScorer) -> dict[str, str]:
    """What the scores depend on, by name: two runs that agree here may share their work."""
    files = {source.name: source.file.content for source in plan.sources}
    files |= {listed.name: listed.coordinates.content for listed in plan.lists}
    return {
        "the version": pickeropt.__version__,
        "the model": scorer.digest,
        "the classes": ", ".join(scorer.class_names),
        "--diameter": repr(float(scorer.diameter_angstrom)),
        "--pixel-size": "of the files" if config.pixel_size is None else repr(float(config.pixel_size)),
        **{name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }


def _score(
    plan: Plan, scorer: MicrographScorer, workspace: Workspace, on_progress: OnProgress
) -> tuple[Scores, int]:
    """The scores of all picks, and how many micrographs an earlier run had finished."""
    probabilities = np.full((len(plan.coordinates), len(scorer.class_names)), np.nan, dtype=np.float32)
    keys = {task.path: _key(task, plan, scorer) for task in plan.tasks}
    todo = []
    for task in plan.tasks:
        known = workspace.load(keys[task.path], (len(task.rows), probabilities.shape[1]))
        if known is None:
            todo.append(task)
        else:
            probabilities[task.rows] = known
    done = len(plan.coordinates) - sum(len(task.rows) for task in todo)
    finished = resumed = len(plan.tasks) - len(todo)
    on_progress(done, len(plan.coordinates))
    try:
        for task, micrograph in _read_ahead(todo):
            found = _score_micrograph(task, micrograph, plan.coordinates[task.rows], scorer)
            workspace.save(keys[task.path], found)
            probabilities[task.rows] = found
            del micrograph  # before the next but one is read
            finished += 1
            done += len(task.rows)
            on_progress(done, len(plan.coordinates))
    except PickeroptError as error:
        if not finished:
            raise
        kept = f"{finished} of {len(plan.tasks)} micrographs are finished and stay in {workspace.folder}"
        raise type(error)(f"{error}; {kept}: the same command goes on from there") from error
    return Scores(tuple(scorer.class_names), probabilities), resumed


def _key(task: Task, plan: Plan, scorer: MicrographScorer) -> str:
    model = (scorer.digest, tuple(scorer.class_names), float(scorer.diameter_angstrom))
    where = (str(task.path), task.stamp, float(task.pixel_size))
    return record_key(pickeropt.__version__, model, where, plan.coordinates[task.rows].tobytes())


def _read_ahead(tasks: Sequence[Task]) -> Iterator[tuple[Task, Micrograph]]:
    """Each micrograph, while the one after it is read in the background: two in memory."""
    if not tasks:
        return
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(_read, tasks[0])
        for i, task in enumerate(tasks):
            current = ahead.result()
            if i + 1 < len(tasks):
                ahead = pool.submit(_read, tasks[i + 1])
            yield task, current
            del current


def _read(task: Task) -> Micrograph:
    try:
        micrograph = read_micrograph(task.path)
    except (OSError, ValueError) as error:
        raise MicrographError(f"{task.path}: cannot be read ({error}); copy or write it again") from error
    if micrograph.pixels.shape != task.shape:
        raise MicrographError(f"{task.path}: was changed while this run worked; start again")
    return micrograph


def _score_micrograph(
    task: Task, micrograph: Micrograph, coordinates: NDArray[np.float64], scorer: MicrographScorer
) -> FloatArray:
    """(m, k) probabilities. Raises MicrographError where they are none."""
    found = np.asarray(scorer.score(micrograph, coordinates, task.pixel_size), dtype=np.float32)
    shape = (len(coordinates), len(scorer.class_names))
    if found.shape != shape:
        raise ValueError(f"the scorer gave {found.shape} for {shape} of {task.name}")
    wrong = ~((found >= 0).all(axis=1) & (np.abs(found.sum(axis=1) - 1) < ROUNDING))
    if wrong.any():
        x, y = coordinates[wrong.argmax()].tolist()
        what = f"{int(wrong.sum())} of {len(found)} scores are no probabilities, first at x {x:g}, y {y:g}"
        raise MicrographError(f"{task.name}: {what}; look at its pixels, or exclude it")
    return found


def _summary(
    plan: Plan,
    config: PruneConfig,
    scorer: MicrographScorer,
    result: tuple[Scores, NDArray[np.bool_], int, float],
) -> PruneSummary:
    scores, keep, resumed, seconds = result
    if np.isnan(scores.probabilities).any():
        raise ValueError("a pick has no score")
    best = scores.probabilities.argmax(axis=1)
    lost = np.bincount(plan.micrograph[~keep], minlength=len(plan.tasks))
    order = sorted(range(len(plan.tasks)), key=lambda i: (-int(lost[i]), plan.tasks[i].name))[:WORST]
    kept = int(keep.sum())
    nothing = "every pick is rejected; is the model of this particle, and is the threshold right?"
    return PruneSummary(
        picks=len(keep),
        kept=kept,
        rejected=len(keep) - kept,
        by_class=_by_class(scores.class_names, best),
        rejected_by_class=_by_class(scores.class_names, best[~keep]),
        micrographs=len(plan.tasks),
        worst=tuple((plan.tasks[i].name, len(plan.tasks[i].rows), int(lost[i])) for i in order if lost[i]),
        threshold=config.threshold,
        diameter_angstrom=float(scorer.diameter_angstrom),
        pixel_sizes=tuple(sorted({float(task.pixel_size) for task in plan.tasks})),
        seconds=seconds,
        model_digest=scorer.digest,
        out=config.out,
        warnings=(*scorer.notes, *plan.warnings, *(() if kept else (nothing,))),
        resumed=resumed,
    )


def _by_class(names: Sequence[str], best: NDArray[np.int64]) -> dict[str, int]:
    counts = np.bincount(best, minlength=len(names)).tolist()
    return dict(zip(names, counts, strict=True))
