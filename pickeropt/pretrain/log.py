"""The log of a run: CSV, learning curves, TensorBoard."""

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from pickeropt.errors import PickeroptError
from pickeropt.pretrain.learner import MEASURED
from pickeropt.pretrain.workplace import Workplace

FITTED = ("head_ridge", "held_back_head_f1", "held_back_head_auc")
"""Of the head that was fitted to the finished backbone: its ridge, the macro-F1 of parents and the AUC of
particle against rest on what is held back."""

COLUMNS = (
    "step",
    "loss",
    *MEASURED,
    "learning_rate",
    "images_per_second",
    *(f"held_back_{name}" for name in MEASURED),
    *FITTED,
)
"""Means since the row before; `held_back` of what is not trained on, with the weights that are kept. The
last row has the figures of the fitted head as well."""

Row = Mapping[str, float]


class RunLog:
    """Rows of a CSV file, appended as they come.

    place : of the run; what an earlier part of it wrote after step `resumed_at` is dropped from its log
    """

    def __init__(self, place: Workplace, resumed_at: int):
        self.path = place.log
        self.rows: list[Row] = [row for row in read_log(self.path) if row["step"] <= resumed_at]
        write_log(place, self.rows)

    def add(self, row: Row) -> None:
        """Append a row; names of `COLUMNS`, all but `step` may be missing."""
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(_as_line(row))


def write_log(place: Workplace, rows: Sequence[Row]) -> None:
    """The whole log anew."""
    place.publish(place.log, (_line(COLUMNS) + "".join(map(_as_line, rows))).encode())


def read_log(path: Path) -> list[Row]:
    """The whole rows of a log, none where there is no such file or it is another kind of file."""
    if not path.is_file():
        return []
    lines = [
        line
        for line in path.read_bytes().decode(errors="replace").splitlines(keepends=True)
        if line.endswith("\n")
    ]
    if not lines or lines[0] != _line(COLUMNS):
        return []
    read = csv.DictReader(lines)
    return [{name: float(value) for name, value in row.items() if value} for row in read]


def _as_line(row: Row) -> str:
    values = ["" if name not in row else f"{row[name]:.6g}" for name in COLUMNS]
    return _line([f"{row['step']:.0f}", *values[1:]])


def _line(values: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def curves_png(rows: Sequence[Row]) -> bytes:
    """A PNG, 1500 x 675 px: losses and accuracy over steps, trained and held back."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    losses, accuracy = figure.subplots(1, 2)
    colors = dict(zip(MEASURED, ("#0b6aa8", "#c2571a", "#8a4fa8", "#2a7f3f", "#5f5f5f"), strict=True))
    for name in MEASURED:
        axes = accuracy if "accuracy" in name else losses
        for prefix, style in (("", "-"), ("held_back_", "o--")):
            points = [(row["step"], row[prefix + name]) for row in rows if prefix + name in row]
            if points:
                label = name.replace("_", " ") + (", held back" if prefix else "")
                x, y = zip(*points, strict=True)
                axes.plot(x, y, style, color=colors[name], markersize=4, linewidth=1.3, label=label)
    losses.set_ylabel("loss")
    accuracy.set_ylabel("share of labelled points told right")
    accuracy.set_ylim(0, 1)
    for axes in (losses, accuracy):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def check_tensorboard() -> None:
    """Raises PickeroptError where TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        remedy = (
            "pip install 'pickeropt[tensorboard]', or leave the option away: the CSV log is always written"
        )
        raise PickeroptError(f"--tensorboard: the package tensorboard is not installed; {remedy}")


def open_tensorboard(folder: Path | None, resumed_at: int) -> AbstractContextManager[Any]:
    """A SummaryWriter that goes on after a step; for no folder one that is None."""
    if folder is None:
        return nullcontext()
    from torch.utils.tensorboard import SummaryWriter

    writer: AbstractContextManager[Any] = SummaryWriter(str(folder), purge_step=resumed_at + 1)
    return writer


def report_row(tensorboard: Any, row: Row) -> None:
    """A row to a SummaryWriter, or to None."""
    if tensorboard is not None:
        for name, value in row.items():
            if name != "step":
                tensorboard.add_scalar(name, value, int(row["step"]))
        tensorboard.flush()
