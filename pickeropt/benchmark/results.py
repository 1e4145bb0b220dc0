"""The results of a benchmark: single draws in benchmark.csv, their means with 95 % intervals, tables and figures."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.special import stdtrit

from pickeropt.benchmark.benchmark_config import BenchmarkConfig, LossWeights
from pickeropt.benchmark.benchmark_sets import BenchmarkSet
from pickeropt.benchmark.fits import STARTS, Method, Row, Start, losses, main_start, table_2, table_3, table_4, text_of
from pickeropt.errors import FormatError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.delimited import CsvTable, read_csv
from pickeropt.records import PARTICLE

Key = tuple[str, str, str, LossWeights, int, int]

COLUMNS = (
    "data_set", "start", "recipe", "loss_weights", "shots", "draw", "seed", "macro_f1", "accuracy",
    "particle_auc", "split", "learnt", "classes", "confusion", "boxes_sha256", "weights_sha256",
)  # fmt: skip


@dataclass(frozen=True)
class DrawRecord:
    """One classifier of one draw.

    shots : asked for; learnt : (k,) there were; draw : its number, from 0; seed : of the benchmark
    macro_f1 : over the classes that were asked about; particle_auc : None where it is not defined
    split : "micrograph" or "box", what shots and queries do not share
    confusion : (k, k) counts of queries, row = label, column = prediction
    boxes, weights : digests of the data set and of the backbone's first weights
    """

    data_set: str
    method: Method
    shots: int
    draw: int
    seed: int
    macro_f1: float
    accuracy: float
    particle_auc: float | None
    split: str
    learnt: tuple[int, ...]
    class_names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    boxes: str
    weights: str

    @property
    def pruning_f1(self) -> float:
        """Macro-F1 of two classes, particle and all else, less one without queries: what pruning asks."""
        counts = np.array(self.confusion)
        own = self.class_names.index(PARTICLE)
        right, found, there = counts[own, own], counts[:, own].sum(), counts[own].sum()
        total = counts.sum()
        sides = [(right, found, there), (total - found - there + right, total - found, total - there)]
        return float(np.mean([2 * hit / (named + real) for hit, named, real in sides if real]))

    @property
    def key(self) -> Key:
        """What tells it from all others, and puts it in order."""
        return key_of(self.data_set, self.method, self.shots, self.draw)


def key_of(data_set: str, method: Method, shots: int, draw: int) -> Key:
    return (data_set, method.recipe, method.start, method.loss_weights, shots, draw)


def write_records(path: Path, records: Iterable[DrawRecord]) -> None:
    """Write all rows in the order of their keys, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_cells(record) for record in sorted(records, key=lambda record: record.key))
    write_bytes_atomically(path, text.getvalue().encode())


def _cells(record: DrawRecord) -> list[str]:
    method = record.method
    return [
        record.data_set,
        method.start,
        method.recipe,
        _joined(method.loss_weights),
        str(record.shots),
        str(record.draw),
        str(record.seed),
        repr(record.macro_f1),
        repr(record.accuracy),
        "" if record.particle_auc is None else repr(record.particle_auc),
        record.split,
        _joined(record.learnt),
        _joined(record.class_names),
        "/".join(_joined(row) for row in record.confusion),
        record.boxes,
        record.weights,
    ]


def _joined(values: Sequence[object]) -> str:
    return " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def read_records(path: Path) -> list[DrawRecord]:
    """The rows of a benchmark.csv, none where there is no such file. Raises FormatError naming the line."""
    if not path.is_file():
        return []
    table = read_csv(path, COLUMNS)
    return [_record(table, row) for row in range(len(table))]


def _record(table: CsvTable, row: int) -> DrawRecord:
    cell = {name: table.columns[name][row] for name in COLUMNS}
    try:
        return DrawRecord(
            data_set=cell["data_set"],
            method=Method(cell["start"], cell["recipe"], tuple(map(float, cell["loss_weights"].split()))),
            shots=int(cell["shots"]),
            draw=int(cell["draw"]),
            seed=int(cell["seed"]),
            macro_f1=float(cell["macro_f1"]),
            accuracy=float(cell["accuracy"]),
            particle_auc=float(cell["particle_auc"]) if cell["particle_auc"] else None,
            split=cell["split"],
            learnt=tuple(map(int, cell["learnt"].split())),
            class_names=tuple(cell["classes"].split()),
            confusion=tuple(tuple(map(int, part.split())) for part in cell["confusion"].split("/")),
            boxes=cell["boxes_sha256"],
            weights=cell["weights_sha256"],
        )
    except ValueError as error:
        where = f"{table.path}, line {table.lines[row]}"
        raise FormatError(f"{where}: cannot be read ({error}); remove the line, or give another --out") from error


CONFIDENCE = 0.95

ByDraw = Mapping[int, float]
FigureOfDraw = Callable[[DrawRecord], float]


@dataclass(frozen=True)
class DrawSummary:
    """n values: mean, standard deviation (n - 1), and Student's confidence interval of the mean.

    spread, low, high : None for one value
    """

    count: int
    mean: float
    spread: float | None
    low: float | None
    high: float | None


def summary(values: Sequence[float]) -> DrawSummary:
    """Of n values, n at least 1."""
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return DrawSummary(count, mean, None, None, None)
    spread = float(np.std(values, ddof=1))
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * spread / math.sqrt(count)
    return DrawSummary(count, mean, spread, mean - half, mean + half)


class DrawResults:
    """All draws that there are, to be asked for by table."""

    def __init__(self, records: Iterable[DrawRecord]) -> None:
        self._records: dict[tuple[str, Method, int], dict[int, DrawRecord]] = {}
        for record in records:
            place = self._records.setdefault((record.data_set, record.method, record.shots), {})
            place[record.draw] = record

    def draws(self, data_set: str, method: Method, shots: int) -> Mapping[int, DrawRecord]:
        """By number of the draw."""
        return self._records.get((data_set, method, shots), {})

    def values(self, data_sets: Sequence[str], method: Method, shots: int, figure: FigureOfDraw) -> ByDraw:
        """By draw, the mean over the data sets; only draws that all of them have.

        The data sets are taken as they are: what varies from draw to draw is the choice of shots and
        queries, so an interval over draws says nothing of other data sets.
        """
        each = [self.draws(name, method, shots) for name in data_sets]
        common = sorted(set.intersection(*map(set, each))) if each else []
        return {number: float(np.mean([figure(one[number]) for one in each])) for number in common}


def differences(values: ByDraw, reference: ByDraw) -> list[float]:
    """Values less the reference of the same draw, which had the same shots and queries."""
    return [values[number] - reference[number] for number in sorted(set(values) & set(reference))]


CAPTION = (
    "mean ± standard deviation over draws [95 % confidence interval of the mean, Student's t over draws]; "
    "the data sets are taken as they are"
)


@dataclass(frozen=True)
class TableContext:
    """Settings, data sets, initial weights and notes that the tables state beside the results."""

    config: BenchmarkConfig
    sets: Sequence[BenchmarkSet]
    starts: Mapping[tuple[str, str], Start]
    notes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.sets]


def macro_f1(record: DrawRecord) -> float:
    return record.macro_f1


def accuracy(record: DrawRecord) -> float:
    return record.accuracy


def pruning_f1(record: DrawRecord) -> float:
    return record.pruning_f1


def markdown(results: DrawResults, context: TableContext) -> str:
    """The whole file, of the tables asked for."""
    makers: dict[int, Callable[[DrawResults, TableContext], list[str]]] = {2: _table_2, 3: _table_3, 4: _table_4}
    lines = ["# Benchmark", "", *_about(context)]
    for table in sorted(set(context.config.tables)):
        lines += ["", *makers[table](results, context)]
    return "\n".join([*lines, ""])


def _about(context: TableContext) -> list[str]:
    config = context.config
    lines = [
        f'Seed {config.seed}. Figures: {CAPTION}; "n" where draws are not {config.draws}. Every method has '
        "the same shots and queries in a draw. benchmark.csv has the draws.",
        "",
        "| data set | boxes of each class | shots and queries share no | backbone |",
        "|---|---|---|---|",
    ]
    for one in context.sets:
        counts = [f"{name} {(one.labels == i).sum()}" for i, name in enumerate(one.class_names)]
        start = context.starts.get((one.name, main_start(config)))
        lines.append(f"| {one.name} | {', '.join(counts)} | {one.split} | {start.title if start else '-'} |")
    left = f"Left out of all data sets: {', '.join(config.ignore)}" if config.ignore else ""
    notes = [_backbone_note(config), left, *context.notes]
    return [*lines, "", *(f"- {note}." for note in notes if note)]


def _backbone_note(config: BenchmarkConfig) -> str:
    if config.backbones is not None:
        return "Leave-one-out: each data set has its own backbone, pretrained without it"
    if main_start(config) in ("none", "imagenet"):
        return ""
    return "One backbone for all data sets, not leave-one-out: it may have seen what it is asked about"


def _table_2(results: DrawResults, context: TableContext) -> list[str]:
    config, method = context.config, table_2(context.config)
    shots = sorted(set(config.shots))
    head = [f"{k} shots: {what}" for k in shots for what in ("macro-F1", "accuracy", "particle or not")]
    lines = [
        f"## Table 2: each data set, recipe {config.recipe}, {STARTS[method.start]}, {losses(method.loss_weights)}",
        "",
        '"particle or not": macro-F1 of two classes, particles and all else.',
        "",
        *_head("data set", head),
    ]
    for label, names in _groups(context.names):
        cells = [
            _cell(results.values(names, method, k, figure), config)
            for k in shots
            for figure in (macro_f1, accuracy, pruning_f1)
        ]
        lines.append(_line(label, cells))
    return lines


def _table_3(results: DrawResults, context: TableContext) -> list[str]:
    config, shots = context.config, sorted(set(context.config.shots))
    lines = ["## Table 3: pretraining and multi-loss, macro-F1"]
    for label, names in _groups(context.names):
        lines += ["", *_head(label, [f"{k} shots" for k in shots])]
        for row in table_3(config):
            values = [results.values(names, row.method, k, macro_f1) for k in shots]
            lines.append(_line(row.title, [_cell(v, config) for v in values]))
    return lines


def _table_4(results: DrawResults, context: TableContext) -> list[str]:
    config, shots, rows = context.config, max(context.config.shots), table_4(context.config)
    groups = _groups(context.names)
    own = text_of(config.loss_weights)
    head = [*(label for label, _ in groups), f"{groups[0][0]}, less that of {own}, paired"]
    columns = {label: _column(results, rows, names, shots) for label, names in groups}
    overall = columns[groups[0][0]]
    lines = [
        f"## Table 4: loss weights at {shots} shots, macro-F1, recipe {config.recipe}, {STARTS[main_start(config)]}",
        "",
        "Bold: the best of as many losses.",
        "",
        *_head("weights", head),
    ]
    for row in rows:
        cells = [
            _bold(_cell(columns[label][row.key], config), _is_best(row, rows, columns[label])) for label, _ in groups
        ]
        paired = differences(overall[row.key], overall[own]) if row.key != own else []
        lines.append(_line(row.title, [*cells, _difference(paired)]))
    return lines


def _column(results: DrawResults, rows: Sequence[Row], names: list[str], shots: int) -> dict[str, ByDraw]:
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


def _interval(found: DrawSummary, form: str) -> str:
    return f"[{found.low:{form}}, {found.high:{form}}]"


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


COLOURS = ("#c2571a", "#5a8f29", "#0b6aa8", "#7b4ea3", "#444444")


@dataclass(frozen=True)
class DotPlot:
    """rows : names, top to bottom; series : by its name a point a row, None where there is none"""

    title: str
    rows: Sequence[str]
    series: Mapping[str, Sequence[DrawSummary | None]]


def pictures(results: DrawResults, names: Sequence[str], config: BenchmarkConfig) -> dict[str, bytes]:
    """PNG by file name, of each table asked for that has a figure."""
    made = {2: _of_table_2, 3: _of_table_3, 4: _of_table_4}
    plot = {f"table{table}.png": made[table](results, names, config) for table in sorted(set(config.tables))}
    return {name: plot_png(one) for name, one in plot.items() if any(any(s) for s in one.series.values())}


def _of_table_2(results: DrawResults, names: Sequence[str], config: BenchmarkConfig) -> DotPlot:
    method = table_2(config)
    series = {
        f"{k} shots": [_point(results.values([name], method, k, macro_f1)) for name in names]
        for k in sorted(set(config.shots))
    }
    return DotPlot(f"macro-F1, recipe {config.recipe}, {STARTS[method.start]}", list(names), series)


def _of_table_3(results: DrawResults, names: Sequence[str], config: BenchmarkConfig) -> DotPlot:
    rows = table_3(config)
    series = {
        f"{k} shots": [_point(results.values(names, row.method, k, macro_f1)) for row in rows]
        for k in sorted(set(config.shots))
    }
    return DotPlot(f"macro-F1, {_which(names)}", [row.title for row in rows], series)


def _of_table_4(results: DrawResults, names: Sequence[str], config: BenchmarkConfig) -> DotPlot:
    rows, shots = table_4(config), max(config.shots)
    points = [_point(results.values(names, row.method, shots, macro_f1)) for row in rows]
    start = STARTS[main_start(config)]
    title = f"macro-F1 by loss weights, {_which(names)}, recipe {config.recipe}, {start}"
    return DotPlot(title, [row.title for row in rows], {f"{shots} shots": points})


def _which(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"mean of {len(names)} data sets"


def _point(values: Mapping[int, float]) -> DrawSummary | None:
    return summary(list(values.values())) if values else None


def plot_png(plot: DotPlot) -> bytes:
    """A PNG, 1200 px wide, a line a row."""
    figure = Figure(figsize=(8, 1.6 + 0.32 * len(plot.rows)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(plot.series.items()):
        shift = (number - (len(plot.series) - 1) / 2) * 0.2
        there = [(row + shift, point) for row, point in enumerate(points) if point is not None]
        half = [0.0 if point.high is None else point.high - point.mean for _, point in there]
        axes.errorbar(
            [point.mean for _, point in there],
            [height for height, _ in there],
            xerr=half,
            fmt="o",
            color=COLOURS[number % len(COLOURS)],
            markersize=4,
            capsize=2,
            label=name,
        )
    axes.set_yticks(range(len(plot.rows)), list(plot.rows), fontsize=8)
    axes.set_ylim(len(plot.rows) - 0.5, -0.5)
    axes.set_xlabel("macro-F1, mean over draws with 95 % confidence interval")
    axes.set_title(plot.title, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(plot.series) or 1, frameon=False, fontsize=8)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
