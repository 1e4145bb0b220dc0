"""The picks of a session as columns that grow while files are still being read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNLABELLED = -1
SKIPPED = -2
"""Seen and passed over."""
NO_GUESS = -1
_FIRST = 4096


@dataclass(frozen=True)
class Columns:
    """n picks, by id; views of the table, which may be written to under the session's lock.

    xy : (n, 2) float64 px, rows as stored, as their file has them
    merit : (n,) float32, the picker's score, NaN where it gave none
    micrograph : (n,) int32
    label : (n,) int16 index into the classes, UNLABELLED or SKIPPED
    guess : (n,) int16, the class of the model, or NO_GUESS
    score : (n,) float32, P(particle), NaN where no model was asked
    doubt : (n,) float32, 1 less the probability of the guess, NaN likewise
    kept : (n,) int8, 1 kept and 0 rejected by the pruning, -1 where there was none
    """

    xy: NDArray[np.float64]
    merit: NDArray[np.float32]
    micrograph: NDArray[np.int32]
    label: NDArray[np.int16]
    guess: NDArray[np.int16]
    score: NDArray[np.float32]
    doubt: NDArray[np.float32]
    kept: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.merit)


class PickTable:
    """Columns with room to grow. Not locked: the session's lock is held to write."""

    def __init__(self) -> None:
        self._all = _columns(_FIRST)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def columns(self) -> Columns:
        """The picks so far."""
        return _first(self._all, self._count)

    def write(
        self,
        start: int,
        xy: NDArray[np.float64],
        merit: NDArray[np.floating],
        micrograph: NDArray[np.integer],
    ) -> None:
        """Put m picks at the ids from `start` on; what was said of those already there stays."""
        stop = start + len(xy)
        if stop > len(self._all):
            grown = _columns(max(stop, 2 * len(self._all)))
            _copy(self.columns, _first(grown, self._count))
            self._all = grown
        self._all.xy[start:stop] = xy
        self._all.merit[start:stop] = merit
        self._all.micrograph[start:stop] = micrograph
        self._count = max(self._count, stop)


def _columns(count: int) -> Columns:
    nothing = np.full(count, np.nan, dtype=np.float32)
    return Columns(
        xy=np.zeros((count, 2)),
        merit=nothing,
        micrograph=np.zeros(count, dtype=np.int32),
        label=np.full(count, UNLABELLED, dtype=np.int16),
        guess=np.full(count, NO_GUESS, dtype=np.int16),
        score=nothing.copy(),
        doubt=nothing.copy(),
        kept=np.full(count, -1, dtype=np.int8),
    )


def _first(columns: Columns, count: int) -> Columns:
    c = columns
    return Columns(
        c.xy[:count],
        c.merit[:count],
        c.micrograph[:count],
        c.label[:count],
        c.guess[:count],
        c.score[:count],
        c.doubt[:count],
        c.kept[:count],
    )


def _copy(source: Columns, target: Columns) -> None:
    for old, new in zip(_arrays(source), _arrays(target), strict=True):
        new[:] = old


def _arrays(c: Columns) -> tuple[NDArray[np.generic], ...]:
    return (c.xy, c.merit, c.micrograph, c.label, c.guess, c.score, c.doubt, c.kept)
