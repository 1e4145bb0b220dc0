"""EMAN `.box` files: `x y w h [score ...]` a line, x and y of the box's corner, px.

Corner and rows as stored in the MRC file (EMAN 1, e2boxer, crYOLO, REPIC agree); the
pick's centre is x + w/2, y + h/2.
"""

import numpy as np
from numpy.typing import NDArray

from pickeropt.io.text import Spans, TextFile, is_number, line_spans, numbers, row_lines, row_tokens, tokens
from pickeropt.records import Picks

LAYOUT = "x y width height [score]"


def read_box(text: TextFile) -> tuple[Picks, Spans]:
    """The picks of a box file and the lines they stand on. No row: no pick.

    The fifth value is the picker's score; the micrograph is named by the file's own stem.
    Raises FormatError: fewer than four values, rows of different widths, a value that is
    no finite number, a box without width or height.
    """
    rows = row_lines(text.content, line_spans(text.content))
    width = _width(text, rows[0]) if len(rows) else 4
    parts = [_read_part(text, spans.reshape(-1, width, 2)) for _, spans in row_tokens(text, rows, width)]
    table = np.concatenate(parts) if parts else np.empty((0, 5))
    picks = Picks(
        coordinates=table[:, :2] + table[:, 2:4] / 2,
        micrograph_names=(text.path.stem,) if len(table) else (),
        micrograph_index=np.zeros(len(table), dtype=np.int64),
        figure_of_merit=table[:, 4].copy(),
    )
    return picks, rows


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


def _width(text: TextFile, row: NDArray[np.int64]) -> int:
    """How many values the first row has. Raises FormatError where it is no row of a box file."""
    line = text.content[slice(*row)]
    found = tokens(line)
    if len(found) < 4 or not is_number(found[0], optional=True):
        shown = line.decode().strip()
        shown = shown if len(shown) < 60 else shown[:57] + "..."
        remedy = f"give a RELION STAR file, or an EMAN box file with rows: {LAYOUT}"
        raise text.fault(int(row[0]), f"neither a STAR file nor a box file: {shown!r}", remedy)
    return len(found)
