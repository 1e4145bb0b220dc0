"""The data sets of a benchmark, read and checked before anything is computed.

- A labelled STAR file, or a folder with `truth.star` from `dataset simulate`, gives one data set for each
  source class of particles (species or EMPIAR entry): all points on its micrographs, without the particles
  of other source classes. The classes are those of `_pickeroptClass`. A file without source classes is one
  data set.
- Class folders with `dataset.json`, from `dataset build`, give one data set for each entry with particles.
  Contaminant, carbon and background come from the entry's own source classes. Where it has none, as in
  simulated sets, they come from the source classes of entries without particles: those on the micrographs of
  the entry's own particles if they are enough, because `pretrain --exclude ENTRY` leaves these micrographs
  out; otherwise all, and a note says so.
- Class folders without `dataset.json` are one data set with the classes as they are, one of them `particle`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.benchmark.benchmark_config import BOX, MICROGRAPH, BenchmarkConfig
from pickeropt.datasets.class_folders import ClassPoints, entry_of, gather_points
from pickeropt.errors import FormatError, GeometryError, ShotsError
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.shot_features import LocatedShots, LooseShots, hold_loose
from pickeropt.io.labels import read_labels
from pickeropt.pretrain.training_set import DataSet, check_names, read_data_set
from pickeropt.records import DEFAULT_CLASSES, PARTICLE
from pickeropt.shots import BoxShots, Shots, choose_shots, read_class_boxes

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


def subset_of_boxes(
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
        f"{name}: {kind} is left out, with {count} boxes" for kind, count in counts.items() if kind not in enough
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
    entries = {name: str(described["classes"][name].get("entry", entry_of(name))) for name in data.classes.names}
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


def _set_of(entry: str, boxes: list[_Box], data: DataSet, diameter_px: float, config: BenchmarkConfig) -> BenchmarkSet:
    members, shared = _members(entry, boxes)
    class_names, kept, notes = choose_classes(entry, [box.kind for box in members])
    members = [members[i] for i in kept]
    labels = np.array([class_names.index(box.kind) for box in members], dtype=np.int64)
    sources = np.array([box.source for box in members], dtype=np.int64)
    chosen = choose_shots(labels, sources, config.per_class or None, config.seed)
    members = [members[i] for i in chosen]
    found = [data.boxes[box.row] for box in members]
    shots = BoxShots(class_names, labels[chosen], tuple(b.pixels for b in found), tuple(b.source for b in found))
    loose = hold_loose(shots, FinetuneConfig(diameter_px, 1.0, invert=False))
    return loose_set(entry, loose, _groups(members), (*notes, *_shared_notes(entry, shared, class_names)))


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


def _shared_notes(entry: str, shared: list[str], class_names: tuple[str, ...]) -> tuple[str, ...]:
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


TRUTH = "truth.star"


def read_sets(paths: Sequence[Path], config: BenchmarkConfig, micrographs: Sequence[Path]) -> list[BenchmarkSet]:
    """All data sets of all paths, in order, each cut down to `config.per_class` boxes a class.

    micrographs : folders to look for the micrographs of STAR files in
    Raises PickeroptError for what cannot be read or benchmarked, and for two data sets of one name.
    """
    found = [one for path in paths for one in _read(path, config, micrographs)]
    names = [one.name for one in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise FormatError(f"two data sets are called {twice[0]}; benchmark them into different folders")
    if not found:
        raise FormatError("no data set given; give class folders or labelled STAR files")
    if config.split == BOX:
        found = [replace(one, groups=np.zeros_like(one.groups)) for one in found]
    return found


def _read(path: Path, config: BenchmarkConfig, micrographs: Sequence[Path]) -> list[BenchmarkSet]:
    if path.is_dir() and (path / TRUTH).is_file():
        return _read_star(path / TRUTH, config, micrographs)
    if path.is_dir() and (path / DESCRIPTION).is_file():
        return read_folders(path, config)
    if path.is_dir():
        return [_read_plain(path, config)]
    if path.is_file():
        return _read_star(path, config, micrographs)
    raise FormatError(f"{path}: no such file or folder; give class folders or a labelled STAR file")


def _read_star(path: Path, config: BenchmarkConfig, folders: Sequence[Path]) -> list[BenchmarkSet]:
    points = gather_points([read_labels(path)], folders, "source", config.diameter_angstrom, config.pixel_size)
    check_names(path, "--ignore", config.ignore, points.names)
    entries = [i for i, kind in enumerate(points.kinds) if kind == PARTICLE]
    if not entries:
        found = ", ".join(sorted(set(points.kinds))[:6])
        raise ShotsError(f"{path}: no class {PARTICLE!r} (classes found: {found}); label some particles")
    return [_located(path, points, entry, config) for entry in entries]


def _located(path: Path, points: ClassPoints, entry: int, config: BenchmarkConfig) -> BenchmarkSet:
    name = points.names[entry]
    if name == PARTICLE:
        name = path.parent.resolve().name if path.name == TRUTH else path.stem
    of_entry = points.labels == entry
    there = np.unique(points.micrograph_index[of_entry])
    particle = np.array([kind == PARTICLE for kind in points.kinds])[points.labels]
    ignored = np.array([one in config.ignore for one in points.names])[points.labels]
    rows = np.flatnonzero(np.isin(points.micrograph_index, there) & (of_entry | ~particle) & ~ignored)
    kinds = [points.kinds[label] for label in points.labels[rows].tolist()]
    class_names, kept, notes = choose_classes(name, kinds)
    labels = np.array([class_names.index(kinds[i]) for i in kept], dtype=np.int64)
    rows = rows[kept]
    chosen = choose_shots(labels, points.micrograph_index[rows], config.per_class or None, config.seed)
    rows, labels = rows[chosen], labels[chosen]
    used, index = np.unique(points.micrograph_index[rows], return_inverse=True)
    first = [np.flatnonzero(of_entry & (points.micrograph_index == i))[0] for i in used]
    shots = Shots(
        class_names,
        labels,
        points.coordinates[rows],
        index.astype(np.int64),
        tuple(points.micrographs[i] for i in used),
        None,
    )
    diameters = tuple(points.diameters_px[first].tolist())
    marks = [f"{m.name} {m.stat().st_size} {d:.6g}" for m, d in zip(shots.micrographs, diameters, strict=True)]
    digest = digest_of(class_names, labels, index, shots.coordinates, np.array(marks))
    return BenchmarkSet(name, LocatedShots(shots, diameters), shots.micrograph_index, digest, notes)


def _read_plain(path: Path, config: BenchmarkConfig) -> BenchmarkSet:
    boxes = read_class_boxes(path)
    if config.diameter_angstrom is None:
        raise GeometryError(f"{path}: boxes without {DESCRIPTION}; give --diameter (Å) and --pixel-size (Å/px)")
    names = [boxes.class_names[label] for label in boxes.labels.tolist()]
    class_names, kept, notes = choose_classes(path.resolve().name, names)
    boxes = subset_of_boxes(boxes, class_names, [class_names.index(names[i]) for i in kept], kept)
    chosen = choose_shots(boxes.labels, np.zeros_like(boxes.labels), config.per_class or None, config.seed).tolist()
    boxes = subset_of_boxes(boxes, class_names, [int(boxes.labels[i]) for i in chosen], chosen)
    finetuning = FinetuneConfig(config.diameter_angstrom, config.pixel_size, invert=False)
    loose = hold_loose(boxes, finetuning)
    return loose_set(path.resolve().name, loose, np.zeros_like(boxes.labels), notes)
