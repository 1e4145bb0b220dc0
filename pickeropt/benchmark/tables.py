"""The tables of benchmark.md and their figures, with the 95 % confidence interval of each mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pickeropt.benchmark.benchmark_config import BenchmarkConfig
from pickeropt.benchmark.benchmark_sets import BenchmarkSet
from pickeropt.benchmark.fits import STARTS, Row, Start, losses, main_start, table_2, table_3, table_4, text_of
from pickeropt.benchmark.results import ByDraw, DrawRecord, DrawResults, DrawSummary, differences, summary

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
