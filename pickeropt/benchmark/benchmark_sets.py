"""The data sets of a benchmark, read and checked before anything is computed.

How what is on disk becomes data sets:

- A labelled STAR file, or a folder with `truth.star` as `dataset simulate` writes it: one data set for
  each source class of particles (the species, or the EMPIAR entry), of all points on the micrographs that
  it is on, other particles left out. The classes are those of `_pickeroptClass`. Without source classes
  the file is one data set.
- Class folders with `dataset.json`, as `dataset build` writes them (`folders.py`): one data set for each
  entry that has particles.
- Class folders without it: one data set of the classes as they are, one of them `particle`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pickeropt.benchmark.benchmark_config import BOX, BenchmarkConfig
from pickeropt.datasets.class_points import ClassPoints, gather_points
from pickeropt.errors import FormatError, GeometryError, ShotsError
from pickeropt.evaluate.benchmark.data_set import BenchmarkSet, choose_classes, digest_of, loose_set, taken
from pickeropt.evaluate.benchmark.folders import DESCRIPTION, read_folders
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.shot_features import LocatedShots, hold_loose
from pickeropt.finetune.splits import choose_shots
from pickeropt.io.labels import read_labels
from pickeropt.pretrain.training_set import check_names
from pickeropt.records import PARTICLE
from pickeropt.shots import Shots, read_class_boxes

TRUTH = "truth.star"


def read_sets(
    paths: Sequence[Path], config: BenchmarkConfig, micrographs: Sequence[Path]
) -> list[BenchmarkSet]:
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
    points = gather_points(
        [read_labels(path)], folders, "source", config.diameter_angstrom, config.pixel_size
    )
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
    marks = [
        f"{m.name} {m.stat().st_size} {d:.6g}" for m, d in zip(shots.micrographs, diameters, strict=True)
    ]
    digest = digest_of(class_names, labels, index, shots.coordinates, np.array(marks))
    return BenchmarkSet(name, LocatedShots(shots, diameters), shots.micrograph_index, digest, notes)


def _read_plain(path: Path, config: BenchmarkConfig) -> BenchmarkSet:
    boxes = read_class_boxes(path)
    if config.diameter_angstrom is None:
        raise GeometryError(
            f"{path}: boxes without {DESCRIPTION}; give --diameter (Å) and --pixel-size (Å/px)"
        )
    names = [boxes.class_names[label] for label in boxes.labels.tolist()]
    class_names, kept, notes = choose_classes(path.resolve().name, names)
    boxes = taken(boxes, class_names, [class_names.index(names[i]) for i in kept], kept)
    chosen = choose_shots(
        boxes.labels, np.zeros_like(boxes.labels), config.per_class or None, config.seed
    ).tolist()
    boxes = taken(boxes, class_names, [int(boxes.labels[i]) for i in chosen], chosen)
    finetuning = FinetuneConfig(config.diameter_angstrom, config.pixel_size, invert=False)
    loose = hold_loose(boxes, finetuning)
    return loose_set(path.resolve().name, loose, np.zeros_like(boxes.labels), notes)
