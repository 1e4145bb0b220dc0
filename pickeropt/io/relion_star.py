"""RELION's STAR files: what the columns mean (picks, pixel size, class labels), and new files with them.

RELION 3.0 files are one nameless block; from 3.1 on `data_optics` stands beside the table. Coordinates are px of the
micrograph, 0-based, rows as stored (RELION, preprocessing.cpp).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError, GeometryError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.star import Block, check_label_tokens, check_labels, column_spans, find_block, relion_loop, star_token
from pickeropt.io.text import TextFile, column, numbers, row_tokens
from pickeropt.records import Picks

X, Y = "_rlnCoordinateX", "_rlnCoordinateY"
MICROGRAPH = "_rlnMicrographName"
SCORE = "_rlnAutopickFigureOfMerit"
CLASS = "_pickeroptClass"
IMAGE = "_rlnImageName"
OPTICS_GROUP = "_rlnOpticsGroup"
NO_SCORE = -999.0
"""What pickers write where they have no figure of merit."""
COORDINATE_FILE = "_rlnMicrographCoordinates"
_JOB = re.compile(r"^.+?/job\d{3}[^/]*/")


def job_prefix(path: str) -> str:
    """A path as far as the folder of RELION's job, with its slash: `MotionCorr/job002/`; "" where none is.

    The first folder that is called so counts, and RELION wants a folder before it. Source: RELION,
    pipeliner.cpp, decomposePipelineFileName.
    """
    match = _JOB.match(path)
    return match[0] if match else ""


def below_job(path: str) -> str:
    """What RELION keeps of a path in other jobs: all below the job, else all; no slash before it."""
    return path.removeprefix(job_prefix(path)).lstrip("/")


@dataclass(frozen=True)
class Names:
    """A text column as distinct values and an index into them."""

    index: dict[bytes, int] = field(default_factory=dict)

    def add(self, found: list[bytes]) -> NDArray[np.int64]:
        """(m,): the index of each value, in order of first mention."""
        known = self.index
        return np.array([known.setdefault(name, len(known)) for name in found], dtype=np.int64)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name.decode() for name in self.index)


def read_star_picks(text: TextFile, blocks: list[Block]) -> tuple[Picks, Block]:
    """The picks of the first loop that has both coordinates, and that loop.

    Raises FormatError for no such loop, a column twice, a row of the wrong width, a
    coordinate that is no finite number; GeometryError for optics groups of different
    pixel sizes.
    """
    block = find_block(blocks, X, Y)
    if block is None:
        raise _no_coordinates(text, blocks)
    check_labels(text, block)
    return _read_columns(text, block, pixel_size(text, blocks, block)), block


def _read_columns(text: TextFile, block: Block, size: float | None) -> Picks:
    count, width = len(block.rows), len(block.labels)
    at = {label: i for i, label in enumerate(block.labels)}
    coordinates = np.empty((count, 2))
    score = np.full(count, np.nan)
    micrograph = np.zeros(count, dtype=np.int64)
    labels = np.zeros(count, dtype=np.int64)
    micrographs, classes = Names(), Names()
    done = 0
    for part, spans in row_tokens(text, block.rows, width):
        here = slice(done, done + len(part))
        done += len(part)
        coordinates[here, 0] = numbers(text, spans[at[X] :: width], X)
        coordinates[here, 1] = numbers(text, spans[at[Y] :: width], Y)
        if SCORE in at:
            score[here] = numbers(text, spans[at[SCORE] :: width], SCORE, optional=True)
        if MICROGRAPH in at:
            micrograph[here] = micrographs.add(column(text, spans[at[MICROGRAPH] :: width]))
        if CLASS in at:
            labels[here] = classes.add(column(text, spans[at[CLASS] :: width]))
    score[score == NO_SCORE] = np.nan
    distinct = classes.names
    class_names = tuple(distinct[i] for i in labels.tolist()) if CLASS in at else None
    stem = (text.path.stem,) if count else ()
    names = micrographs.names if MICROGRAPH in at else stem
    return Picks(coordinates, names, micrograph, score, class_names, size)


def _no_coordinates(text: TextFile, blocks: list[Block]) -> FormatError:
    found = ", ".join(label for block in blocks for label in block.labels[:8]) or "no column"
    what = f"{text.path}: no loop_ with {X} and {Y} (found: {found[:200]})"
    if find_block(blocks, COORDINATE_FILE):
        return FormatError(f"{what}; this is a list of coordinate files: give the files it names")
    if any("_CoordinateX" in block.labels for block in blocks):
        return FormatError(f"{what}; this is a crYOLO CBOX file: give crYOLO's own STAR or EMAN output")
    if any(X in block.labels for block in blocks if not block.loop):
        return FormatError(f"{what}; write the single row as a loop_")
    return FormatError(f"{what}; give a STAR file of picks or particles")


def pixel_size(text: TextFile, blocks: list[Block], picks: Block) -> float | None:
    """Å/px of the micrographs as the file says it, or None.

    `data_optics`: `_rlnMicrographPixelSize`, else `_rlnMicrographOriginalPixelSize` (that
    of the movie before binning: hold it against the MRC header), of the groups that the picks are of.
    `_rlnImagePixelSize` is that of extracted boxes, never of the micrograph. Without an optics block the same
    columns of the picks' own loop count, then detector pixel (µm) and magnification, but
    not beside `_rlnImageName`: RELION 3.0 changes the magnification when it rescales boxes.
    Raises FormatError for a value that is no size, GeometryError where the groups differ.
    """
    optics = next((block for block in blocks if block.name == "optics"), picks)
    for label in ("_rlnMicrographPixelSize", "_rlnMicrographOriginalPixelSize"):
        if label in optics.labels:
            sizes = _sizes(text, optics, label)
            if optics is not picks and len(np.unique(sizes)) > 1:
                sizes = sizes[_used(text, optics, picks)]
            return _one_size(text, label, sizes)
    detector, magnification = "_rlnDetectorPixelSize", "_rlnMagnification"
    if optics is picks and IMAGE not in picks.labels and {detector, magnification} <= set(picks.labels):
        ratio = _sizes(text, picks, detector) / _sizes(text, picks, magnification)
        return _one_size(text, f"{detector} / {magnification}", 1e4 * ratio)
    return None


def _used(text: TextFile, optics: Block, picks: Block) -> NDArray[np.bool_]:
    """(m,) the optics groups that picks are of; a selection leaves others behind. All where nothing says."""
    if not (OPTICS_GROUP in optics.labels and OPTICS_GROUP in picks.labels):
        return np.ones(len(column_spans(text, optics, optics.labels[0])), dtype=np.bool_)
    groups, used = (numbers(text, column_spans(text, block, OPTICS_GROUP), OPTICS_GROUP) for block in (optics, picks))
    return np.isin(groups, used)


def _sizes(text: TextFile, block: Block, label: str) -> NDArray[np.float64]:
    """(m,) of a column of sizes, each finite and above 0."""
    spans = column_spans(text, block, label)
    sizes = numbers(text, spans, label)
    wrong = np.flatnonzero(sizes <= 0)
    if len(wrong):
        row = wrong[0]
        remedy = "write the value of the micrographs there"
        raise text.fault(int(spans[row, 0]), f"{label} is {sizes[row]:g}", remedy)
    return sizes


def _one_size(text: TextFile, label: str, sizes: NDArray[np.float64]) -> float | None:
    if not len(sizes):
        return None
    low, high = float(sizes.min()), float(sizes.max())
    if high - low > 1e-4 * high:
        what = f"{text.path}: {label} is {low:g} Å in one row and {high:g} Å in another"
        remedy = "take each group on its own: relion_star_handler --select rlnOpticsGroup --minval 1 --maxval 1"
        raise GeometryError(f"{what}; {remedy}")
    return low


def write_star(picks: Picks, names: Sequence[str] = ()) -> bytes:
    """The picks as RELION 3.0 wrote them: one nameless loop, scores where there are any.

    names : of each of `picks.micrograph_names`, for a column of them; none: the file is one micrograph's
    Raises FormatError for a name that no STAR file can hold.
    """
    tokens = [star_token(name).decode() for name in names]
    columns = {MICROGRAPH: [tokens[i] for i in picks.micrograph_index.tolist()]} if names else {}
    for label, axis in zip((X, Y), picks.coordinates.T.tolist(), strict=True):
        columns[label] = [f"{value:12.6f}" for value in axis]
    if not np.isnan(picks.figure_of_merit).all():
        columns[SCORE] = [f"{value!r:>12}" for value in picks.figure_of_merit.tolist()]
    return relion_loop("\ndata_\n\n", columns)


def write_labelled_star(path: Path, names: Sequence[str], xy: NDArray[np.float64], class_names: Sequence[str]) -> None:
    """Labelled points: a micrograph name, a centre (n, 2) px and a class a row.

    Raises OutputError for a name or class that no STAR token can hold.
    """
    check_label_tokens(path, {*names, *class_names})
    columns = {MICROGRAPH: list(names), X: xy[:, 0], Y: xy[:, 1], CLASS: list(class_names)}
    write_bytes_atomically(path, star_content("labels", columns, "\t"))


def write_coordinate_star(path: Path, xy: NDArray[np.float64], figure_of_merit: NDArray[np.float64]) -> None:
    """The picks of one micrograph, as RELION 3.0 wrote them: centres (n, 2) px and scores (n,)."""
    write_bytes_atomically(path, star_content("", {X: xy[:, 0], Y: xy[:, 1], SCORE: figure_of_merit}, "\t"))


def star_content(block: str, columns: Mapping[str, Any], separator: str = " ") -> bytes:
    """A STAR file of one loop, through starfile.

    columns : n values by label. Numbers get six decimals; text, which must need no quotes, stays as it is.
    RELION's own layout and values in quotes are those of `star.relion_loop` and `star.star_token`.
    """
    import pandas  # slow to import
    import starfile

    table = pandas.DataFrame({label.removeprefix("_"): values for label, values in columns.items()})
    text: str = starfile.to_string({block: table}, float_format="%.6f", sep=separator)
    return text[text.index("data_") :].encode()  # without starfile's comment, which holds the time
