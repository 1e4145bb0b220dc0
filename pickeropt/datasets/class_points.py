"""Labelled points of several files as one record, ready to be cut: what `dataset build` starts from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.datasets.shot_checks import Rows, check_class_name, check_inside, common_pixel_size
from pickeropt.errors import GeometryError, ShotsError
from pickeropt.io.find import MicrographFinder
from pickeropt.io.labels import PIXEL_SIZE, Labels
from pickeropt.io.micrographs import read_micrograph_header
from pickeropt.io.picks_file import row_place
from pickeropt.io.pixel_size import AGREE, choose_pixel_size

SMALLEST = 4.0
"""Particle diameter in px below which nothing can be seen."""


@dataclass(frozen=True)
class ClassPoints:
    """n labelled points on micrographs, and the classes they make.

    names : of the classes to be written, sorted
    kinds : particle, contaminant, carbon, background … of each name
    labels : (n,) int64 into `names`; micrograph_index : (n,) int64 into `micrographs`
    coordinates : (n, 2) x, y px
    diameters : (n,) Å; pixel_sizes : Å/px a micrograph
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    labels: NDArray[np.int64]
    coordinates: NDArray[np.float64]
    micrograph_index: NDArray[np.int64]
    micrographs: tuple[Path, ...]
    diameters: NDArray[np.float64]
    pixel_sizes: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def diameters_px(self) -> NDArray[np.float64]:
        """(n,) particle diameter in px of the point's micrograph."""
        sizes: NDArray[np.float64] = np.array(self.pixel_sizes, dtype=np.float64)[self.micrograph_index]
        return self.diameters / sizes


def gather_points(
    files: Sequence[Labels],
    folders: Sequence[Path],
    by: str,
    diameter: float | None,
    pixel_size: float | None,
) -> ClassPoints:
    """All points of the files, checked; repeated rows count once.

    by : "source" or "class", which column names the classes
    diameter : Å, of points whose file says none and whose micrograph has no other
    pixel_size : Å/px of all micrographs; None takes it from the rows, else from optics blocks and headers

    Raises PickeroptError: names that cannot be classes, one source in two classes, micrographs missing or
    broken, points outside, a diameter or pixel size that nothing says or that does not fit.
    """
    columns = [labels.source_names if by == "source" else labels.class_names for labels in files]
    kinds = _kinds(files, columns)
    names = tuple(sorted(kinds))
    number = {name: i for i, name in enumerate(names)}
    label = np.array([number[name] for column in columns for name in column], dtype=np.int64)
    if not len(label):
        raise ShotsError(f"{', '.join(str(labels.file.path) for labels in files)}: no labelled point")
    paths, index = _micrographs(files, folders)
    every = Rows.of([labels.file for labels in files], label, index)
    rows = every.without_repeats()
    check_inside(rows, paths)
    first = np.concatenate([[0], np.cumsum([len(labels.diameters) for labels in files])])
    said = np.concatenate([labels.diameters for labels in files])[
        first[rows.origin[:, 0]] + rows.origin[:, 1]
    ]
    sizes = _pixel_sizes(files, paths, index, pixel_size)
    points = ClassPoints(
        names,
        tuple(kinds[name] for name in names),
        rows.labels,
        rows.coordinates,
        rows.micrograph_index,
        paths,
        _diameters(said, rows, paths, diameter),
        sizes,
    )
    _check_fit(points)
    return points


def _kinds(files: Sequence[Labels], columns: Sequence[Sequence[str]]) -> dict[str, str]:
    """The class of each name. Raises ShotsError for names that are no class, and for a name in two."""
    kinds: dict[str, str] = {}
    for labels, column in zip(files, columns, strict=True):
        for row, (name, kind) in enumerate(zip(column, labels.class_names, strict=True)):
            if name not in kinds:
                check_class_name(name, row_place(labels.file, row))
                if "/" in name or name.startswith("."):
                    where = row_place(labels.file, row)
                    raise ShotsError(f"{where}: {name!r} cannot be the name of a file; rename the class")
                kinds[name] = kind
            elif kinds[name] != kind:
                what = f"{row_place(labels.file, row)}: {name!r} is {kind} here and {kinds[name]} above"
                raise ShotsError(f"{what}; give each source class one class")
    return kinds


def _micrographs(
    files: Sequence[Labels], folders: Sequence[Path]
) -> tuple[tuple[Path, ...], NDArray[np.int64]]:
    """The micrographs on disk, each once, and (n,) which one each row is on."""
    known: dict[Path, int] = {}
    paths: list[Path] = []
    index = []
    found = MicrographFinder(folders).find_all([labels.file for labels in files])
    for labels, places in zip(files, found, strict=True):
        for path in places:
            if path.resolve() not in known:
                known[path.resolve()] = len(paths)
                paths.append(path)
        here = np.array([known[path.resolve()] for path in places], dtype=np.int64)
        index.append(here[labels.file.picks.micrograph_index])
    return tuple(paths), np.concatenate(index)


def _pixel_sizes(
    files: Sequence[Labels], paths: Sequence[Path], index: NDArray[np.int64], flag: float | None
) -> tuple[float, ...]:
    """Å/px of each micrograph: the flag, else what its rows say, else optics blocks and header.

    index : (n,) the micrograph of each row
    """
    said = None if flag is not None else common_pixel_size([labels.file for labels in files])
    optics: Mapping[str, float] = {} if said is None else {"the labels": said}
    of_rows = np.concatenate([labels.pixel_sizes for labels in files])
    sizes = []
    for i, path in enumerate(paths):
        known = np.unique(of_rows[(index == i) & ~np.isnan(of_rows)]).tolist()
        if flag is not None or not known:
            sizes.append(choose_pixel_size(flag, read_micrograph_header(path), optics))
            continue
        if known[-1] > known[0] * (1 + AGREE):
            what = f"{path}: {known[0]:g} and {known[-1]:g} Å/px by {PIXEL_SIZE} of the labels"
            raise GeometryError(f"{what}; mend the one that is wrong, or give --pixel-size")
        sizes.append(known[0])
    return tuple(sizes)


def _diameters(
    said: NDArray[np.float64], rows: Rows, paths: Sequence[Path], fallback: float | None
) -> NDArray[np.float64]:
    """(n,) Å: as the row says, else as other rows of its micrograph say, else the fallback."""
    diameters = said.copy()
    for i in np.unique(rows.micrograph_index[np.isnan(said)]).tolist():
        here = rows.micrograph_index == i
        known = np.unique(said[here & ~np.isnan(said)])
        value = known[0] if len(known) == 1 else fallback
        if value is None:
            row = int(np.flatnonzero(here & np.isnan(said))[0])
            what = f"{rows.place(row)}: no diameter for the particles of {paths[i]}"
            raise GeometryError(f"{what}; give it with --diameter (Å)")
        diameters[here & np.isnan(said)] = value
    return diameters


def _check_fit(points: ClassPoints) -> None:
    """Raises GeometryError for a particle of under 4 px, or larger than its micrograph."""
    for i, path in enumerate(points.micrographs):
        px = points.diameters_px[points.micrograph_index == i]
        height, width = read_micrograph_header(path).shape
        if px.min() < SMALLEST or px.max() > min(height, width):
            wrong = px.min() if px.min() < SMALLEST else px.max()
            raise GeometryError(
                f"{path}: a particle of {wrong * points.pixel_sizes[i]:g} Å is {wrong:.1f} px across on "
                f"{width} x {height} px; check --diameter (Å) and --pixel-size (Å/px)"
            )
