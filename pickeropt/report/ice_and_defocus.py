"""Ice and defocus of micrographs, where a STAR file of the run has them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import PickeroptError
from pickeropt.io.relion_star import MICROGRAPH, X, Y
from pickeropt.io.star import Block, find_block, read_blocks
from pickeropt.io.text import TextFile, read_content, tokens
from pickeropt.report.kinds import ReportedRun

HEAD = 2**18
"""Bytes in which the names of a STAR file's columns stand."""
DEFOCUS_U, DEFOCUS_V = "_rlnDefocusU", "_rlnDefocusV"
_ICE = re.compile(r"^_\w*ice_?thickness\w*$", re.IGNORECASE)
NAMED = {
    DEFOCUS_U: ("defocus", "µm"),
    "_rlnCtfFigureOfMerit": ("CTF figure of merit", ""),
    "_rlnCtfMaxResolution": ("CTF resolution", "Å"),
    "_rlnAccumMotionTotal": ("total motion", "Å"),
}
"""Columns and what they are."""


@dataclass(frozen=True)
class Quantity:
    """One figure of the micrographs: (m,) float64 in the order of the run's, NaN where it is not known."""

    name: str
    unit: str
    values: NDArray[np.float64]


def silent_stars(run: ReportedRun, stars: Sequence[Path]) -> tuple[str, ...]:
    """A sentence for each STAR file of micrographs that says nothing of the run's."""
    said = []
    for path in stars:
        found: dict[str, NDArray[np.float64]] = {}
        if not _has_columns(path):
            said.append(f"{path}: has no column of defocus, ice, motion or CTF resolution; there is no chart of it")
        elif not _take(path, (MICROGRAPH,), run.micrographs, found, len(run.micrographs)):
            said.append(f"{path}: cannot be read as a STAR file of micrographs; there is no chart of it")
        elif not found:
            said.append(f"{path}: has none of the run's micrographs, as {run.micrographs[0]}; there is no chart of it")
    return tuple(said)


def read_optics(run: ReportedRun, more: Sequence[Path] = ()) -> tuple[Quantity, ...]:
    """What the run's files of picks and lists say of its micrographs, and STAR files of micrographs.

    Of a file of picks the first pick on each micrograph speaks for it. Files that are gone or cannot be
    read say nothing: the report is made without.
    """
    found: dict[str, NDArray[np.float64]] = {}
    numbers = {name: i for i, name in enumerate(run.files)}
    for entry in run.summary.get("files", ()):
        path, index = _path_of(entry), numbers.get(str(entry.get("name")), -1)
        if path is not None and index >= 0 and _has_columns(path):
            rows = np.flatnonzero(run.file == index)
            first = rows[np.unique(run.micrograph[rows], return_index=True)[1]]
            places = dict(zip(run.micrograph[first].tolist(), run.row[first].tolist(), strict=True))
            _take(path, (X, Y), places, found, len(run.micrographs))
    for path in (*(_path_of(entry) for entry in run.summary.get("lists", ())), *more):
        if path is not None and _has_columns(path):
            _take(path, (MICROGRAPH,), run.micrographs, found, len(run.micrographs))
    return tuple(_quantity(label, values, found) for label, values in found.items() if label != DEFOCUS_V)


def _path_of(entry: Mapping[str, object]) -> Path | None:
    path = Path(str(entry.get("path", "")))
    return path if path.suffix.lower() == ".star" else None


def _wanted(label: str) -> bool:
    return label in NAMED or label == DEFOCUS_V or _ICE.match(label) is not None


def _has_columns(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD).decode("utf-8", "replace")
    except OSError:
        return False
    return any(_wanted(line.split(maxsplit=1)[0]) for line in head.splitlines() if line.startswith("_"))


def _take(
    path: Path,
    labels: tuple[str, ...],
    places: Mapping[int, int] | Sequence[str],
    found: dict[str, NDArray[np.float64]],
    count: int,
) -> bool:
    """Put the figures of a file into `found`, by label; what is there stays. Whether it could be read.

    places : the row of each micrograph that the file speaks for, or the names of all to look for
    """
    try:
        text = TextFile(path, read_content(path))
        block = find_block(read_blocks(text), *labels)
        if block is None:
            return False
        rows = places if isinstance(places, Mapping) else _rows_of(text, block, places)
        columns = [(i, label) for i, label in enumerate(block.labels) if _wanted(label)]
        for index, row in rows.items():
            cells = _cells(text, block, row)
            for column, label in columns:
                values = found.setdefault(label, np.full(count, np.nan))
                if np.isnan(values[index]):
                    values[index] = _number(cells[column])
    except (PickeroptError, OSError, ValueError, IndexError, MemoryError):
        return False
    return True


def _cells(text: TextFile, block: Block, row: int) -> list[bytes]:
    start, end = block.rows[row].tolist()
    return tokens(text.content[start:end])


def _rows_of(text: TextFile, block: Block, names: Sequence[str]) -> dict[int, int]:
    """The row of each micrograph that a list names, by its whole name, else by its file's."""
    column = block.labels.index(MICROGRAPH)
    listed = [_cells(text, block, row)[column].decode() for row in range(len(block.rows))]
    whole, files = _index(listed), _index([PurePath(name).name for name in listed])
    rows = {i: whole.get(name, files.get(PurePath(name).name)) for i, name in enumerate(names)}
    return {i: row for i, row in rows.items() if row is not None}


def _index(names: Iterable[str]) -> dict[str, int]:
    """Where each name stands; one that stands twice stands nowhere."""
    found: dict[str, int] = {}
    twice = set()
    for i, name in enumerate(names):
        if found.setdefault(name, i) != i:
            twice.add(name)
    return {name: i for name, i in found.items() if name not in twice}


def _number(cell: bytes) -> float:
    value = float(cell)
    return value if np.isfinite(value) else float("nan")


def _quantity(label: str, values: NDArray[np.float64], found: Mapping[str, NDArray[np.float64]]) -> Quantity:
    name, unit = NAMED.get(label, ("ice thickness", ""))
    if label == DEFOCUS_U:
        other = found.get(DEFOCUS_V)
        mean = values if other is None else np.where(np.isnan(other), values, (values + other) / 2)
        return Quantity(name, unit, mean / 1e4)
    return Quantity(name if label in NAMED else f"{name} ({label[1:]})", unit, values)
