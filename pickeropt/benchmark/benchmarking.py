"""Fit every classifier that the tables need, once, and write the tables: `pickeropt benchmark`."""

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
from pickeropt.benchmark.fits import (
    Bench,
    Method,
    OnProgress,
    Start,
    draw,
    draw_seed,
    find_starts,
    leave_out_notes,
    needed,
)
from pickeropt.benchmark.results import Key, Record, Results, key_of, read_records, write_records
from pickeropt.benchmark.tables import Told, markdown
from pickeropt.errors import OutputError
from pickeropt.evaluate.classification import classification
from pickeropt.files import write_bytes_atomically
from pickeropt.models.fitting import choose_device
from pickeropt.records import Scores

CSV, TEXT = "benchmark.csv", "benchmark.md"
SAVE_SECONDS = 5.0
"""How often what is done is written down."""
FEW_QUERIES = 10
"""Below so many of a class in a draw the tables say so."""


@dataclass(frozen=True)
class Job:
    """One classifier to fit."""

    data: BenchmarkSet
    method: Method
    shots: int
    draw: int

    @property
    def key(self) -> Key:
        return key_of(self.data.name, self.method, self.shots, self.draw)


@dataclass
class _Book:
    """What is done, by key; written down now and then."""

    path: Path
    done: dict[Key, Record]
    saved: float = field(default_factory=time.monotonic)

    def add(self, record: Record) -> None:
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
    book = _Book(out / CSV, {record.key: record for record in read_records(out / CSV)})
    jobs = [Job(one, *pair, number) for one in sets for number in range(config.draws) for pair in pairs]
    _check_earlier(book, sets, starts, config)
    todo = [job for job in jobs if job.key not in book.done]
    _fit_all(todo, starts, book, config, on_progress or (lambda what, done, of: None))
    told = Told(config, sets, starts, (*_notes(sets, book, jobs), *leave_out_notes(starts, config)))
    text, written = _write(out, book, told)
    return BenchmarkReport(
        data_sets=tuple(told.names),
        fits=len(jobs),
        earlier=len(jobs) - len(todo),
        text=text,
        written=written,
        warnings=told.notes,
        seconds=time.perf_counter() - begun,
    )


def _check_earlier(
    book: _Book,
    sets: Sequence[BenchmarkSet],
    starts: Mapping[tuple[str, str], Start],
    config: BenchmarkConfig,
) -> None:
    """Raises OutputError where the earlier draws cannot stand beside the new ones, or be written down."""
    digests = {one.name: one.digest for one in sets}
    splits = {one.name: one.split for one in sets}
    for record in book.done.values():
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
            raise OutputError(f"{book.path}: has {what}; give the settings it was begun with, or another --out")
    book.save()


def _fit_all(
    jobs: Sequence[Job],
    starts: Mapping[tuple[str, str], Start],
    book: _Book,
    config: BenchmarkConfig,
    on_progress: OnProgress,
) -> None:
    """The paper's recipe last, which takes a hundred times as long; one data set in memory at a time."""
    device = choose_device(config.device)
    try:
        for paper in (False, True):
            mine = [job for job in jobs if (job.method.recipe == "paper") == paper]
            say = partial(on_progress, f"fitting, recipe {'paper' if paper else 'default'}")
            for done, record in enumerate(_fits(mine, starts, device, config, on_progress), start=1):
                book.add(record)
                say(done, len(mine))
    finally:
        book.save()


def _fits(
    jobs: Sequence[Job],
    starts: Mapping[tuple[str, str], Start],
    device: torch.device,
    config: BenchmarkConfig,
    on_progress: OnProgress,
) -> Iterator[Record]:
    for name, mine in groupby(jobs, key=lambda job: job.data.name):
        own = {kind: start for (of, kind), start in starts.items() if of == name}
        bench: Bench | None = None
        for job in mine:
            bench = bench or Bench(job.data, own, device, on_progress)
            yield _fit(job, bench, own[job.method.start], config.seed)


def _fit(job: Job, bench: Bench, start: Start, seed: int) -> Record:
    data = job.data
    chosen = draw(data.labels, data.groups, job.shots, draw_seed(seed, data.name, job.draw))
    probabilities = bench.answer(job.method, chosen).astype(np.float32)
    found = classification(data.labels[chosen.queries], Scores(data.class_names, probabilities))
    learnt = np.bincount(data.labels[chosen.shots], minlength=len(data.class_names))
    return Record(
        data_set=data.name,
        method=job.method,
        shots=job.shots,
        draw=job.draw,
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


def _notes(sets: Sequence[BenchmarkSet], book: _Book, jobs: Sequence[Job]) -> tuple[str, ...]:
    """What a reader must know: of each data set, and where shots or queries were lacking."""
    notes = [note for one in sets for note in one.notes]
    for one in sets:
        mine = [book.done[job.key] for job in jobs if job.data is one]
        notes += [f"{one.name}: {note}" for i in range(len(one.class_names)) for note in _lacking(one, mine, i)]
    return tuple(notes)


def _lacking(data: BenchmarkSet, records: Sequence[Record], label: int) -> Iterator[str]:
    """Of one class: too few shots, no queries, few queries."""
    name = data.class_names[label]
    short = [record for record in records if record.learnt[label] < record.shots]
    if short:
        least = min(record.learnt[label] for record in short)
        asked = ", ".join(map(str, sorted({record.shots for record in short})))
        yield f"{name} had but {least} shots in a draw where {asked} are asked for"
    queries = [sum(record.confusion[label]) for record in records]
    if 0 in queries:
        yield f"{name} is not asked about in {queries.count(0)} of {len(queries)} fits"
    elif np.mean(queries) < FEW_QUERIES:
        yield f"{name} rests on {np.mean(queries):.0f} queries a draw, so its share of macro-F1 is uncertain"


def _write(out: Path, book: _Book, told: Told) -> tuple[str, tuple[Path, ...]]:
    from pickeropt.benchmark.tables import pictures

    results = Results(book.done.values())
    text = markdown(results, told)
    drawn = pictures(results, told.names, told.config)
    write_bytes_atomically(out / TEXT, text.encode())
    for name, content in drawn.items():
        write_bytes_atomically(out / name, content)
    return text, (out / TEXT, out / CSV, *(out / name for name in drawn))
