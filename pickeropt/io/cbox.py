"""crYOLO's CBOX files, v1.0: a STAR file with `data_global`, `data_cryolo` and `data_cryolo_include`.

`_CoordinateX`, `_CoordinateY` are the corner of a box of `_Width` x `_Height` px, rows as stored in the
MRC file; `<NA>` stands for what is not known. All candidates are in it, whatever crYOLO's threshold was:
`_Confidence` is the score. Blocks other than `data_cryolo` stay as they are. The older CBOX, seven values
a line, is an EMAN box file with three values more, and is read as one.

**Filaments** (a `_filamentid` that is not `<NA>`, or `data_filament_vertices`): the segments are read as
picks, format "cbox-filaments"; less all or none of them the file can be written, but not less some, since
a filament with holes is another filament.
"""

import math

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.io.picks_file import PicksFile, line_subset
from pickeropt.io.star import Block, check_labels, column_spans
from pickeropt.io.text import TextFile, column, numbers, plain
from pickeropt.records import Picks

CBOX, FILAMENTS = "cbox", "cbox-filaments"
X, Y, Z = "_CoordinateX", "_CoordinateY", "_CoordinateZ"
_LABELS = (X, Y, Z, "_Width", "_Height", "_Depth", "_EstWidth", "_EstHeight", "_Confidence", "_NumBoxes",
           "_Angle")  # fmt: skip
_FILAMENT = "_filamentid"
FILAMENT_REMEDY = "convert its segments to picks first: pickeropt convert {path} SEGMENTS.star"


def find_cbox(blocks: list[Block]) -> Block | None:
    """The loop of boxes, None where this is no CBOX file."""
    return next((block for block in blocks if block.name == "cryolo" and block.loop and X in block.labels), None)


def read_cbox(text: TextFile, blocks: list[Block], boxes: Block) -> PicksFile:
    """The picks of the loop `boxes`.

    Raises FormatError: a column twice or missing, a row of the wrong width, a value that is no number, a
    box without width or height, boxes at several heights (a tomogram).
    """
    check_labels(text, boxes)
    missing = [label for label in (X, Y, "_Width", "_Height") if label not in boxes.labels]
    if missing:
        remedy = "give the file as crYOLO wrote it"
        raise text.fault(boxes.offset, f"data_cryolo has no column {missing[0]}", remedy)
    corner = np.column_stack([_values(text, boxes, label) for label in (X, Y)])
    sizes = np.column_stack([_sizes(text, boxes, label) for label in ("_Width", "_Height")])
    _check_flat(text, boxes)
    count = len(boxes.rows)
    scored = "_Confidence" in boxes.labels
    picks = Picks(
        coordinates=corner + sizes / 2,
        micrograph_names=(text.path.stem,) if count else (),
        micrograph_index=np.zeros(count, dtype=np.int64),
        figure_of_merit=_values(text, boxes, "_Confidence", True) if scored else np.full(count, np.nan),
    )
    kind = FILAMENTS if _has_filaments(text, blocks, boxes) else CBOX
    return PicksFile(text.path, kind, picks, text.content, boxes.rows, True, box_sizes=sizes)


def _values(text: TextFile, boxes: Block, label: str, optional: bool = False) -> NDArray[np.float64]:
    return numbers(text, column_spans(text, boxes, label), label, optional)


def _sizes(text: TextFile, boxes: Block, label: str) -> NDArray[np.float64]:
    sizes = _values(text, boxes, label)
    wrong = np.flatnonzero(sizes <= 0)
    if len(wrong):
        what = f"{label} is {sizes[wrong[0]]:g}"
        raise text.fault(int(boxes.rows[wrong[0], 0]), what, "mend or delete the row")
    return sizes


def _check_flat(text: TextFile, boxes: Block) -> None:
    if Z not in boxes.labels:
        return
    z = _values(text, boxes, Z, optional=True)
    known = z[~np.isnan(z)]
    if len(known) and known.min() != known.max():
        what = f"{Z} goes from {known.min():g} to {known.max():g}, so this is a tomogram's file"
        raise text.fault(boxes.offset, what, "give picks of a micrograph")


def _has_filaments(text: TextFile, blocks: list[Block], boxes: Block) -> bool:
    if any(block.name == "filament_vertices" and len(block.rows) for block in blocks):
        return True
    if _FILAMENT not in boxes.labels:
        return False
    return any(token != b"<NA>" for token in column(text, column_spans(text, boxes, _FILAMENT)))


def subset_filaments(file: PicksFile, keep: NDArray[np.bool_]) -> bytes:
    """The file less all or none of its segments. Raises FormatError for less some of them."""
    if keep.any() and not keep.all():
        remedy = FILAMENT_REMEDY.format(path=file.path)
        raise FormatError(f"{file.path}: holds filaments, which cannot lose single segments; {remedy}")
    return line_subset(file, keep)


def write_cbox(picks: Picks, box_sizes: NDArray[np.float64]) -> bytes:
    """A CBOX file of one micrograph's picks; box_sizes : (n, 2) px, width and height."""
    head = "\ndata_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n"
    head += "".join(f"{label} #{i}\n" for i, label in enumerate(_LABELS, start=1))
    corner = (picks.coordinates - box_sizes / 2).tolist()
    merits = ("<NA>" if math.isnan(value) else repr(value) for value in picks.figure_of_merit.tolist())
    rows = [
        f"{plain(x)} {plain(y)} <NA> {plain(w)} {plain(h)} <NA> {plain(w)} {plain(h)} {merit} <NA> <NA>\n"
        for (x, y), (w, h), merit in zip(corner, box_sizes.tolist(), merits, strict=True)
    ]
    return (head + "".join(rows) + "\ndata_cryolo_include\n\nloop_\n_slice_index #1\n").encode()
