"""From files of coordinates to the micrographs that a picker learns from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError, GeometryError, MicrographError
from pickeropt.io.find import MicrographFinder
from pickeropt.io.inputs import read_inputs
from pickeropt.io.labels import read_labels
from pickeropt.io.micrographs import read_micrograph_header
from pickeropt.io.picks_file import PicksFile, placed, row_place
from pickeropt.io.pixel_size import choose_pixel_size
from pickeropt.pickers.config import PickTrainConfig
from pickeropt.pickers.records import Labelled, Material
from pickeropt.records import PARTICLE


@dataclass(frozen=True)
class _Points:
    """Particles of one file on one micrograph, still as the file counts y."""

    file: PicksFile
    rows: NDArray[np.int64]
    diameters: NDArray[np.float64]


def read_material(
    coords: Sequence[Path], micrographs: Sequence[Path], config: PickTrainConfig
) -> tuple[Material, tuple[str, ...]]:
    """The micrographs with their particles, those held back apart, and warnings.

    coords : files of coordinates of any format, or folders of them; where there are classes only those
        called `particle` count
    micrographs : folders to look for the micrographs in
    Raises FormatError for what cannot be read and where no particle is left, MicrographError for
    micrographs that are missing, GeometryError for particles outside their micrograph, for unknown
    diameters and for pixel sizes that are unknown or differ.
    """
    found = read_inputs(coords)
    files = [source.file for source in found.sources]
    paths = MicrographFinder(micrographs).find_all(files)
    sites: dict[Path, list[_Points]] = {}
    for file, those in zip(files, paths, strict=True):
        is_particle, diameters = _particles(file)
        for index, path in enumerate(those):
            rows = np.flatnonzero(is_particle & (file.picks.micrograph_index == index))
            if len(rows):
                sites.setdefault(path.resolve(), []).append(_Points(file, rows, diameters[rows]))
    if not sites:
        given = ", ".join(str(path) for path in coords)
        what = f"{given}: no particle in {len(files)} files"
        raise FormatError(f"{what}; where there are classes, particles must be called {PARTICLE!r}")
    labelled = [_labelled(path, points, config) for path, points in sorted(sites.items())]
    material = split(labelled, config.held_back, config.seed)
    if config.particles is not None:
        material = replace(material, training=chosen(material.training, config.particles, config.seed))
    return material, (*found.warnings, *_warnings(material, config))


def read_unlabelled(folders: Sequence[Path], config: PickTrainConfig, diameter: float) -> Material:
    """All micrographs in folders, none of their particles known.

    diameter : Å, where `config` names none
    Raises MicrographError where there is no micrograph, GeometryError for unknown pixel sizes.
    """
    if not folders:
        raise MicrographError("no coordinates and no micrographs; give --coords, or --micrographs to pick on")
    paths = MicrographFinder(folders).paths()
    if not paths:
        given = ", ".join(str(folder) for folder in folders)
        raise MicrographError(f"{given}: no micrograph in it; give the folder of the micrographs")
    none = np.empty((0, 2))
    sizes = [choose_pixel_size(config.pixel_size, read_micrograph_header(path), {}) for path in paths]
    known = config.diameter_angstrom or diameter
    return Material(
        tuple(Labelled(path.resolve(), none, size, known) for path, size in zip(paths, sizes, strict=True)),
        (),
    )


def _particles(file: PicksFile) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which rows are particles, and the diameters that the file names, NaN where it names none."""
    classes = file.picks.class_names
    if classes is None:
        return np.ones(len(file.picks), dtype=np.bool_), np.full(len(file.picks), np.nan)
    labels = read_labels(file.path)
    return np.array([name == PARTICLE for name in classes], dtype=np.bool_), labels.diameters


def _labelled(path: Path, points: Sequence[_Points], config: PickTrainConfig) -> Labelled:
    header = read_micrograph_header(path)
    optics = {str(p.file.path): p.file.picks.pixel_size for p in points}
    pixel_size = choose_pixel_size(
        config.pixel_size, header, {name: size for name, size in optics.items() if size is not None}
    )
    height, width = header.shape
    coordinates = []
    for part in points:
        xy = placed(part.file, np.full(len(part.file.picks), height))[part.rows]
        outside = np.flatnonzero(((xy < -0.5) | (xy > np.array([width, height]) - 0.5)).any(axis=1))
        if len(outside):
            where = row_place(part.file, int(part.rows[outside[0]]))
            x, y = xy[outside[0]].tolist()
            what = f"{where}: the particle at x {x:g}, y {y:g} lies outside {path}, {width} x {height} px"
            raise GeometryError(f"{what}; give the micrographs that were picked with --micrographs")
        coordinates.append(xy)
    diameter = _diameter(path, np.concatenate([p.diameters for p in points]), config.diameter_angstrom)
    return Labelled(path, np.concatenate(coordinates), pixel_size, diameter)


def _diameter(path: Path, said: NDArray[np.float64], flag: float | None) -> float:
    if flag is not None:
        return flag
    known = said[~np.isnan(said)]
    if not len(known):
        raise GeometryError(f"{path}: its coordinates name no particle diameter; give it with --diameter (Å)")
    if known.max() > known.min() * 1.01:
        what = f"{path}: particles of {known.min():g} Å and of {known.max():g} Å"
        raise GeometryError(f"{what}; give one diameter with --diameter")
    return float(known[0])


def split(labelled: Sequence[Labelled], share: float, seed: int) -> Material:
    """Hold back a share of the micrographs, one at least, none where there is only one."""
    count = min(max(1, round(share * len(labelled))), len(labelled) - 1)
    order = np.random.default_rng([seed, 1]).permutation(len(labelled))
    held = set(order[:count].tolist())
    return Material(
        tuple(one for i, one in enumerate(labelled) if i not in held),
        tuple(one for i, one in enumerate(labelled) if i in held),
    )


def chosen(training: Sequence[Labelled], particles: int, seed: int) -> tuple[Labelled, ...]:
    """At most so many of the particles, drawn at random; the rest become `others`."""
    sizes = [len(one.coordinates) for one in training]
    drawn = np.random.default_rng([seed, 2]).permutation(sum(sizes))[:particles]
    taken = np.zeros(sum(sizes), dtype=np.bool_)
    taken[drawn] = True
    parts = np.split(taken, np.cumsum(sizes)[:-1])
    return tuple(
        replace(
            one,
            coordinates=one.coordinates[part],
            others=np.concatenate([one.others, one.coordinates[~part]]),
        )
        for one, part in zip(training, parts, strict=True)
    )


def _warnings(material: Material, config: PickTrainConfig) -> list[str]:
    warnings = []
    if not material.testing:
        warnings.append("one micrograph only: the threshold is chosen on the particles that were learnt from")
    count = sum(len(one.coordinates) for one in material.training)
    if config.particles is not None and count < config.particles:
        warnings.append(
            f"{count} particles where --particles asks for {config.particles}; all of them are used"
        )
    return warnings
