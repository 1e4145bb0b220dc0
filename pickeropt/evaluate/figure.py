"""The precision-recall figure of one evaluation."""

from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pickeropt.evaluate.evaluation import Evaluation, Quality, Ranking, thinned

OURS, PICKER = "#0b6aa8", "#c2571a"


def pr_curve_png(evaluation: Evaluation) -> bytes:
    """A PNG, 1200 x 900 px: precision over recall by P(particle) and by the picker's score,
    with the points of all picks and of the kept picks."""
    figure = Figure(figsize=(8, 6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if evaluation.picker_ranking is not None:
        _draw_curve(axes, evaluation.picker_ranking, "by the picker's score", PICKER)
    _draw_curve(axes, evaluation.ranking, "by P(particle)", OURS)
    _draw_point(axes, evaluation.before, "all picks", "s", PICKER)
    _draw_point(axes, evaluation.after, "kept picks", "o", OURS)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall (share of the true particles found)")
    axes.set_ylabel("precision (share of the picks that are true)")
    axes.set_title(
        f"{evaluation.picks} picks, {evaluation.truths} particles, {evaluation.micrographs} micrographs,"
        f" radius {evaluation.radius_px:g} px",
        fontsize=11,
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_curve(axes: Axes, ranking: Ranking, label: str, color: str) -> None:
    curve = thinned(ranking.curve)
    # steps, as average precision sums them
    recall = np.concatenate([[0.0], curve.recall])
    precision = np.concatenate([curve.precision[:1], curve.precision])
    label = f"{label}: average precision {ranking.average_precision:.3f}"
    axes.plot(recall, precision, drawstyle="steps-pre", color=color, linewidth=1.8, label=label)


def _draw_point(axes: Axes, quality: Quality, label: str, marker: str, color: str) -> None:
    label = f"{label}: precision {quality.precision:.3f}, recall {quality.recall:.3f}, F1 {quality.f1:.3f}"
    axes.plot(
        [quality.recall],
        [quality.precision],
        marker=marker,
        color=color,
        markeredgecolor="black",
        markersize=9,
        linestyle="none",
        clip_on=False,
        zorder=5,
        label=label,
    )
