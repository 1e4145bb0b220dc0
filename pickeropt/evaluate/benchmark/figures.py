"""The tables as pictures: points with the 95 % confidence interval of each mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pickeropt.benchmark.benchmark_config import BenchmarkConfig
from pickeropt.benchmark.tables import macro_f1
from pickeropt.evaluate.benchmark.rows import STARTS, main_start, table_2, table_3, table_4
from pickeropt.evaluate.benchmark.statistics import Results, Summary, summary

COLOURS = ("#c2571a", "#5a8f29", "#0b6aa8", "#7b4ea3", "#444444")


@dataclass(frozen=True)
class Dots:
    """rows : names, top to bottom; series : by its name a point a row, None where there is none"""

    title: str
    rows: Sequence[str]
    series: Mapping[str, Sequence[Summary | None]]


def pictures(results: Results, names: Sequence[str], config: BenchmarkConfig) -> dict[str, bytes]:
    """PNG by file name, of each table asked for that has a figure."""
    made = {2: _of_table_2, 3: _of_table_3, 4: _of_table_4}
    dots = {f"table{table}.png": made[table](results, names, config) for table in sorted(set(config.tables))}
    return {name: dots_png(one) for name, one in dots.items() if any(any(s) for s in one.series.values())}


def _of_table_2(results: Results, names: Sequence[str], config: BenchmarkConfig) -> Dots:
    method = table_2(config)
    series = {
        f"{k} shots": [_point(results.values([name], method, k, macro_f1)) for name in names]
        for k in sorted(set(config.shots))
    }
    return Dots(f"macro-F1, recipe {config.recipe}, {STARTS[method.start]}", list(names), series)


def _of_table_3(results: Results, names: Sequence[str], config: BenchmarkConfig) -> Dots:
    rows = table_3(config)
    series = {
        f"{k} shots": [_point(results.values(names, row.method, k, macro_f1)) for row in rows]
        for k in sorted(set(config.shots))
    }
    return Dots(f"macro-F1, {_which(names)}", [row.title for row in rows], series)


def _of_table_4(results: Results, names: Sequence[str], config: BenchmarkConfig) -> Dots:
    rows, shots = table_4(config), max(config.shots)
    points = [_point(results.values(names, row.method, shots, macro_f1)) for row in rows]
    start = STARTS[main_start(config)]
    title = f"macro-F1 by loss weights, {_which(names)}, recipe {config.recipe}, {start}"
    return Dots(title, [row.title for row in rows], {f"{shots} shots": points})


def _which(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"mean of {len(names)} data sets"


def _point(values: Mapping[int, float]) -> Summary | None:
    return summary(list(values.values())) if values else None


def dots_png(dots: Dots) -> bytes:
    """A PNG, 1200 px wide, a line a row."""
    figure = Figure(figsize=(8, 1.6 + 0.32 * len(dots.rows)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(dots.series.items()):
        shift = (number - (len(dots.series) - 1) / 2) * 0.2
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
    axes.set_yticks(range(len(dots.rows)), list(dots.rows), fontsize=8)
    axes.set_ylim(len(dots.rows) - 0.5, -0.5)
    axes.set_xlabel("macro-F1, mean over draws with 95 % confidence interval")
    axes.set_title(dots.title, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(dots.series) or 1, frameon=False, fontsize=8)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
