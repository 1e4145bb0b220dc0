"""What the fields of cryoSPARC's particles mean: locations, names, scores, pixel size."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError, GeometryError
from pickeropt.io.npy_table import NpyTable
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
                raise GeometryError(
                    f"{what}; split the particles by exposure group and prune each on its own"
                )
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
