"""Which coordinate file belongs to which micrograph: RELION's `autopick.star`, or a suffix file.

RELION 4 and 5 write a list. Up to 3.1 the file `coords_suffix_autopick.star` holds the path of the STAR
file of micrographs only; the coordinates of `MotionCorr/job002/Movies/a.mrc` are `Movies/a_autopick.star`
beside it (RELION, pipeliner.cpp, decomposePipelineFileName).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.io.relion_star import COORDINATE_FILE, MICROGRAPH, below_job
from pickeropt.io.star import check_labels, column_spans, find_block, read_blocks, relion_loop, star_token
from pickeropt.io.text import LONGEST_LINE, column, read_content, read_start, read_text

SUFFIX_FILE = "coords_suffix"
"""How the name of a suffix file begins; the rest is that of each coordinate file."""
LIST_HEAD = 2**20
"""Bytes in which the columns of a list stand."""


@dataclass(frozen=True)
class CoordinateList:
    """A list file in memory, m rows.

    micrograph_names : as the file has them
    coordinate_paths : as the file has them, in RELION relative to the project folder
    content : the file, byte for byte
    path_spans : (m, 2) where the coordinate paths stand in `content`; (0, 2) in a suffix file
    """

    path: Path
    micrograph_names: tuple[str, ...]
    coordinate_paths: tuple[str, ...]
    content: bytes
    path_spans: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.coordinate_paths)


def is_coordinate_list(path: Path, content: bytes | None = None) -> bool:
    """Whether the file has a loop of micrographs and coordinate files.

    content : the file, or its start, where it was read before
    Raises FormatError where it cannot be opened; a file of another kind is just False.
    """
    head = read_start(path, LIST_HEAD) if content is None else content[:LIST_HEAD]
    named = COORDINATE_FILE.encode()
    return named in head and any(line.split()[:1] == [named] for line in head.splitlines())


def read_coordinate_list(path: Path, content: bytes | None = None) -> CoordinateList:
    """Read a list file. Raises FormatError as `read_picks` does, and for no such columns."""
    text = read_text(path, content)
    block = find_block(read_blocks(text), MICROGRAPH, COORDINATE_FILE)
    if block is None:
        what = f"no loop_ with {MICROGRAPH} and {COORDINATE_FILE}"
        raise FormatError(f"{path}: {what}; give RELION's AutoPick/jobNNN/autopick.star")
    check_labels(text, block)
    names = column(text, column_spans(text, block, MICROGRAPH))
    spans = column_spans(text, block, COORDINATE_FILE)
    paths = tuple(token.decode() for token in column(text, spans))
    return CoordinateList(path, tuple(name.decode() for name in names), paths, text.content, spans)


def is_suffix_file(path: Path, content: bytes | None = None) -> bool:
    """Whether this is a `coords_suffix...` file: its name, and one line that is the path of a STAR file.

    Raises FormatError where it cannot be opened.
    """
    if not path.name.startswith(SUFFIX_FILE):
        return False
    lines = (read_content(path) if content is None else content)[:LONGEST_LINE].split(b"\n")
    return lines[0].strip().endswith(b".star") and not any(line.strip() for line in lines[1:])


def read_suffix_file(path: Path, content: bytes | None = None) -> CoordinateList:
    """The coordinate files beside a suffix file, of the micrographs that have one.

    Raises FormatError: no STAR file of micrographs where it says, or no coordinate file of them.
    """
    text = read_text(path, content)
    named = text.content.decode().strip()
    above = [Path(), *path.resolve().parents]
    star = next((folder / named for folder in above if (folder / named).is_file()), None)
    if star is None:
        what = f"no STAR file of micrographs {named}"
        raise FormatError(f"{path}, line 1: {what}; run in the RELION project folder")
    names = _micrograph_names(star)
    suffix = path.name.removeprefix(SUFFIX_FILE)
    files = [path.parent / f"{PurePosixPath(below_job(name)).with_suffix('')}{suffix}" for name in names]
    there = [(name, str(file)) for name, file in zip(names, files, strict=True) if file.is_file()]
    if not there:
        example = f" (such as {files[0]})" if files else ""
        what = f"no coordinate file{example} of the {len(names)} micrographs of {star}"
        raise FormatError(f"{path}: {what}; give the coordinate files themselves")
    micrographs, paths = zip(*there, strict=True)
    return CoordinateList(path, micrographs, paths, text.content, np.empty((0, 2), dtype=np.int64))


def _micrograph_names(star: Path) -> list[str]:
    text = read_text(star)
    block = find_block(read_blocks(text), MICROGRAPH)
    if block is None:
        raise FormatError(f"{star}: no loop_ with {MICROGRAPH}; give RELION's file of micrographs")
    check_labels(text, block)
    return [name.decode() for name in column(text, column_spans(text, block, MICROGRAPH))]


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

    A suffix file names none, and stays whole: its coordinate files must lie beside it again. A path
    with blanks is quoted. Raises FormatError for a path that no STAR file can hold,
    ValueError for another number of paths than rows.
    """
    if not len(coordinates.path_spans):
        return coordinates.content
    parts = []
    done = 0
    for path, (start, end) in zip(paths, coordinates.path_spans.tolist(), strict=True):
        parts += [coordinates.content[done:start], star_token(path)]
        done = end
    return b"".join([*parts, coordinates.content[done:]])


def write_coordinate_list(micrographs: Sequence[str], paths: Sequence[str]) -> bytes:
    """A list as RELION 4 and 5 write it. Raises FormatError for a name that no STAR file can hold."""
    columns = {
        MICROGRAPH: [star_token(name).decode() for name in micrographs],
        COORDINATE_FILE: [star_token(path).decode() for path in paths],
    }
    return relion_loop("\n# version 30001\n\ndata_coordinate_files\n\n", columns)
