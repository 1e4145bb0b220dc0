"""The results of single draws: the rows of benchmark.csv, and their mean and confidence interval."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from pickeropt.benchmark.benchmark_config import LossWeights
from pickeropt.benchmark.fits import Method
from pickeropt.errors import FormatError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.csv_table import CsvTable, read_csv
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
Figure = Callable[[DrawRecord], float]


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

    def values(self, data_sets: Sequence[str], method: Method, shots: int, figure: Figure) -> ByDraw:
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
