"""The benchmark: every classifier that the tables need, fitted once, and the files written from them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from pickeropt.benchmark.benchmark_config import BenchmarkConfig, BenchmarkReport, check_config
from pickeropt.benchmark.benchmark_sets import BenchmarkSet, read_sets
from pickeropt.benchmark.fits import DrawFitter, Method, Start, draw, draw_seed, find_starts, leave_out_notes, needed
from pickeropt.benchmark.results import (
    DrawRecord,
    DrawResults,
    Key,
    TableContext,
    key_of,
    markdown,
    read_records,
    write_records,
)
from pickeropt.errors import OutputError
from pickeropt.evaluate.metrics import classification
from pickeropt.files import write_bytes_atomically
from pickeropt.models.fitting import choose_device
from pickeropt.records import OnProgress, Scores

CSV, TEXT = "benchmark.csv", "benchmark.md"
SAVE_SECONDS = 5.0
"""How often the finished draws are saved."""
FEW_QUERIES = 10
"""Below so many of a class in a draw the tables say so."""


@dataclass(frozen=True)
class FitTask:
    """One classifier to fit."""

    data: BenchmarkSet
    method: Method
    shots: int
    draw: int

    @property
    def key(self) -> Key:
        return key_of(self.data.name, self.method, self.shots, self.draw)


@dataclass
class _DrawLog:
    """The finished draws by key, saved to benchmark.csv every few seconds."""

    path: Path
    done: dict[Key, DrawRecord]
    saved: float = field(default_factory=time.monotonic)

    def add(self, record: DrawRecord) -> None:
        self.done[record.key] = record
        if time.monotonic() - self.saved >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        write_records(self.path, self.done.values())
        self.saved = time.monotonic()


def benchmark(
    data: Sequence[Path],
    config: BenchmarkConfig,
    out: Path,
    micrographs: Sequence[Path] = (),
    on_progress: OnProgress | None = None,
) -> BenchmarkReport:
    """Measure fine-tuning on data sets and write benchmark.md, benchmark.csv and a PNG a table into `out`.

    data : see `sets`; micrographs : folders to look for the micrographs of STAR files in

    Draws that `out` has already are not computed again, so a run that was stopped goes on, and rows,
    shots, draws and data sets can be added; the tables show what this call asked for.
    Raises PickeroptError for all that the user can mend before anything is computed, OutputError where
    `out` has draws of other boxes, weights or another seed.
    """
    begun = time.perf_counter()
    check_config(config)
    pairs = needed(config)
    choose_device(config.device)
    sets = read_sets(data, config, micrographs)
    starts = find_starts([one.name for one in sets], [method for method, _ in pairs], config)
    log = _DrawLog(out / CSV, {record.key: record for record in read_records(out / CSV)})
    tasks = [FitTask(one, *pair, number) for one in sets for number in range(config.draws) for pair in pairs]
    _check_earlier(log, sets, starts, config)
    todo = [task for task in tasks if task.key not in log.done]
    _fit_all(todo, starts, log, config, on_progress or (lambda what, done, of: None))
    context = TableContext(config, sets, starts, (*_notes(sets, log, tasks), *leave_out_notes(starts, config)))
    text, written = _write(out, log, context)
    return BenchmarkReport(
        data_sets=tuple(context.names),
        fits=len(tasks),
        earlier=len(tasks) - len(todo),
        text=text,
        written=written,
        warnings=context.notes,
        seconds=time.perf_counter() - begun,
    )


def _check_earlier(
    log: _DrawLog,
    sets: Sequence[BenchmarkSet],
    starts: Mapping[tuple[str, str], Start],
    config: BenchmarkConfig,
) -> None:
    """Raises OutputError where the earlier draws cannot stand beside the new ones, or be written down."""
    digests = {one.name: one.digest for one in sets}
    splits = {one.name: one.split for one in sets}
    for record in log.done.values():
        start = starts.get((record.data_set, record.method.start))
        what = ""
        if record.seed != config.seed:
            what = f"draws of --seed {record.seed}, not {config.seed}"
        elif record.split != splits.get(record.data_set, record.split):
            what = f"draws of {record.data_set} with --split {record.split}"
        elif record.boxes != digests.get(record.data_set, record.boxes):
            what = (
                f"draws of other boxes of {record.data_set} (other labels, or another --per-class, "
                "--diameter or --pixel-size)"
            )
        elif start is not None and record.weights != start.digest:
            what = f"draws of {record.data_set} with other weights than {start.title}"
        if what:
            raise OutputError(f"{log.path}: has {what}; give the settings it was begun with, or another --out")
    log.save()


def _fit_all(
    tasks: Sequence[FitTask],
    starts: Mapping[tuple[str, str], Start],
    log: _DrawLog,
    config: BenchmarkConfig,
    on_progress: OnProgress,
) -> None:
    """The paper's recipe last, which takes a hundred times as long; one data set in memory at a time."""
    device = choose_device(config.device)
    try:
        for paper in (False, True):
            mine = [task for task in tasks if (task.method.recipe == "paper") == paper]
            say = partial(on_progress, f"fitting, recipe {'paper' if paper else 'default'}")
            for done, record in enumerate(_fits(mine, starts, device, config, on_progress), start=1):
                log.add(record)
                say(done, len(mine))
    finally:
        log.save()


def _fits(
    tasks: Sequence[FitTask],
    starts: Mapping[tuple[str, str], Start],
    device: torch.device,
    config: BenchmarkConfig,
    on_progress: OnProgress,
) -> Iterator[DrawRecord]:
    for name, mine in groupby(tasks, key=lambda task: task.data.name):
        own = {kind: start for (of, kind), start in starts.items() if of == name}
        fitter: DrawFitter | None = None
        for task in mine:
            fitter = fitter or DrawFitter(task.data, own, device, on_progress)
            yield _fit(task, fitter, own[task.method.start], config.seed)


def _fit(task: FitTask, fitter: DrawFitter, start: Start, seed: int) -> DrawRecord:
    data = task.data
    chosen = draw(data.labels, data.groups, task.shots, draw_seed(seed, data.name, task.draw))
    probabilities = fitter.probabilities_of(task.method, chosen).astype(np.float32)
    found = classification(data.labels[chosen.queries], Scores(data.class_names, probabilities))
    learnt = np.bincount(data.labels[chosen.shots], minlength=len(data.class_names))
    return DrawRecord(
        data_set=data.name,
        method=task.method,
        shots=task.shots,
        draw=task.draw,
        seed=seed,
        macro_f1=found.macro_f1,
        accuracy=found.accuracy,
        particle_auc=found.particle_auc,
        split=data.split,
        learnt=tuple(learnt.tolist()),
        class_names=data.class_names,
        confusion=found.confusion,
        boxes=data.digest,
        weights=start.digest,
    )


def _notes(sets: Sequence[BenchmarkSet], log: _DrawLog, tasks: Sequence[FitTask]) -> tuple[str, ...]:
    """What a reader must know: of each data set, and where shots or queries were lacking."""
    notes = [note for one in sets for note in one.notes]
    for one in sets:
        mine = [log.done[task.key] for task in tasks if task.data is one]
        notes += [f"{one.name}: {note}" for i in range(len(one.class_names)) for note in _lacking(one, mine, i)]
    return tuple(notes)


def _lacking(data: BenchmarkSet, records: Sequence[DrawRecord], label: int) -> Iterator[str]:
    """Of one class: too few shots, no queries, few queries."""
    name = data.class_names[label]
    short = [record for record in records if record.learnt[label] < record.shots]
    if short:
        least = min(record.learnt[label] for record in short)
        asked = ", ".join(map(str, sorted({record.shots for record in short})))
        yield f"{name} had only {least} shots in a draw where {asked} were requested"
    queries = [sum(record.confusion[label]) for record in records]
    if 0 in queries:
        yield f"{name} is not asked about in {queries.count(0)} of {len(queries)} fits"
    elif np.mean(queries) < FEW_QUERIES:
        yield f"{name} rests on {np.mean(queries):.0f} queries a draw, so its share of macro-F1 is uncertain"


def _write(out: Path, log: _DrawLog, context: TableContext) -> tuple[str, tuple[Path, ...]]:
    from pickeropt.benchmark.results import pictures

    results = DrawResults(log.done.values())
    text = markdown(results, context)
    drawn = pictures(results, context.names, context.config)
    write_bytes_atomically(out / TEXT, text.encode())
    for name, content in drawn.items():
        write_bytes_atomically(out / name, content)
    return text, (out / TEXT, out / CSV, *(out / name for name in drawn))
