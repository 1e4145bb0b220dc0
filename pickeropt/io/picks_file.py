"""A file of picks in memory, and the same file less rows where a pick is a line."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.records import Picks

NO_LINES = ("cryosparc-cs", "cryosparc-csg", "deeppicker")
"""Formats whose rows are no lines of text."""


@dataclass(frozen=True)
class Companion:
    """A file that must be written next to a file of picks, less the same rows.

    path : where it is; name : its path relative to the main file's folder
    """

    path: Path
    name: str


@dataclass(frozen=True)
class PicksFile:
    """A file of picks in memory.

    format : one of those listed in `io.picks`
    content : the file, byte for byte
    row_spans : (n, 2) start and end in `content` of each pick; of its line with the newline where
        a pick is a line
    names_from_stem : the file names no micrograph; its one name is made of the file's own stem
        (none where there are no picks)
    rows_from_top : y counts from the last stored row upwards, so that the stored row is
        ``height - y``; `picks.coordinates` are as the file has them, see `placed`
    companions : files that hold more of these picks' columns (cryoSPARC's passthrough)
    box_sizes : (n, 2) float64 px, width and height of each pick's box, None where the file has none
    """

    path: Path
    format: str
    picks: Picks
    content: bytes
    row_spans: NDArray[np.int64]
    names_from_stem: bool
    rows_from_top: bool = False
    companions: tuple[Companion, ...] = ()
    box_sizes: NDArray[np.float64] | None = None


def placed(file: PicksFile, heights: NDArray[np.generic]) -> NDArray[np.float64]:
    """(n, 2) x, y px with y as the row stored in the MRC file, whatever way the file counts.

    heights : (n,) px, of each pick's micrograph
    """
    if not file.rows_from_top:
        return file.picks.coordinates
    xy = file.picks.coordinates.copy()
    xy[:, 1] = heights.astype(np.float64) - xy[:, 1]
    return xy


def row_place(file: PicksFile, row: int) -> str:
    """File and line (1-based) of a pick, or its row (0-based) where the file has no lines."""
    start, end = file.row_spans[row].tolist()
    if start == end or file.format in NO_LINES:
        return f"{file.path}, row {row}"
    line = file.content.count(b"\n", 0, start) + 1
    return f"{file.path}, line {line}"


def check_keep(file: PicksFile, keep: NDArray[np.bool_]) -> None:
    """Raises ValueError where `keep` is not (n,) bool."""
    if keep.shape != (len(file.picks),) or keep.dtype != np.bool_:
        raise ValueError(f"keep is {keep.dtype} {keep.shape}, not bool ({len(file.picks)},)")


def line_subset(file: PicksFile, keep: NDArray[np.bool_]) -> bytes:
    """The file without the spans of the picks where `keep`, (n,) bool, is False.

    Every other byte stays, comments, headers and other blocks included. Only the last
    line of a file can lack its newline, so no two lines are ever joined.
    """
    check_keep(file, keep)
    content = memoryview(file.content)
    parts = []
    done = 0
    for start, end in file.row_spans[~keep].tolist():
        if start > done:
            parts.append(content[done:start])
        done = end
    parts.append(content[done:])
    return b"".join(parts)
