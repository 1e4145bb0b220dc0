"""Which shots to train on and which to hold out.

Only `random()` of a PCG64 stream and sorting decide, so that a seed means the same on
every machine and, as far as numpy promises it, in every version.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import ShotsError

Indices = NDArray[np.int64]

_FEWEST = 4
"""A class with fewer shots than this is never held out."""
_TRIES = 64
_LEAST_WANTED = 1e-9
"""Shots; the distance from less, as a share of it, is no number any more."""


@dataclass(frozen=True)
class Split:
    """train, validation : sorted indices, disjoint, together all shots

    by : "micrograph" (whole groups are held out), "shot" or "none" (nothing is held out)
    """

    train: Indices
    validation: Indices
    by: Literal["micrograph", "shot", "none"]


def choose_shots(labels: Indices, groups: Indices, per_class: int | None, seed: int) -> Indices:
    """At most `per_class` shots of each class, sorted indices; None takes all.

    labels, groups : (n,) int64, class and micrograph of each shot

    Round-robin over the groups in an order that all classes share: the shots of a class
    come from as many micrographs as can be, and those of all classes from the same ones
    where they can. With the same seed, fewer shots are a part of more shots.
    Raises ShotsError for fewer than 2 a class.
    """
    if per_class is None:
        return np.arange(len(labels), dtype=np.int64)
    if per_class < 2:
        raise ShotsError(f"{per_class} shots a class cannot train a classifier; ask for 2 or more")
    group = np.unique(groups, return_inverse=True)[1]
    turn = _generator(seed).random(int(group.max(initial=-1)) + 1)
    chosen = [np.empty(0, dtype=np.int64)]
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        rank = _ranks(group[members], _generator(seed, label).random(len(members)))
        chosen.append(members[np.lexsort((turn[group[members]], rank))[:per_class]])
    return np.sort(np.concatenate(chosen))


def _ranks(group: Indices, key: NDArray[np.float64]) -> Indices:
    """(m,): the place of each member within its group, by key, from 0."""
    order = np.lexsort((key, group))
    _, first, sizes = np.unique(group[order], return_index=True, return_counts=True)
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(first, sizes)
    return rank


def shortfalls(labels: Indices, class_names: Sequence[str], per_class: int | None) -> tuple[str, ...]:
    """A sentence for each class that has fewer shots than asked for."""
    if per_class is None:
        return ()
    counts = np.bincount(labels, minlength=len(class_names)).tolist()
    return tuple(
        f"class {name!r} has {count} shots where {per_class} are asked for; all of them are used"
        for name, count in zip(class_names, counts, strict=True)
        if count < per_class
    )


def validation_split(labels: Indices, groups: Indices, fraction: float, seed: int) -> Split:
    """Hold out about `fraction` of the shots to measure on.

    labels, groups : (n,) int64, class and micrograph of each shot
    fraction : of all n, from 0 (hold out nothing) to below 1

    Whole groups are held out where they can be, because shots of one micrograph resemble
    each other; else shots, class by class. Every class keeps at least 2 and at least half
    of its shots for training, and all of them where it has fewer than 4; where groups are
    few or uneven, the share held out may thus lie well off `fraction`.
    Raises ShotsError for a fraction out of range.
    """
    if not 0 <= fraction < 1:
        what = f"a validation fraction of {fraction:g} leaves nothing to train on or means nothing"
        raise ShotsError(f"{what}; give one from 0 to below 1, such as 0.2")
    everything = np.arange(len(labels), dtype=np.int64)
    by: Literal["micrograph", "shot"] = "micrograph"
    held = np.zeros(len(labels), dtype=np.bool_)
    if fraction > 0 and len(labels):
        held = _hold_out_groups(labels, groups, fraction, seed)
        if not held.any():
            by = "shot"
            held = _hold_out_shots(labels, fraction, seed)
    return Split(everything[~held], everything[held], by if held.any() else "none")


def _spare(counts: Indices) -> Indices:
    """How many shots of each class may be held out, of (k,) there are."""
    return np.where(counts < _FEWEST, 0, counts // 2)


def _hold_out_groups(labels: Indices, groups: Indices, fraction: float, seed: int) -> NDArray[np.bool_]:
    """(n,) bool; all False where no group can be spared.

    Greedy over the groups in many random orders. The best set has the lowest cost: the
    number of classes it lacks, plus its distance from the wanted size as a share of it. A
    class more in the set is thus worth a set of up to twice the size.
    """
    group = np.unique(groups, return_inverse=True)[1]
    label = np.unique(labels, return_inverse=True)[1]
    table = np.zeros((int(group.max()) + 1, int(label.max()) + 1), dtype=np.int64)
    np.add.at(table, (group, label), 1)
    spare = _spare(table.sum(axis=0))
    candidates = np.flatnonzero((table <= spare).all(axis=1))
    generator = _generator(seed)
    best, lowest = np.empty(0, dtype=np.int64), math.inf
    for _ in range(_TRIES if len(candidates) else 0):
        order = candidates[np.argsort(generator.random(len(candidates)), kind="stable")]
        chosen, cost = _greedy(table[order], spare, max(fraction * len(labels), _LEAST_WANTED))
        if cost < lowest:
            best, lowest = order[chosen], cost
    return np.isin(group, best)


def _greedy(table: Indices, spare: Indices, wanted: float) -> tuple[list[int], float]:
    """The rows of (g, k) shots taken in order, each where it lowers the cost, and the cost."""
    chosen: list[int] = []
    taken = np.zeros_like(spare)
    cost = math.inf
    for row, shots in enumerate(table):
        together = taken + shots
        if (together > spare).any():
            continue
        new_cost = np.count_nonzero(together == 0) + abs(float(together.sum()) - wanted) / wanted
        if new_cost < cost:
            chosen.append(row)
            taken, cost = together, new_cost
    return chosen, cost


def _hold_out_shots(labels: Indices, fraction: float, seed: int) -> NDArray[np.bool_]:
    """(n,) bool: of each class that can spare any, its share, rounded, and at least one."""
    held = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        spare = int(_spare(np.array(len(members))))
        count = min(spare, max(1, math.floor(fraction * len(members) + 0.5)))
        order = np.argsort(_generator(seed, label).random(len(members)), kind="stable")
        held[members[order[:count]]] = True
    return held


def _generator(*seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))
