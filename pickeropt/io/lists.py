"""RELION's `autopick.star`: which coordinate file belongs to which micrograph."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.io.relion import COORDINATE_FILE, MICROGRAPH
from pickeropt.io.star import check_labels, column_spans, find_block, read_blocks
from pickeropt.io.text import column, read_text


@dataclass(frozen=True)
class CoordinateList:
    """A list file in memory, m rows.

    micrograph_names : as the file has them
    coordinate_paths : as the file has them, in RELION relative to the project folder
    content : the file, byte for byte
    path_spans : (m, 2) where the coordinate paths stand in `content`
    """

    path: Path
    micrograph_names: tuple[str, ...]
    coordinate_paths: tuple[str, ...]
    content: bytes
    path_spans: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.coordinate_paths)


def is_coordinate_list(path: Path) -> bool:
    """Whether the file has a loop of micrographs and coordinate files.

    Raises FormatError where it cannot be opened; a file of another kind is just False.
    """
    try:
        with path.open("rb") as file:
            head = file.read(2**20)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    return any(line.split()[:1] == [COORDINATE_FILE.encode()] for line in head.splitlines())


def read_coordinate_list(path: Path) -> CoordinateList:
    """Read a list file. Raises FormatError as `read_picks` does, and for no such columns."""
    text = read_text(path)
    block = find_block(read_blocks(text), MICROGRAPH, COORDINATE_FILE)
    if block is None:
        what = f"no loop_ with {MICROGRAPH} and {COORDINATE_FILE}"
        raise FormatError(f"{path}: {what}; give RELION's AutoPick/jobNNN/autopick.star")
    check_labels(text, block)
    names = column(text, column_spans(text, block, MICROGRAPH))
    spans = column_spans(text, block, COORDINATE_FILE)
    paths = tuple(token.decode() for token in column(text, spans))
    return CoordinateList(path, tuple(name.decode() for name in names), paths, text.content, spans)


def find_coordinate_file(coordinates: CoordinateList, row: int) -> Path:
    """The coordinate file of a row: under the current folder, or a folder the list is in.

    Raises FormatError where there is none.
    """
    name = coordinates.coordinate_paths[row]
    above = [Path(), *coordinates.path.resolve().parents]
    found = next((folder / name for folder in above if (folder / name).is_file()), None)
    if found is None:
        start = int(coordinates.path_spans[row, 0])
        line = coordinates.content.count(b"\n", 0, start) + 1
        remedy = "run in the RELION project folder"
        raise FormatError(f"{coordinates.path}, line {line}: no coordinate file {name}; {remedy}")
    return found


def rewrite_coordinate_list(coordinates: CoordinateList, paths: Sequence[str]) -> bytes:
    """The list with its coordinate paths replaced, row by row; every other byte stays.

    A path with blanks is quoted. Raises FormatError for a path that no STAR file can hold,
    ValueError for another number of paths than rows.
    """
    parts = []
    done = 0
    for path, (start, end) in zip(paths, coordinates.path_spans.tolist(), strict=True):
        parts += [coordinates.content[done:start], _token(path)]
        done = end
    return b"".join([*parts, coordinates.content[done:]])


def _token(value: str) -> bytes:
    plain = value and not any(c.isspace() for c in value) and value[0] not in "#_'\""
    if plain:
        return value.encode()
    quote = next((q for q in "\"'" if q not in value), None)
    if quote is None or "\n" in value or "\r" in value or not value:
        raise FormatError(f"the path {value!r} cannot stand in a STAR file; choose another name")
    return f"{quote}{value}{quote}".encode()
