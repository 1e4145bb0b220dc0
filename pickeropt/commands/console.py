"""Tables and progress for a person to read. Only this file and `cli` know rich and typer.

Tables go to standard output, progress to standard error: a bar on a terminal, a plain line
every ten seconds in the log of a batch job. File names are printed as they are, never
wrapped and never read as markup.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from pickeropt.records import PARTICLE

if TYPE_CHECKING:
    from pickeropt.demonstration import DemoReport
    from pickeropt.evaluate.evaluation import Evaluation, PickQuality, Ranking
    from pickeropt.finetune.finetune_config import FinetuneReport
    from pickeropt.prune.prune_config import PruneSummary


LOG_SECONDS = 10.0
"""How often a run that is not on a terminal says how far it is."""

LOG_WIDTH = 120
"""Columns of a table that is not on a terminal."""

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


class Pace:
    """How far a run is, as a line: count, share, rate and the time left.

    unit : of what is counted, for the rate; without one there is no rate in the line

    The rate counts from the first call on, and anew for each thing that is done, so what
    was taken over from an earlier run does not make this one look faster than it is.
    """

    def __init__(self, unit: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._unit, self._clock = unit, clock
        self._first: tuple[str, int, float] | None = None

    def line(self, what: str, done: int, total: int) -> str:
        now = self._clock()
        if self._first is None or self._first[0] != what:
            self._first = (what, done, now)
        _, first, begun = self._first
        parts = [f"{done:,} of {total:,}{' ' * bool(self._unit)}{self._unit} ({100 * done // max(total, 1)} %)"]
        if done > first:
            rate = (done - first) / max(now - begun, 1e-9)
            parts += [f"{rate:,.0f} {self._unit}/s"] if self._unit else []
            parts += [f"{duration((total - done) / rate)} left"]
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """``8 s``, ``3 min 05 s``, ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@contextmanager
def progress(unit: str = "", clock: Callable[[], float] = time.monotonic) -> Iterator[OnProgress]:
    """A function to call as often as one likes: a bar on a terminal, a line now and then in a log."""
    console = _console(stderr=True)
    pace = Pace(unit, clock)
    if not console.is_terminal:
        yield _logging(console, pace, clock)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[line]}"))
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task("", total=None, line="")
        yield lambda what, done, total: bars.update(
            bar, description=what, completed=done, total=total, line=pace.line(what, done, total)
        )


def _logging(console: Console, pace: Pace, clock: Callable[[], float]) -> OnProgress:
    last = clock()

    def on_progress(what: str, done: int, total: int) -> None:
        nonlocal last
        line = pace.line(what, done, total)
        if clock() - last >= LOG_SECONDS:
            last = clock()
            console.print(f"{what}: {line}", soft_wrap=True)

    return on_progress


def stage(text: str) -> None:
    """Say on standard error what a longer command is at."""
    _console(stderr=True).print(text, soft_wrap=True)


def show_finetune(report: "FinetuneReport", next_command: str) -> None:
    """Shots a class, validation figures with the shots they rest on, and what to run next."""
    rows = [
        [
            name,
            str(report.train_shots.get(name, 0)),
            str(report.validation_shots.get(name, 0)),
            _figure(report.per_class_f1.get(name)),
        ]
        for name in report.class_names
    ]
    _table("class", ["train shots", "validation shots", "validation F1"], rows)
    _lines([validation_line(report)])
    _lines([f"{report.passes}; trained in {duration(report.seconds)}"])
    _warnings(report.warnings)
    _lines([f"model: {report.checkpoint}", f"next:  {next_command}"])


def validation_line(report: "FinetuneReport") -> str:
    """Accuracy and macro-F1, and on how many held-out shots they rest."""
    if report.accuracy is None or report.macro_f1 is None:
        return "accuracy unknown: no shots were held out to measure it"
    held_out = {
        "micrograph": "held out by micrograph",
        "shot": "on micrographs that also gave training shots, so rather too good",
    }[report.validation_by]
    shots = sum(report.validation_shots.values())
    line = f"accuracy {report.accuracy:.2f}, macro-F1 {report.macro_f1:.2f} on {shots} shots {held_out}"
    return line if report.validation_splits < 2 else f"{line}; mean of {report.validation_splits} splits"


def show_prune(summary: "PruneSummary") -> None:
    """How many picks were kept, how many of each class were not, and where most were lost."""
    share = _share(summary.picks)
    rejected = sorted(summary.rejected_by_class.items(), key=lambda item: -item[1])
    rows = [
        ["kept", f"{summary.kept:,}", share(summary.kept)],
        ["rejected", f"{summary.rejected:,}", share(summary.rejected)],
        *([f"  {_as(name)}", f"{count:,}", share(count)] for name, count in rejected if count),
        *([f"  by --{name}", f"{count:,}", share(count)] for name, count in summary.filtered.items()),
    ]
    _table(f"threshold {summary.threshold:g}", ["picks", "share"], rows)
    lost = [[name, f"{picks:,}", f"{gone:,}", _share(picks)(gone)] for name, picks, gone in summary.worst if gone]
    if lost:
        _table("lost most", ["picks", "rejected", "share"], lost)
    picks, micrographs = _many(summary.picks, "pick"), _many(summary.micrographs, "micrograph")
    earlier = f"; an earlier run had done {_many(summary.resumed, 'micrograph')}" if summary.resumed else ""
    _lines([f"{picks} of {micrographs} in {duration(summary.seconds)}{earlier}", *summary.notes])
    _warnings(summary.warnings)
    report = ", report.html" * (summary.out / "report.html").is_file()
    _lines([f"written: {summary.out}/ (kept, rejected, scores.csv, summary.json{report})"])


def show_evaluation(evaluation: "Evaluation", written: Sequence[Path]) -> None:
    """Before and after pruning, and the classifier's ranking beside the picker's."""
    _table(
        f"within {evaluation.radius_px:g} px",
        ["picks", "true", "precision", "recall", "F1"],
        [
            ["before pruning", *_quality(evaluation.before)],
            ["after pruning", *_quality(evaluation.after)],
        ],
    )
    rankings = [["classifier's score", *_ranking(evaluation.ranking)]]
    if evaluation.picker_ranking is not None:
        rankings.append(["picker's own score", *_ranking(evaluation.picker_ranking)])
    _table("all picks ranked by", ["average precision", "best F1", "false removed, 95 % of true kept"], rankings)
    equal = evaluation.at_equal_recall
    if equal is not None:
        _lines(
            [
                f"at recall {equal.recall:.3f}: precision {equal.precision:.3f} after pruning,"
                f" {equal.picker_precision:.3f} by the picker's own score"
            ]
        )
    if len(evaluation.by_file) > 1:
        rows = [[part.name, *_change(part.before, part.after)] for part in evaluation.by_file]
        _table("file", ["precision", "recall", "F1"], rows)
    _lines([f"{_many(evaluation.truths, 'particle')} on {_many(evaluation.micrographs, 'micrograph')}"])
    _warnings(evaluation.warnings)
    _lines([f"written: {path}" for path in written])


def show_demo(report: "DemoReport") -> None:
    """What the demonstration learnt, kept and rejected, and how good that is against the truth."""
    _lines([validation_line(report.finetune)])
    show_prune(report.prune)
    show_evaluation(report.evaluation, report.written)
    _lines([f"all in {duration(report.seconds)}"])


def _quality(quality: "PickQuality") -> list[str]:
    figures = (quality.precision, quality.recall, quality.f1)
    return [f"{quality.picks:,}", f"{quality.true_picks:,}", *(f"{figure:.3f}" for figure in figures)]


def _change(before: "PickQuality", after: "PickQuality") -> list[str]:
    return [f"{getattr(before, n):.3f} → {getattr(after, n):.3f}" for n in ("precision", "recall", "f1")]


def _ranking(ranking: "Ranking") -> list[str]:
    removed = "-" if ranking.false_removed is None else f"{100 * ranking.false_removed:.1f} %"
    return [f"{ranking.average_precision:.3f}", f"{ranking.best_f1:.3f}", removed]


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _as(name: str) -> str:
    return f"as {name}, but not sure" if name == PARTICLE else f"as {name}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _share(total: int) -> Callable[[int], str]:
    return lambda count: f"{100 * count / total:.1f} %" if total else "-"


def _table(first: str, others: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """One table; the first column is names, the others are numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def _lines(lines: Sequence[str]) -> None:
    for line in lines:
        _console().print(line, soft_wrap=True)


def _warnings(warnings: Sequence[str]) -> None:
    _lines([f"warning: {warning}" for warning in warnings])


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console
