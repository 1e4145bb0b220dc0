"""Mean, spread and confidence interval over draws."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from pickeropt.benchmark.results import Record
from pickeropt.evaluate.benchmark.rows import Method

CONFIDENCE = 0.95

ByDraw = Mapping[int, float]
Figure = Callable[[Record], float]


@dataclass(frozen=True)
class Summary:
    """n values: mean, standard deviation (n - 1), and Student's confidence interval of the mean.

    spread, low, high : None for one value
    """

    count: int
    mean: float
    spread: float | None
    low: float | None
    high: float | None


def summary(values: Sequence[float]) -> Summary:
    """Of n values, n at least 1."""
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Summary(count, mean, None, None, None)
    spread = float(np.std(values, ddof=1))
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * spread / math.sqrt(count)
    return Summary(count, mean, spread, mean - half, mean + half)


class Results:
    """All draws that there are, to be asked for by table."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records: dict[tuple[str, Method, int], dict[int, Record]] = {}
        for record in records:
            place = self._records.setdefault((record.data_set, record.method, record.shots), {})
            place[record.draw] = record

    def draws(self, data_set: str, method: Method, shots: int) -> Mapping[int, Record]:
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
