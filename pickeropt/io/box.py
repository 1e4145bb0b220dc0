"""EMAN `.box` files: `x y w h [score ...]` a line, x and y of the box's corner, px.

Corner and rows as stored in the MRC file (EMAN 1, e2boxer, crYOLO, REPIC agree); the
pick's centre is x + w/2, y + h/2. crYOLO's older CBOX is the same with two values after the score.
"""

import math

import numpy as np
from numpy.typing import NDArray

from pickeropt.io.picks_file import PicksFile
from pickeropt.io.rows import LONGEST_LINE, plain
from pickeropt.io.text import (
    TextFile,
    first_row,
    is_number,
    line_spans,
    numbers,
    row_lines,
    row_tokens,
    tokens,
)
from pickeropt.records import Picks

LAYOUT = "x y width height [score]"


def is_box(content: bytes) -> bool:
    """Whether the first row is a box file's: four values or more, without commas, the first a number."""
    start, end = first_row(content)
    if end - start > LONGEST_LINE or b"," in content[start:end]:
        return False
    found = tokens(content[start:end])
    return len(found) >= 4 and is_number(found[0], optional=True)


def read_box(text: TextFile) -> PicksFile:
    """The picks of a box file. No row: no pick.

    The fifth value is the picker's score; the micrograph is named by the file's own stem.
    Raises FormatError: fewer than four values, rows of different widths, a value that is
    no finite number, a box without width or height.
    """
    rows = row_lines(text.content, line_spans(text.content))
    width = len(tokens(text.content[slice(*rows[0])])) if len(rows) else 4
    parts = [_read_part(text, spans.reshape(-1, width, 2)) for _, spans in row_tokens(text, rows, width)]
    table = np.concatenate(parts) if parts else np.empty((0, 5))
    picks = Picks(
        coordinates=table[:, :2] + table[:, 2:4] / 2,
        micrograph_names=(text.path.stem,) if len(table) else (),
        micrograph_index=np.zeros(len(table), dtype=np.int64),
        figure_of_merit=table[:, 4].copy(),
    )
    sizes = table[:, 2:4].copy()
    return PicksFile(text.path, "eman-box", picks, text.content, rows, names_from_stem=True, box_sizes=sizes)


def _read_part(text: TextFile, spans: NDArray[np.int64]) -> NDArray[np.float64]:
    """(m, 5): x, y, w, h and score of the rows whose token spans are (m, width, 2)."""
    table = np.full((len(spans), 5), np.nan)
    for i, label in enumerate(("x", "y", "width", "height")):
        table[:, i] = numbers(text, spans[:, i], f"the box's {label}")
    empty = np.argwhere(table[:, 2:4] <= 0)
    if len(empty):
        row, side = empty[0]
        what = f"the box's {('width', 'height')[side]} is {table[row, 2 + side]:g}"
        raise text.fault(int(spans[row, 0, 0]), what, f"a row must be: {LAYOUT}")
    if spans.shape[1] > 4:
        table[:, 4] = numbers(text, spans[:, 4], "the box's score", optional=True)
    return table


def write_box(picks: Picks, box_sizes: NDArray[np.float64]) -> bytes:
    """A box file of one micrograph's picks, with scores where there are any; box_sizes : (n, 2) px."""
    corner = picks.coordinates - box_sizes / 2
    table = np.column_stack([corner, box_sizes]).tolist()
    lines = ["\t".join(map(plain, row)) for row in table]
    if not np.isnan(picks.figure_of_merit).all():
        merits = picks.figure_of_merit.tolist()
        lines = [
            f"{line}\t{'nan' if math.isnan(merit) else repr(merit)}"
            for line, merit in zip(lines, merits, strict=True)
        ]
    return "".join(f"{line}\n" for line in lines).encode()
