"""Data sets from the class folders of `dataset build`: 36 source classes, taken apart by entry.

A data set is an entry that has particles. Its contaminant, carbon and background are the entry's own
source classes of that kind, as in a set of EMPIAR entries. Where it has none they are the source classes
that belong to no entry with particles, as in simulated sets, where all species share the junk: the boxes
from the micrographs of the entry's own particles if those are enough, because `pretrain --exclude ENTRY`
leaves these micrographs out; else all, and a note says so.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pickeropt.benchmark.benchmark_config import BenchmarkConfig
from pickeropt.datasets.class_folders import entry_of
from pickeropt.errors import ShotsError
from pickeropt.evaluate.benchmark.data_set import BenchmarkSet, Indices, choose_classes, loose_set
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.shot_features import hold_loose
from pickeropt.finetune.splits import choose_shots
from pickeropt.pretrain.training_set import DataSet, read_data_set
from pickeropt.records import PARTICLE
from pickeropt.shots import BoxShots

DESCRIPTION = "dataset.json"
ENOUGH = 45
"""Boxes of a class from the entry's own micrographs: for 30 shots, and a third to ask about."""


@dataclass(frozen=True)
class _Box:
    """One box of the folder: its source class, kind, entry and micrograph ("" where not known)."""

    row: int
    source: int
    kind: str
    entry: str
    micrograph: str


def read_folders(path: Path, config: BenchmarkConfig) -> list[BenchmarkSet]:
    """The data sets of one folder with `dataset.json`. Raises PickeroptError for what cannot be used."""
    data = read_data_set(path, (), config.ignore)
    described = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    entries = {
        name: str(described["classes"][name].get("entry", entry_of(name))) for name in data.classes.names
    }
    boxes = [_box(data, entries, row) for row in range(len(data.boxes))]
    with_particles = sorted({box.entry for box in boxes if box.kind == PARTICLE})
    if not with_particles:
        found = ", ".join(data.classes.names[:6])
        raise ShotsError(f"{path / DESCRIPTION}: no class of it is of particles (classes: {found})")
    diameter_px = float(described.get("diameter_px", len(data.boxes[0].pixels) / data.box_diameters))
    return [_set_of(entry, boxes, data, diameter_px, config) for entry in with_particles]


def _box(data: DataSet, entries: Mapping[str, str], row: int) -> _Box:
    box = data.boxes[row]
    name = data.classes.names[box.label]
    return _Box(row, box.label, data.classes.parents[box.label], entries[name], box.micrograph)


def _set_of(
    entry: str, boxes: list[_Box], data: DataSet, diameter_px: float, config: BenchmarkConfig
) -> BenchmarkSet:
    members, shared = _members(entry, boxes)
    class_names, kept, notes = choose_classes(entry, [box.kind for box in members])
    members = [members[i] for i in kept]
    labels = np.array([class_names.index(box.kind) for box in members], dtype=np.int64)
    sources = np.array([box.source for box in members], dtype=np.int64)
    chosen = choose_shots(labels, sources, config.per_class or None, config.seed)
    members = [members[i] for i in chosen]
    found = [data.boxes[box.row] for box in members]
    shots = BoxShots(
        class_names, labels[chosen], tuple(b.pixels for b in found), tuple(b.source for b in found)
    )
    loose = hold_loose(shots, FinetuneConfig(diameter_px, 1.0, invert=False))
    return loose_set(entry, loose, _groups(members), (*notes, *_told(entry, shared, class_names)))


def _members(entry: str, boxes: list[_Box]) -> tuple[list[_Box], list[str]]:
    """The boxes of a data set, and the kinds that other entries have had a hand in."""
    particles = [box for box in boxes if box.kind == PARTICLE and box.entry == entry]
    others = {box.entry for box in boxes if box.kind == PARTICLE}
    home = {box.micrograph for box in particles} - {""}
    members, shared = particles, []
    for kind in sorted({box.kind for box in boxes} - {PARTICLE}):
        here = [box for box in boxes if box.kind == kind and box.entry == entry]
        if not here:
            common = [box for box in boxes if box.kind == kind and box.entry not in others]
            near = [box for box in common if box.micrograph in home]
            here = near if len(near) >= ENOUGH else common
            shared += [kind] if here is common and common else []
        members = members + here
    return members, shared


def _told(entry: str, shared: list[str], class_names: tuple[str, ...]) -> tuple[str, ...]:
    left = [kind for kind in shared if kind in class_names]
    if not left:
        return ()
    what = f"{entry}: {' and '.join(left)} from micrographs of other entries too"
    return (f"{what}, which a backbone pretrained without {entry} has seen",)


def _groups(members: list[_Box]) -> Indices:
    """(n,) the micrograph of each box; all 0 where one is not known."""
    names = [box.micrograph for box in members]
    if "" in names:
        return np.zeros(len(names), dtype=np.int64)
    order = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([order[name] for name in names], dtype=np.int64)
