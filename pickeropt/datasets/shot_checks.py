"""What can be wrong with labelled shots, found before anything is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import GeometryError, ShotsError
from pickeropt.io.micrographs import micrograph_shape
from pickeropt.io.picks_file import PicksFile, row_place
from pickeropt.records import PARTICLE

FEWEST = 2
"""The fewest shots of a class."""
SAME_POINT = 1.0
"""Points closer than this, px, are one point."""


@dataclass(frozen=True)
class Rows:
    """Labelled rows of several files.

    labels, micrograph_index : (n,) int64
    coordinates : (n, 2) float64 px
    origin : (n, 2) int64, which file and which of its rows
    """

    files: tuple[PicksFile, ...]
    labels: NDArray[np.int64]
    coordinates: NDArray[np.float64]
    micrograph_index: NDArray[np.int64]
    origin: NDArray[np.int64]

    @classmethod
    def of(cls, files: Sequence[PicksFile], labels: NDArray[np.int64], index: NDArray[np.int64]) -> "Rows":
        """All rows of the files, one file after the other."""
        points = [np.empty((0, 2)), *(file.picks.coordinates for file in files)]
        counts = [len(file.picks) for file in files]
        number = np.repeat(np.arange(len(files)), counts)
        row = np.concatenate([np.empty(0, dtype=np.int64), *(np.arange(count) for count in counts)])
        return cls(tuple(files), labels, np.concatenate(points), index, np.column_stack([number, row]))

    def without_repeats(self) -> "Rows":
        """The first of all rows that have the same point, micrograph and class; order kept."""
        table = np.column_stack([self.micrograph_index, self.labels, self.coordinates])
        first = np.sort(np.unique(table, axis=0, return_index=True)[1])
        points, index = self.coordinates[first], self.micrograph_index[first]
        return Rows(self.files, self.labels[first], points, index, self.origin[first])

    def place(self, i: int) -> str:
        """File and line of a row."""
        file, row = self.origin[i].tolist()
        return row_place(self.files[file], row)

    def point(self, i: int) -> str:
        x, y = self.coordinates[i].tolist()
        return f"x {x:g}, y {y:g}"


def is_class_name(name: str) -> bool:
    """Whether it is not empty and holds no blank, comma or `=`."""
    return bool(name) and not any(c.isspace() or c in ",=" for c in name)


def check_class_name(name: str, where: str) -> None:
    """Raises ShotsError for a name that cannot be a class."""
    if not is_class_name(name):
        remedy = "name the class without blanks, commas and =, such as carbon"
        raise ShotsError(f"{where}: {name!r} cannot be the name of a class; {remedy}")


def check_counts(class_names: Sequence[str], labels: NDArray[np.int64], where: str) -> None:
    """Raises ShotsError: no class `particle`, one class only, a class of fewer than 2 shots."""
    if PARTICLE not in class_names:
        found = ", ".join(class_names[:6]) or "none"
        remedy = f"the class to keep must be called {PARTICLE}"
        raise ShotsError(f"{where}: no class {PARTICLE!r} (classes found: {found}); {remedy}")
    if len(class_names) == 1:
        remedy = "label at least one more, such as background, of what is to be rejected"
        raise ShotsError(f"{where}: only the class {PARTICLE!r}; {remedy}")
    counts = np.bincount(labels, minlength=len(class_names)).tolist()
    few = [f"{name!r} has {n}" for name, n in zip(class_names, counts, strict=True) if n < FEWEST]
    if few:
        shown = ", ".join(few[:4]) + (", ..." if len(few) > 4 else "")
        remedy = f"label {FEWEST} or more of each (10 to 30 are good), or leave the class out"
        raise ShotsError(f"{where}: too few shots, class {shown}; {remedy}")


def common_pixel_size(files: Sequence[PicksFile]) -> float | None:
    """Å/px of the files that say it, None where none does. Raises GeometryError where they differ."""
    known = [(file.path, file.picks.pixel_size) for file in files]
    sizes = [(path, size) for path, size in known if size is not None]
    if not sizes:
        return None
    first, size = sizes[0]
    for path, other in sizes[1:]:
        if abs(other - size) > 1e-4 * max(size, other):
            what = f"{first} has {size:g} Å/px and {path} {other:g} Å/px"
            remedy = (
                "take all shots from micrographs of one pixel size, or mend the optics table that is wrong"
            )
            raise GeometryError(f"{what}; {remedy}")
    return size


def check_inside(rows: Rows, micrographs: Sequence[Path]) -> None:
    """Raises GeometryError for centres that are not on their micrograph, 0 <= x < width.

    Raises MicrographError for a micrograph whose header cannot be read.
    """
    shapes = np.array([micrograph_shape(path) for path in micrographs], dtype=np.float64).reshape(-1, 2)
    limits = shapes[rows.micrograph_index][:, ::-1]  # x, y
    outside = np.flatnonzero(((rows.coordinates < 0) | (rows.coordinates >= limits)).any(axis=1))
    if len(outside):
        i = int(outside[0])
        width, height = limits[i].tolist()
        more = f" (and {len(outside) - 1} more)" if len(outside) > 1 else ""
        name = micrographs[rows.micrograph_index[i]]
        what = f"{rows.place(i)}: {rows.point(i)} is outside of {name}, {width:g} x {height:g} px{more}"
        remedy = "give the micrographs that were labelled (not binned), or delete the row"
        raise GeometryError(f"{what}; {remedy}")


def check_one_class_each(rows: Rows, micrographs: Sequence[Path], class_names: Sequence[str]) -> None:
    """Raises ShotsError for a point in two classes: less than 1 px apart on one micrograph."""
    from scipy.spatial import cKDTree  # slow to import

    apart = rows.micrograph_index * (10 * SAME_POINT)  # no two micrographs are neighbours
    tree = cKDTree(np.column_stack([rows.coordinates, apart]))
    pairs = np.sort(tree.query_pairs(SAME_POINT, output_type="ndarray"), axis=1)
    differ = rows.labels[pairs[:, 0]] != rows.labels[pairs[:, 1]]
    distance = np.linalg.norm(rows.coordinates[pairs[:, 0]] - rows.coordinates[pairs[:, 1]], axis=1)
    pairs = pairs[differ & (distance < SAME_POINT)]
    if len(pairs):
        i, j = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))[0]].tolist()
        first, second = (class_names[rows.labels[k]] for k in (i, j))
        name = micrographs[rows.micrograph_index[i]]
        more = f" (and {len(pairs) - 1} more)" if len(pairs) > 1 else ""
        what = f"{rows.place(i)} ({first}) and {rows.place(j)} ({second}) are one point"
        raise ShotsError(f"{what} of {name}, {rows.point(i)}{more}; delete one of the two rows")
