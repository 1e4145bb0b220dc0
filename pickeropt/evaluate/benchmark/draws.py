"""What a draw learns from and what it is asked about: never boxes of one micrograph for both, if known."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickeropt.finetune.splits import choose_shots

Indices = NDArray[np.int64]

HELD_OUT = 1 / 3
"""Share of the micrographs, or of the boxes of each class, that a draw is asked about."""
_TRIES = 64
_LEAST = 2
"""Fewest boxes of a class to learn from."""


@dataclass(frozen=True)
class Draw:
    """shots, queries : sorted indices of boxes; seed : of the classifier"""

    shots: Indices
    queries: Indices
    seed: int


def draw(labels: Indices, groups: Indices, shots: int, seed: int) -> Draw:
    """At most `shots` boxes of each class to learn from, and others to be asked about.

    labels, groups : (n,) int64, class and micrograph of each box

    With one seed the queries are the same for every number of shots, and fewer shots are part of more.
    """
    held = held_out(labels, groups, seed)
    pool = np.flatnonzero(~held)
    chosen = choose_shots(labels[pool], groups[pool], shots, seed)
    return Draw(pool[chosen], np.flatnonzero(held), seed)


def draw_seed(seed: int, data_set: str, number: int) -> int:
    """The seed of one draw, below 2**32; draws of different data sets and seeds have nothing in common."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {data_set}".encode()).digest()[:4], "little")


def held_out(labels: Indices, groups: Indices, seed: int) -> NDArray[np.bool_]:
    """(n,) bool: the boxes to be asked about.

    A third of the micrographs, at random; of 64 tries the first that leaves the least undone: every class
    keeps two boxes to learn from, is asked about, and keeps half its boxes. A class that lies on one
    micrograph only is therefore not asked about. With one micrograph it is a third of each class's boxes.
    """
    group = np.unique(groups, return_inverse=True)[1]
    rng = np.random.Generator(np.random.PCG64(seed))
    if group.max() == 0:
        return _held_boxes(labels, rng)
    table = np.zeros((int(group.max()) + 1, int(labels.max()) + 1), dtype=np.int64)
    np.add.at(table, (group, labels), 1)
    count = max(1, round(HELD_OUT * len(table)))
    tries = [np.argsort(rng.random(len(table)), kind="stable")[:count] for _ in range(_TRIES)]
    return np.isin(group, min(tries, key=lambda rows: _undone(table, rows)))


def _undone(table: Indices, rows: Indices) -> tuple[int, int, int]:
    """How many classes keep too few boxes, are not asked about, or keep less than half; (g, k) boxes."""
    total, held = table.sum(0), table[rows].sum(0)
    short = (total - held < _LEAST).sum()
    return int(short), int((held == 0).sum()), int((2 * held > total).sum())


def _held_boxes(labels: Indices, rng: np.random.Generator) -> NDArray[np.bool_]:
    held = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        count = min(len(members) - _LEAST, max(1, round(HELD_OUT * len(members))))
        held[members[np.argsort(rng.random(len(members)), kind="stable")[:count]]] = True
    return held
