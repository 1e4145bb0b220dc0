"""Xmipp's and Scipion's `.pos`: a STAR file with `# XMIPP_STAR_1 *` and `data_particles`.

`_xcoor`, `_ycoor` are the centre in whole px, `_cost` is the picker's score, `_enabled` -1 marks what the
user switched off: such rows are picks like the others.
"""

import math

import numpy as np

from pickeropt.io.picks_file import PicksFile
from pickeropt.io.star import Block, check_labels, column_spans, find_block
from pickeropt.io.text import TextFile, numbers
from pickeropt.records import Picks

X, Y, COST = "_xcoor", "_ycoor", "_cost"
_LABELS = ("_itemId", "_enabled", X, Y, COST)


def find_pos(blocks: list[Block]) -> Block | None:
    """The loop of coordinates, None where this is no `.pos` file."""
    return find_block(blocks, X, Y)


def read_pos(text: TextFile, block: Block) -> PicksFile:
    """The picks of the loop. Raises FormatError for a column twice, a wrong row, no number in a row."""
    check_labels(text, block)
    x, y = (numbers(text, column_spans(text, block, label), label) for label in (X, Y))
    count = len(block.rows)
    cost = np.full(count, np.nan)
    if COST in block.labels:
        cost = numbers(text, column_spans(text, block, COST), COST, optional=True)
    stem = (text.path.stem,) if count else ()
    picks = Picks(np.column_stack([x, y]), stem, np.zeros(count, dtype=np.int64), cost)
    return PicksFile(text.path, "xmipp-pos", picks, text.content, block.rows, names_from_stem=True)


def write_pos(picks: Picks) -> bytes:
    """A `.pos` file of one micrograph's picks; coordinates are rounded to whole px, a missing score is 0."""
    head = (
        "# XMIPP_STAR_1 * \n# \ndata_header\nloop_\n _pickingMicrographState\nAuto\ndata_particles\nloop_\n"
    )
    head += "".join(f" {label}\n" for label in _LABELS)
    merits = (0.0 if math.isnan(value) else value for value in picks.figure_of_merit.tolist())
    whole = np.rint(picks.coordinates).astype(np.int64).tolist()
    rows = [
        f" {i} 1 {x} {y} {m!r}\n" for i, ((x, y), m) in enumerate(zip(whole, merits, strict=True), start=1)
    ]
    return (head + "".join(rows)).encode()
