"""cryoSPARC's picks: `.cs` tables, the passthrough beside them, and `.csg` result groups.

Coordinates: ``x = center_x_frac * nx``, ``y = (1 - center_y_frac) * ny`` px, with `micrograph_shape`
= [ny, nx]: cryoSPARC counts y from the bottom of the picture it shows. That y is the row as stored for
micrographs that cryoSPARC flipped when it wrote them; for others rows are mirrored, which only the
pixels can tell (`pickeropt check`). Micrograph names stay as the file has them, 21-digit prefix included.

The fields of one pick may be split over files that are joined by `uid`, rows in any order. A `.csg` names
them all. Beside a lone `.cs` without `location/...` stands `NAME_passthrough_GROUP.cs`, where the `.cs`
itself ends in `GROUP.cs`.

Sources: cryosparc-tools (BSD-3-Clause), pyem's csparc2star, the cryoSPARC guide; facts only.

What the fields of cryoSPARC's particles mean: locations, names, scores, pixel size.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError, GeometryError
from pickeropt.io.cryosparc_files import (
    MAGIC,
    GroupEntry,
    NpyTable,
    is_csg,
    load_npy_table,
    read_group,
    read_npy_table,
    rewrite_counts,
)
from pickeropt.io.picks_file import Companion, PicksFile, check_keep
from pickeropt.io.relion_star import Names
from pickeropt.records import Picks

NAME = "location/micrograph_path"
SHAPE = "location/micrograph_shape"
X, Y = "location/center_x_frac", "location/center_y_frac"
LOCATION = (NAME, SHAPE, X, Y)
SCORES = ("pick_stats/ncc_score", "pick_stats/power")
"""The picker's score, the first that is there: the correlation, else the power of the template picker."""
PIXEL_SIZES = ("micrograph_blob/psize_A", "location/micrograph_psize_A")
_KINDS = {NAME: "SU", SHAPE: "iu", X: "f", Y: "f"}
_SHAPES = {SHAPE: (2,)}
PIECE = 50_000
"""Names that are Python objects at once."""


@dataclass(frozen=True)
class Fields:
    """A table that holds some fields of the picks.

    index : (n,) the row of each pick; None where it is the pick's own number
    """

    table: NpyTable
    index: NDArray[np.int64] | None

    def column(self, name: str, picks: slice = slice(None)) -> NDArray[Any]:
        """The field of some picks, in their order."""
        rows = self.table.rows[name]
        return rows[picks] if self.index is None else rows[self.index[picks]]


def read_fields(path: Path, uids: NDArray[np.uint64], tables: Sequence[Fields]) -> Picks:
    """The picks whose fields are in one table or another; the first that has a field counts.

    Raises FormatError: a location field that is missing or of another type, a fraction that is not
    finite, a micrograph without size or name; GeometryError for different pixel sizes.
    """
    source = {name: _source(path, tables, name) for name in LOCATION}
    fractions = np.column_stack([_numbers(source[name], name) for name in (X, Y)])
    shape = _numbers(source[SHAPE], SHAPE)
    _check_rows(path, uids, ~np.isfinite(fractions).all(axis=1), f"{X}, {Y} are not both finite")
    _check_rows(path, uids, ~(shape >= 1).all(axis=1), f"{SHAPE} is not two sizes above 0")
    names = Names()
    index = _name_index(path, uids, source[NAME], names)
    return Picks(
        coordinates=np.column_stack([fractions[:, 0], 1 - fractions[:, 1]]) * shape[:, ::-1],
        micrograph_names=names.names,
        micrograph_index=index,
        figure_of_merit=_score(tables, len(uids)),
        pixel_size=_pixel_size(path, tables),
    )


def _source(path: Path, tables: Sequence[Fields], name: str) -> Fields:
    """The table with a location field of the right type."""
    found = next((fields for fields in tables if fields.table.has(name)), None)
    if found is None:
        what = f"{path}: has no field {name}"
        raise FormatError(f"{what}; give the .csg file of the output, or the passthrough .cs file")
    base, shape = found.table.dtype[name].base, found.table.dtype[name].shape
    if base.kind not in _KINDS[name] or shape != _SHAPES.get(name, ()):
        what = f"{found.table.path}: the field {name} is of type {found.table.dtype[name]}"
        raise FormatError(f"{what}; give a .cs file of particles that cryoSPARC wrote")
    return found


def _numbers(fields: Fields, name: str) -> NDArray[np.float64]:
    """(n,) or (n, m) float64."""
    with np.errstate(invalid="ignore"):  # a signalling NaN is still a NaN
        return fields.column(name).astype(np.float64)


def _check_rows(path: Path, uids: NDArray[np.uint64], wrong: np.bool_ | NDArray[np.bool_], what: str) -> None:
    """Raises FormatError naming the first row that is wrong, (n,), counted from 0."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        which = f"{path}, row {rows[0]} (uid {uids[rows[0]]})"
        more = f", and {len(rows) - 1} more rows" if len(rows) > 1 else ""
        raise FormatError(f"{which}: {what}{more}; remove such particles in cryoSPARC and export again")


def _name_index(path: Path, uids: NDArray[np.uint64], source: Fields, names: Names) -> NDArray[np.int64]:
    """(n,): the index of each pick's micrograph name, which `names` collects."""
    parts = [np.zeros(0, dtype=np.int64)]
    for first in range(0, len(uids), PIECE):
        column = source.column(NAME, slice(first, first + PIECE))
        try:
            found = column.tolist()
            encoded = [name.encode() if isinstance(name, str) else name for name in found]
            "".join(name.decode() for name in set(encoded))
        except (UnicodeError, ValueError) as error:
            raise FormatError(f"{path}: {NAME} is no text ({error}); export the particles again") from error
        empty = np.array([not name for name in encoded], dtype=np.bool_)
        _check_rows(path, uids[first:], empty, f"{NAME} is empty")
        parts.append(names.add(encoded))
    return np.concatenate(parts)


def _score(tables: Sequence[Fields], count: int) -> NDArray[np.float64]:
    """(n,) the picker's score, NaN where there is none."""
    for name in SCORES:
        for fields in tables:
            if fields.table.has(name) and _is_number(fields.table, name):
                return _numbers(fields, name)
    return np.full(count, np.nan)


def _pixel_size(path: Path, tables: Sequence[Fields]) -> float | None:
    """Å/px of the micrographs; 0 and NaN mean unset. Raises GeometryError where they differ."""
    for name in PIXEL_SIZES:
        for fields in tables:
            if not fields.table.has(name) or not _is_number(fields.table, name):
                continue
            sizes = _numbers(fields, name)
            sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
            if not len(sizes):
                continue
            low, high = float(sizes.min()), float(sizes.max())
            if high - low > 1e-4 * high:
                what = f"{path}: {name} is {low:g} Å in one row and {high:g} Å in another"
                raise GeometryError(f"{what}; split the particles by exposure group and prune each on its own")
            return low
    return None


def _is_number(table: NpyTable, name: str) -> bool:
    return table.dtype[name].kind in "fiu" and not table.dtype[name].shape


def write_cs(picks: Picks, shapes: Sequence[tuple[int, int]]) -> bytes:
    """A `.cs` file with the locations of the picks, for scripts and other programs that read such files.

    shapes : (ny, nx) px of each of `picks.micrograph_names`
    The fractions are float32, as cryoSPARC's own: 3e-4 px on a micrograph of 10,000 px. The uids come from
    the picks, so that the same picks give the same bytes. cryoSPARC itself imports groups (`.csg`) and
    wants uids of its own micrographs; to go back there prune its own files.
    """
    names = np.array([name.encode() for name in picks.micrograph_names] or [b""])
    kinds: list[Any] = [("uid", "<u8"), (NAME, names.dtype), (SHAPE, "<u4", (2,)), (X, "<f4"), (Y, "<f4")]
    kinds += [(PIXEL_SIZES[1], "<f4")] if picks.pixel_size is not None else []
    scored = bool(np.isfinite(picks.figure_of_merit).any())
    kinds += [(SCORES[0], "<f4")] if scored else []
    table = np.zeros(len(picks), dtype=kinds)
    shape = np.array(shapes, dtype=np.float64).reshape(-1, 2)[picks.micrograph_index]
    digest = blake2b(picks.coordinates.tobytes() + repr(picks.micrograph_names).encode(), digest_size=8)
    start = np.uint64(int.from_bytes(digest.digest(), "little"))
    table["uid"] = start + np.arange(len(picks), dtype=np.uint64)
    table[NAME] = names[picks.micrograph_index]
    table[SHAPE] = shape
    table[X] = picks.coordinates[:, 0] / shape[:, 1]
    table[Y] = 1 - picks.coordinates[:, 1] / shape[:, 0]
    if picks.pixel_size is not None:
        table[PIXEL_SIZES[1]] = picks.pixel_size
    if scored:
        table[SCORES[0]] = picks.figure_of_merit
    stream = io.BytesIO()
    np.save(stream, table, allow_pickle=False)
    return stream.getvalue()


__all__ = ["companion_subsets", "is_cs", "is_csg", "read_cs", "read_csg", "subset_cs", "subset_csg"]

CS, CSG = "cryosparc-cs", "cryosparc-csg"
STREAM = b"\x95CSDAT"
UID = "uid"


@dataclass(frozen=True)
class _Table:
    """A table whose rows have distinct uids, in the order of the file."""

    npy: NpyTable
    uids: NDArray[np.uint64]


def is_cs(content: bytes) -> bool:
    """Whether the bytes are those of a `.cs` file, also of the compressed kind that is refused."""
    return content.startswith((MAGIC, STREAM))


def read_cs(path: Path, content: bytes) -> PicksFile:
    """The picks of a `.cs` file, one a row; its passthrough becomes a companion where it is needed.

    Raises FormatError: the compressed kind, a damaged file, no `location/...` fields and no passthrough
    that has them for every uid, a uid twice, a fraction that is not finite, a micrograph without
    size or name; GeometryError where the micrographs have different pixel sizes.
    """
    table = _table(_parse(path, content))
    companions: tuple[Companion, ...] = ()
    fields = [Fields(table.npy, None)]
    if not table.npy.has(*LOCATION):
        other = _passthrough(table)
        fields.append(Fields(other.npy, _join(table, other)))
        companions = (Companion(other.npy.path, other.npy.path.name),)
    picks = read_fields(path, table.uids, fields)
    starts = table.npy.start + table.npy.dtype.itemsize * np.arange(len(table.npy), dtype=np.int64)
    spans = np.column_stack([starts, starts + table.npy.dtype.itemsize])
    return PicksFile(path, CS, picks, content, spans, names_from_stem=False, companions=companions)


def read_csg(path: Path, content: bytes) -> PicksFile:
    """The picks of a result group; the `.cs` files that it names are its companions.

    The rows are those of its first `.cs` that is no passthrough. Raises FormatError as `read_group` and
    `read_cs` do, and where a `.cs` is missing or has another number of rows than the group says.
    """
    entries = read_group(path, content)
    tables = _group_tables(path, entries)
    main = next(iter(tables.values()))
    fields = [Fields(main.npy, None)]
    fields += [Fields(other.npy, _join(main, other)) for other in list(tables.values())[1:]]
    picks = read_fields(path, main.uids, fields)
    companions = tuple(Companion(table.npy.path, name) for name, table in tables.items())
    spans = np.zeros((len(picks), 2), dtype=np.int64)
    return PicksFile(path, CSG, picks, content, spans, names_from_stem=False, companions=companions)


def subset_cs(file: PicksFile, keep: NDArray[np.bool_]) -> bytes:
    """The `.cs` less the rows where `keep`, (n,) bool, is False: same fields, same header version."""
    check_keep(file, keep)
    return _parse(file.path, file.content).subset(keep)


def subset_csg(file: PicksFile, keep: NDArray[np.bool_]) -> bytes:
    """The `.csg` with the numbers of rows that `companion_subsets` leaves in its `.cs` files."""
    check_keep(file, keep)
    entries = read_group(file.path, file.content)
    tables = _group_tables(file.path, entries)
    dropped = next(iter(tables.values())).uids[~keep]
    counts = {name: int(_remaining(table, dropped).sum()) for name, table in tables.items()}
    return rewrite_counts(file.content, entries, counts)


def companion_subsets(file: PicksFile, keep: NDArray[np.bool_]) -> dict[str, bytes]:
    """By name, the companions of a `.cs` or `.csg` less the rows of the picks where `keep` is False.

    Rows are matched by uid and stay in the order of their file; a row that belongs to no pick stays.
    Raises FormatError where a companion changed since the picks were read.
    """
    check_keep(file, keep)
    if not file.companions:
        return {}
    main = load_npy_table(file.companions[0].path) if file.format == CSG else _parse(file.path, file.content)
    uids = _table(main).uids
    if len(uids) != len(keep):
        raise FormatError(f"{main.path}: has changed since it was read; run again")
    parts = {}
    for companion in file.companions:
        table = _table(_load(companion.path))
        parts[companion.name] = table.npy.subset(_remaining(table, uids[~keep]))
    return parts


def _parse(path: Path, content: bytes) -> NpyTable:
    if content.startswith(STREAM):
        remedy = (
            f"python -c \"from cryosparc.dataset import Dataset; Dataset.load('{path}').save('{path.stem}_numpy.cs')\""
        )
        what = "is a compressed .cs file (CSDAT), which is not read"
        raise FormatError(f"{path}: {what}; save it as a NumPy one with cryosparc-tools: {remedy}")
    return read_npy_table(path, content)


def _load(path: Path) -> NpyTable:
    try:
        return _parse(path, path.read_bytes())
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _table(npy: NpyTable) -> _Table:
    """The table and its uids. Raises FormatError: no uids, or one of them twice."""
    if not npy.has(UID) or npy.dtype[UID].kind != "u" or npy.dtype[UID].shape:
        raise FormatError(f"{npy.path}: has no field uid of whole numbers; give a .cs file of cryoSPARC")
    uids = npy.rows[UID].astype(np.uint64)
    order = np.argsort(uids, kind="stable")
    same = np.flatnonzero(uids[order[1:]] == uids[order[:-1]])
    if len(same):
        first, second = order[same[0]], order[same[0] + 1]
        what = f"rows {first} and {second} have the same uid {uids[first]}"
        raise FormatError(f"{npy.path}: {what}; export the particles again, without duplicates")
    return _Table(npy, uids)


def _join(main: _Table, other: _Table) -> NDArray[np.int64]:
    """(n,): the row of `other` with the uid of each row of `main`. Raises FormatError for a uid without."""
    rows, there = _find(main.uids, other.uids)
    missing = np.flatnonzero(~there)
    if len(missing):
        first = f"the first is uid {main.uids[missing[0]]}"
        what = f"{len(missing)} of {len(there)} particles are not in it, {first}"
        raise FormatError(f"{other.npy.path}: {what}; give files of one job and one output group")
    return rows


def _find(wanted: NDArray[np.uint64], uids: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(n,) the place of each wanted uid among the uids, and (n,) whether it is there at all."""
    if not len(uids):
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=np.bool_)
    order = np.argsort(uids, kind="stable")
    rows = order[np.minimum(np.searchsorted(uids, wanted, sorter=order), len(uids) - 1)]
    return rows, uids[rows] == wanted


def _remaining(table: _Table, dropped: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(m,): the rows whose uid is not dropped."""
    keep = np.ones(len(table.uids), dtype=np.bool_)
    rows, there = _find(dropped, table.uids)
    keep[rows[there]] = False
    return keep


def _group_tables(path: Path, entries: tuple[GroupEntry, ...]) -> dict[str, _Table]:
    """The tables of a group by name, those that are no passthrough first."""
    names = sorted({entry.metafile: None for entry in entries}, key=lambda name: "passthrough" in name)
    tables = {}
    for name in names:
        if not (path.parent / name).is_file():
            what = f"names {name}, which is not beside it"
            raise FormatError(f"{path}: {what}; put the .csg and its .cs files into one folder")
        tables[name] = _table(_load(path.parent / name))
    for entry in entries:
        rows = len(tables[entry.metafile].npy)
        if entry.count not in (None, rows):
            what = f"says {entry.count} items, but {entry.metafile} has {rows} rows"
            raise FormatError(f"{path}: {what}; export the group again")
    return tables


def _passthrough(main: _Table) -> _Table:
    """The passthrough file beside a `.cs` that has the locations of all its particles."""
    path = main.npy.path
    fitting = []
    for beside in sorted(path.parent.glob("*_passthrough_*.cs")):
        group = beside.stem.split("_passthrough_", 1)[1]
        if beside.name == path.name or not path.stem.endswith(group):
            continue
        npy = _load(beside)
        if npy.has(*LOCATION) and _find(main.uids, (table := _table(npy)).uids)[1].all():
            fitting.append((len(group), table))
    if not fitting:
        missing = next(name for name in LOCATION if not main.npy.has(name))
        what = f"{path}: has no field {missing}, and no *_passthrough_*.cs beside it has it for these particles"
        raise FormatError(f"{what}; give the .csg file of the output, or the passthrough .cs file")
    longest = max(length for length, _ in fitting)
    best = [table for length, table in fitting if length == longest]
    if len(best) > 1:
        names = " and ".join(table.npy.path.name for table in best)
        raise FormatError(f"{path}: {names} both hold its locations; give the .csg file of the output")
    return best[0]
