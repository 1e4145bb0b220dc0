"""benchmark.md: the paper's tables as they came out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pickeropt.benchmark.benchmark_config import BenchmarkConfig
from pickeropt.benchmark.results import Record
from pickeropt.evaluate.benchmark.data_set import BenchmarkSet
from pickeropt.evaluate.benchmark.rows import (
    STARTS,
    Row,
    losses,
    main_start,
    table_2,
    table_3,
    table_4,
    text_of,
)
from pickeropt.evaluate.benchmark.starts import Start
from pickeropt.evaluate.benchmark.statistics import ByDraw, Results, Summary, differences, summary

CAPTION = (
    "mean ± standard deviation over draws [95 % confidence interval of the mean, Student's t over draws]; "
    "the data sets are taken as they are"
)


@dataclass(frozen=True)
class Told:
    """What the tables are about, beside the figures."""

    config: BenchmarkConfig
    sets: Sequence[BenchmarkSet]
    starts: Mapping[tuple[str, str], Start]
    notes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.sets]


def macro_f1(record: Record) -> float:
    return record.macro_f1


def accuracy(record: Record) -> float:
    return record.accuracy


def pruning_f1(record: Record) -> float:
    return record.pruning_f1


def markdown(results: Results, told: Told) -> str:
    """The whole file, of the tables asked for."""
    makers: dict[int, Callable[[Results, Told], list[str]]] = {2: _table_2, 3: _table_3, 4: _table_4}
    lines = ["# Benchmark", "", *_about(told)]
    for table in sorted(set(told.config.tables)):
        lines += ["", *makers[table](results, told)]
    return "\n".join([*lines, ""])


def _about(told: Told) -> list[str]:
    config = told.config
    lines = [
        f'Seed {config.seed}. Figures: {CAPTION}; "n" where draws are not {config.draws}. Every method has '
        "the same shots and queries in a draw. benchmark.csv has the draws.",
        "",
        "| data set | boxes of each class | shots and queries share no | backbone |",
        "|---|---|---|---|",
    ]
    for one in told.sets:
        counts = [f"{name} {(one.labels == i).sum()}" for i, name in enumerate(one.class_names)]
        start = told.starts.get((one.name, main_start(config)))
        lines.append(f"| {one.name} | {', '.join(counts)} | {one.split} | {start.title if start else '-'} |")
    left = f"Left out of all data sets: {', '.join(config.ignore)}" if config.ignore else ""
    notes = [_backbone_note(config), left, *told.notes]
    return [*lines, "", *(f"- {note}." for note in notes if note)]


def _backbone_note(config: BenchmarkConfig) -> str:
    if config.backbones is not None:
        return "Leave-one-out: each data set has its own backbone, pretrained without it"
    if main_start(config) in ("none", "imagenet"):
        return ""
    return "One backbone for all data sets, not leave-one-out: it may have seen what it is asked about"


def _table_2(results: Results, told: Told) -> list[str]:
    config, method = told.config, table_2(told.config)
    shots = sorted(set(config.shots))
    head = [f"{k} shots: {what}" for k in shots for what in ("macro-F1", "accuracy", "particle or not")]
    lines = [
        f"## Table 2: each data set, recipe {config.recipe}, {STARTS[method.start]}, "
        f"{losses(method.loss_weights)}",
        "",
        '"particle or not": macro-F1 of two classes, particles and all else.',
        "",
        *_head("data set", head),
    ]
    for label, names in _groups(told.names):
        cells = [
            _cell(results.values(names, method, k, figure), config)
            for k in shots
            for figure in (macro_f1, accuracy, pruning_f1)
        ]
        lines.append(_line(label, cells))
    return lines


def _table_3(results: Results, told: Told) -> list[str]:
    config, shots = told.config, sorted(set(told.config.shots))
    lines = ["## Table 3: pretraining and multi-loss, macro-F1"]
    for label, names in _groups(told.names):
        lines += ["", *_head(label, [f"{k} shots" for k in shots])]
        for row in table_3(config):
            values = [results.values(names, row.method, k, macro_f1) for k in shots]
            lines.append(_line(row.title, [_cell(v, config) for v in values]))
    return lines


def _table_4(results: Results, told: Told) -> list[str]:
    config, shots, rows = told.config, max(told.config.shots), table_4(told.config)
    groups = _groups(told.names)
    own = text_of(config.loss_weights)
    head = [*(label for label, _ in groups), f"{groups[0][0]}, less that of {own}, paired"]
    columns = {label: _column(results, rows, names, shots) for label, names in groups}
    overall = columns[groups[0][0]]
    lines = [
        f"## Table 4: loss weights at {shots} shots, macro-F1, recipe {config.recipe}, "
        f"{STARTS[main_start(config)]}",
        "",
        "Bold: the best of as many losses.",
        "",
        *_head("weights", head),
    ]
    for row in rows:
        cells = [
            _bold(_cell(columns[label][row.key], config), _is_best(row, rows, columns[label]))
            for label, _ in groups
        ]
        paired = differences(overall[row.key], overall[own]) if row.key != own else []
        lines.append(_line(row.title, [*cells, _difference(paired)]))
    return lines


def _column(results: Results, rows: Sequence[Row], names: list[str], shots: int) -> dict[str, ByDraw]:
    return {row.key: results.values(names, row.method, shots, macro_f1) for row in rows}


def _is_best(row: Row, rows: Sequence[Row], column: Mapping[str, ByDraw]) -> bool:
    """Of the rows with as many losses, of which there must be two."""
    like = [r for r in rows if len(r.method.loss_weights) == len(row.method.loss_weights) and column[r.key]]
    if len(like) < 2 or row not in like:
        return False
    return row == max(like, key=lambda r: summary(list(column[r.key].values())).mean)


def _groups(names: list[str]) -> list[tuple[str, list[str]]]:
    """All data sets together where there are several, then each."""
    each = [(name, [name]) for name in names]
    return [(f"mean of {len(names)} data sets", names), *each] if len(names) > 1 else each


def _head(first: str, others: Sequence[str]) -> list[str]:
    return [_line(first, others), "|---|" + "---|" * len(others)]


def _line(first: str, cells: Sequence[str]) -> str:
    return f"| {first} | {' | '.join(cells)} |"


def _cell(values: ByDraw, config: BenchmarkConfig) -> str:
    if not values:
        return "-"
    found = summary(list(values.values()))
    count = f" (n {found.count})" * (found.count != config.draws)
    if found.spread is None:
        return f"{found.mean:.3f}{count}"
    return f"{found.mean:.3f} ± {found.spread:.3f} {_interval(found, '.3f')}{count}"


def _difference(values: list[float]) -> str:
    if not values:
        return "-"
    found = summary(values)
    return f"{found.mean:+.4f}" if found.spread is None else f"{found.mean:+.4f} {_interval(found, '+.4f')}"


def _interval(found: Summary, form: str) -> str:
    return f"[{found.low:{form}}, {found.high:{form}}]"


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text
