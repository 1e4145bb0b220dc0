"""The user's labelled shots, read, checked and split: points on micrographs, or boxes cut by another program.

They come as one STAR file with a class in each row, as coordinate files of one class each, or as a folder of
boxes for each class.

Which shots to train on and which to hold out: only `random()` of a PCG64 stream and sorting decide, so that a seed
means the same on every machine and, as far as numpy promises it, in every version.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError, GeometryError, ShotsError
from pickeropt.io.inputs import read_inputs
from pickeropt.io.labels import with_row_pixel_size
from pickeropt.io.micrographs import MicrographHeader, read_class_folder, read_micrograph_header
from pickeropt.io.picks import read_picks
from pickeropt.io.picks_file import PicksFile, row_place
from pickeropt.io.relion_star import CLASS, MICROGRAPH, X, Y
from pickeropt.records import PARTICLE, FloatArray
from pickeropt.sites import Site, SitedPicks, locate

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
    def of(cls, picks: SitedPicks, labels: NDArray[np.int64]) -> "Rows":
        """All rows of the files, one file after the other."""
        counts = np.diff(picks.starts)
        number = np.repeat(np.arange(len(counts)), counts)
        row = np.arange(len(picks)) - picks.starts[number]
        origin = np.column_stack([number, row])
        return cls(picks.files, labels, picks.coordinates, picks.micrograph, origin)

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
            remedy = "take all shots from micrographs of one pixel size, or mend the optics table that is wrong"
            raise GeometryError(f"{what}; {remedy}")
    return size


def check_inside(rows: Rows, sites: Sequence[Site]) -> None:
    """Raises GeometryError for centres that are not on their micrograph, 0 <= x < width."""
    shapes = np.array([site.shape for site in sites], dtype=np.float64).reshape(-1, 2)
    limits = shapes[rows.micrograph_index][:, ::-1]  # x, y
    outside = np.flatnonzero(((rows.coordinates < 0) | (rows.coordinates >= limits)).any(axis=1))
    if len(outside):
        i = int(outside[0])
        width, height = limits[i].tolist()
        more = f" (and {len(outside) - 1} more)" if len(outside) > 1 else ""
        name = sites[rows.micrograph_index[i]].found
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


@dataclass(frozen=True)
class Shots:
    """n labelled points on micrographs.

    class_names : `particle` first, the rest in order of first mention
    labels : (n,) int64, into `class_names`
    coordinates : (n, 2) float64, x and y of the centre, px
    micrograph_index : (n,) int64, into `micrographs`
    micrographs : files, each once, all of them used
    pixel_size : Å/px of the optics blocks, or of the column `_pickeroptPixelSize`; None where no file has one
    headers : of micrographs whose headers were read already
    """

    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    coordinates: NDArray[np.float64]
    micrograph_index: NDArray[np.int64]
    micrographs: tuple[Path, ...]
    pixel_size: float | None
    headers: Mapping[Path, MicrographHeader] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def header(self, index: int) -> MicrographHeader:
        """Of a micrograph. Raises MicrographError as `read_micrograph_header` does."""
        path = self.micrographs[index]
        return self.headers.get(path) or read_micrograph_header(path)


@dataclass(frozen=True)
class BoxShots:
    """n labelled boxes without micrographs.

    class_names : `particle` first, the rest sorted
    labels : (n,) int64, into `class_names`
    boxes : n arrays (s, s) float32; s may differ between files
    sources : n names: `FILE`, or `N@FILE` for the Nth (from 1) image of a stack
    """

    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    boxes: tuple[FloatArray, ...]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def read_labelled_star(path: Path, micrographs: Sequence[Path]) -> Shots:
    """Shots of a STAR file that has a class in each row, in the column `_pickeroptClass`.

    micrographs : folders to look for the micrographs in, beside where the names lead

    A row that repeats another (point and class) counts once. Raises FormatError for a file
    without that column or that cannot be read; ShotsError for a class name that cannot be
    one, no class `particle`, one class only, a class of fewer than 2 shots, one point in
    two classes; MicrographError for micrographs that are missing or broken; GeometryError
    for points outside their micrograph and for pixel sizes that differ.
    """
    file = read_picks(path)
    classes = file.picks.class_names
    if classes is None:
        what = f"{path}: no column {CLASS} with the class of each point"
        columns = f"{MICROGRAPH} {X} {Y} {CLASS}"
        raise FormatError(f"{what}; add it ({columns}), or give a file for each class: --class NAME=FILE")
    for name in dict.fromkeys(classes):
        if not is_class_name(name):
            check_class_name(name, row_place(file, classes.index(name)))
    return _shots([(with_row_pixel_size(file), classes)], (), micrographs)


def read_class_files(files: Sequence[tuple[str, Path]], micrographs: Sequence[Path]) -> Shots:
    """Shots of files that hold one class each, as `--class NAME=FILE` gives them.

    files : pairs of a class name and a coordinate file of any format, a RELION list of them
        (autopick.star), or a folder of them; a class may come again
    micrographs : folders to look for the micrographs in

    Raises as `read_labelled_star` does, and FormatError for a file with classes of its own.
    """
    labelled = []
    for name, path in files:
        check_class_name(name, f"--class {name}={path}")
        for file in (source.file for source in read_inputs([path], empty=True).sources):
            own = set(file.picks.class_names or ()) - {name}
            if own:
                what = f"{file.path}: has classes of its own ({', '.join(sorted(own)[:4])})"
                remedy = "give it with --shots, or remove its rows of other classes"
                raise FormatError(f"{what}, given as {name!r}; {remedy}")
            labelled.append((file, (name,) * len(file.picks)))
    return _shots(labelled, [name for name, _ in files], micrographs)


def read_class_boxes(folder: Path) -> BoxShots:
    """Boxes of a folder that holds a folder of images, or an .mrcs stack, for each class.

    Raises FormatError for what cannot be read; ShotsError for the classes, as
    `read_labelled_star` does.
    """
    found = read_class_folder(folder)
    for name in found.class_names:
        check_class_name(name, f"{folder / name}")
    check_counts(found.class_names, found.labels, str(folder))
    return BoxShots(found.class_names, found.labels, tuple(found.boxes), tuple(found.sources))


def _shots(
    labelled: Sequence[tuple[PicksFile, Sequence[str]]], mentioned: Sequence[str], folders: Sequence[Path]
) -> Shots:
    """The rows of all files as one record, checked.

    labelled : files, each with the class name of every row
    mentioned : class names that must be there even without a row
    """
    files = [file for file, _ in labelled]
    every = [*mentioned, *(name for _, names in labelled for name in names)]
    class_names = tuple(sorted(dict.fromkeys(every), key=lambda name: name != PARTICLE))
    number = {name: i for i, name in enumerate(class_names)}
    labels = np.array([number[name] for _, names in labelled for name in names], dtype=np.int64)
    where = ", ".join(dict.fromkeys(str(file.path) for file in files[:3])) or "no file"
    where += ", ..." if len(files) > 3 else ""
    check_counts(class_names, labels, where)
    pixel_size = common_pixel_size(files)
    picks = locate(files, folders, pixel_sizes=False)
    rows = Rows.of(picks, labels).without_repeats()
    check_counts(class_names, rows.labels, f"{where} (rows that repeat others left out)")
    check_inside(rows, picks.sites)
    paths = tuple(site.found for site in picks.sites)
    check_one_class_each(rows, paths, class_names)
    headers = {site.found: replace(site.header, path=site.found) for site in picks.sites}
    return Shots(class_names, rows.labels, rows.coordinates, rows.micrograph_index, paths, pixel_size, headers)


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
