"""One data set of a benchmark, and what the readers of `sets` and `folders` make it with."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pickeropt.benchmark.benchmark_config import BOX, MICROGRAPH
from pickeropt.errors import ShotsError
from pickeropt.finetune.shot_features import LocatedShots, LooseShots
from pickeropt.records import DEFAULT_CLASSES, PARTICLE
from pickeropt.shots import BoxShots

Indices = NDArray[np.int64]

FEWEST = 4
"""A class with fewer boxes than this is left out of its data set."""


@dataclass(frozen=True)
class BenchmarkSet:
    """One data set: n boxes, on micrographs or loose.

    name : of the entry or species, as in the tables
    groups : (n,) the micrograph of each box; all 0 where that is not known
    digest : of all that decides which boxes there are
    notes : what a reader of the tables must know, a sentence each
    """

    name: str
    source: LocatedShots | LooseShots
    groups: Indices
    digest: str
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.shots.class_names

    @property
    def labels(self) -> Indices:
        """(n,)"""
        return self.source.shots.labels

    @property
    def split(self) -> str:
        """What shots and queries do not share, of `config.SPLITS`."""
        return MICROGRAPH if self.groups.any() else BOX


def taken(
    boxes: BoxShots, class_names: tuple[str, ...], labels: Sequence[int], rows: Sequence[int]
) -> BoxShots:
    """Some of the boxes, under new labels."""
    return replace(
        boxes,
        class_names=class_names,
        labels=np.array(labels, dtype=np.int64),
        boxes=tuple(boxes.boxes[i] for i in rows),
        sources=tuple(boxes.sources[i] for i in rows),
    )


def loose_set(name: str, loose: LooseShots, groups: Indices, notes: tuple[str, ...]) -> BenchmarkSet:
    """A data set of boxes, with its digest."""
    boxes = loose.shots.boxes
    geometry = np.array([loose.pixel_size, loose.diameter_angstrom])
    digest = digest_of(loose.shots.class_names, loose.shots.labels, groups, geometry, *boxes)
    return BenchmarkSet(name, loose, groups, digest, notes)


def choose_classes(name: str, kinds: Sequence[str]) -> tuple[tuple[str, ...], list[int], tuple[str, ...]]:
    """The classes that have boxes enough, `particle` first; the rows that are of them; what was left out.

    kinds : (n,) class of each box. Raises ShotsError where no two classes are left, or not the particles.
    """
    counts = {kind: kinds.count(kind) for kind in sorted(set(kinds), key=_rank)}
    enough = tuple(kind for kind, count in counts.items() if count >= FEWEST)
    if PARTICLE not in enough or len(enough) < 2:
        shown = ", ".join(f"{kind} {count}" for kind, count in counts.items())
        what = f"{name}: {PARTICLE} and one more class need {FEWEST} boxes each, there are {shown}"
        raise ShotsError(f"{what}; label more")
    notes = tuple(
        f"{name}: {kind} is left out, with {count} boxes"
        for kind, count in counts.items()
        if kind not in enough
    )
    return enough, [i for i, kind in enumerate(kinds) if kind in enough], notes


def _rank(kind: str) -> tuple[int, str]:
    return (DEFAULT_CLASSES.index(kind) if kind in DEFAULT_CLASSES else len(DEFAULT_CLASSES), kind)


def digest_of(class_names: tuple[str, ...], *arrays: NDArray[np.generic]) -> str:
    """12 hexadecimal digits."""
    mark = hashlib.sha256(" ".join(class_names).encode())
    for array in arrays:
        mark.update(f"{array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
    return mark.hexdigest()[:12]
