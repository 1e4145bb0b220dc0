"""The learner (backbone and linear head), the recipe interface, and the files and log of a run."""

import csv
import io
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pickeropt.errors import PickeroptError
from pickeropt.models.backbone import Backbone
from pickeropt.pretrain.pretrain_config import PretrainConfig, Schedule
from pickeropt.pretrain.training_set import DataSet
from pickeropt.resumable import TrainingFolder

CUTTING, DRAWING, ORDER, THINNING = 0, 1, 2, 3
"""Streams of random numbers beside the seed."""

MEASURED = ("rotation", "classes", "parents", "accuracy", "parent_accuracy")
"""Three losses, the share of points whose source class is classified correctly, and whose parent is."""

TERMS = (*MEASURED, "labelled", "samples")
"""What is summed over samples: all but the first over those with labels, whose number is the sixth."""

LEAD_IN = 50
"""Steps in which the default recipe's learning rate rises."""


class LinearHead(nn.Module):
    """forward : (n, width) features -> (n, classes) logits, linear in features less `mean` times `scale`."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear((features - self.mean) * self.scale)
        return logits


class Learner(nn.Module):
    """A backbone and its linear head over k source classes.

    width : of the features that the head sees
    """

    def __init__(self, backbone: Backbone, width: int, classes: int):
        super().__init__()
        self.backbone = backbone
        self.head = LinearHead(width, classes)


class Recipe(Protocol):
    """How a learner is trained.

    samples : how many there are to train on; held_back : how many to measure on
    steps : of the whole training
    averaged : whether a running average of the weights is what is kept
    measured : those of `MEASURED` that it gives
    """

    samples: int
    held_back: int
    steps: int
    averaged: bool
    measured: tuple[str, ...]

    def optimiser(self, learner: Learner) -> torch.optim.Optimizer:
        """A fresh one, its groups at their highest learning rates."""

    def rate(self, step: int) -> float:
        """What learning rates are multiplied by at a step, from 1."""

    def weights(self, step: int) -> tuple[float, float]:
        """Of the cross-entropies of source classes and of their parents in the loss at a step, from 1."""

    def backward(self, learner: Learner, step: int, slots: Iterable[int]) -> Tensor:
        """Add the gradients of these slots of the step's batch to the learner's; their `TERMS`, (7,)."""

    def limit(self, learner: Learner) -> None:
        """What is done to the gradients of the whole batch before a step."""

    def measure(self, learner: Learner, indices: Iterable[int]) -> Tensor:
        """Terms of these samples that were held back, (7,), without gradients."""


def count_steps(schedule: Schedule, samples: int) -> int:
    """Steps of a schedule; epochs are of `samples`."""
    return schedule.steps or -(-schedule.epochs * samples // schedule.batch_size)


def cosine(step: int, steps: int) -> float:
    """A lead-in, then half a cosine down to almost nothing."""
    return min(1.0, step / LEAD_IN) * (0.5 * (1 + math.cos(math.pi * step / steps)) + 0.005)


def stairs(step: int, samples: int, batch_size: int) -> float:
    """x 0.1 every 7 epochs (Li et al. 2022, section 3.2)."""
    epoch = (step - 1) * batch_size // samples
    return float(0.1 ** (epoch // 7))


def slot_generator(seed: int, step: int, slot: int) -> np.random.Generator:
    """The random numbers of one place in one batch, whichever process works on it."""
    return np.random.default_rng([seed, DRAWING, step, slot])


class Order:
    """Which sample comes when: all of them in random order, again and again. Keeps nothing but a cache."""

    def __init__(self, seed: int, samples: int):
        self.seed, self.samples = seed, samples
        self._epoch, self._permutation = -1, np.zeros(0, dtype=np.int64)

    def __call__(self, position: int) -> int:
        """The sample at a position counted over all steps from 0."""
        epoch, place = divmod(position, self.samples)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, ORDER, epoch])
            self._epoch, self._permutation = epoch, rng.permutation(self.samples)
        return int(self._permutation[place])


def split(pieces: Sequence[int], one_in: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Samples to train on and to hold back, by the piece that each comes from: one piece in so many."""
    held = np.array(pieces, dtype=np.int64) % one_in == one_in - 1
    return np.flatnonzero(~held), np.flatnonzero(held)


def batches(indices: Iterable[int], size: int) -> Iterator[list[int]]:
    """Consecutive indices, `size` at a time."""
    waiting: list[int] = []
    for index in indices:
        waiting.append(index)
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


UNIMPORTANT = ("device", "tensorboard", "log_every", "save_every")
"""Settings that change no weights but for rounding."""


class PretrainFolder(TrainingFolder):
    """Files of a run; `folder` holds what only the run itself needs."""

    @property
    def views(self) -> Path:
        return self.folder / "views"

    @property
    def features(self) -> Path:
        return self.folder / "features"

    @property
    def state(self) -> Path:
        return self.folder / "state.safetensors"

    @property
    def log(self) -> Path:
        return self.out.with_suffix(".log.csv")

    @property
    def curves(self) -> Path:
        return self.out.with_suffix(".curves.png")

    @property
    def tensorboard(self) -> Path:
        return self.out.with_suffix(".tensorboard")

    def begin(self, settings: Mapping[str, Any]) -> None:
        """The same, less an earlier TensorBoard log."""
        shutil.rmtree(self.tensorboard, ignore_errors=True)
        super().begin(settings)


def run_settings(data: DataSet, config: PretrainConfig, unlabelled: tuple[Path, ...]) -> dict[str, Any]:
    """All that decides the result, for JSON."""
    settings: dict[str, Any] = {n: v for n, v in asdict(config).items() if n not in UNIMPORTANT}
    settings |= {"exclude": sorted(config.exclude), "ignore": sorted(config.ignore)}
    settings["data"] = data.fingerprint
    settings["unlabelled"] = [[path.name, path.stat().st_size] for path in unlabelled]
    for name in ("weights", "init"):
        path = Path(settings[name]) if settings[name] else None
        settings[name] = [str(path), path.stat().st_size if path.is_file() else 0] if path else None
    loaded: dict[str, Any] = json.loads(json.dumps(settings))
    return loaded


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

    run_folder : of the run; what an earlier part of it wrote after step `resumed_at` is dropped from its log
    """

    def __init__(self, run_folder: PretrainFolder, resumed_at: int):
        self.path = run_folder.log
        self.rows: list[Row] = [row for row in read_log(self.path) if row["step"] <= resumed_at]
        write_log(run_folder, self.rows)

    def add(self, row: Row) -> None:
        """Append a row; names of `COLUMNS`, all but `step` may be missing."""
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(_as_line(row))


def write_log(run_folder: PretrainFolder, rows: Sequence[Row]) -> None:
    """The whole log anew."""
    run_folder.publish(run_folder.log, (_line(COLUMNS) + "".join(map(_as_line, rows))).encode())


def read_log(path: Path) -> list[Row]:
    """The whole rows of a log, none where there is no such file or it is another kind of file."""
    if not path.is_file():
        return []
    lines = [
        line for line in path.read_bytes().decode(errors="replace").splitlines(keepends=True) if line.endswith("\n")
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
    accuracy.set_ylabel("share of labelled points classified correctly")
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
        remedy = "pip install 'pickeropt[tensorboard]', or leave the option away: the CSV log is always written"
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
