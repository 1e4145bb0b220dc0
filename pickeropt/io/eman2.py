"""EMAN2's `info/NAME_info.json`: `{"boxes": [[x, y, "type", score?], ...], ...}`, centres in px.

The file may hold much else (CTF, quality, box size). Nothing of it is parsed into objects: the text is
walked through once for its structure, and only the entries of `boxes` are read. A pruned file lacks the
dropped entries and the commas before them; every other byte stays.
"""

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.io.eman import JsonError, entry_spans
from pickeropt.io.picks_file import PicksFile, check_keep
from pickeropt.io.rows import plain, spans_in_turn
from pickeropt.io.text import TextFile
from pickeropt.records import Picks

FORMAT = "eman2-json"
INFO = "_info"
"""EMAN2 appends it to the name of the micrograph."""
_BOXES = b'"boxes"'
_LONGEST_ENTRY = 4096
REMEDY = "give the info file as EMAN2 wrote it"


def is_info_json(content: bytes) -> bool:
    """Whether this may be a JSON file with boxes."""
    return content[:4096].lstrip().startswith(b"{") and _BOXES in content


def read_info_json(text: TextFile) -> PicksFile:
    """The boxes of an info file; the micrograph is named by the file, less `_info`.

    Raises FormatError: no JSON, no list `boxes`, an entry that is not `[x, y, "type"]` with or without a
    score.
    """
    try:
        lists = entry_spans(text.content, _BOXES)
    except JsonError as fault:
        raise text.fault(fault.offset, "this is no JSON", REMEDY) from None
    if len(lists) != 1:
        what = 'the list "boxes" stands there twice' if lists else 'no list "boxes"'
        raise text.fault(0, what, REMEDY)
    spans = lists[0]
    table = np.full((len(spans), 3), np.nan)
    for i, (start, end) in enumerate(spans_in_turn(spans)):
        table[i] = _entry(text, start, end)
    stem = (text.path.stem.removesuffix(INFO),) if len(spans) else ()
    index = np.zeros(len(spans), dtype=np.int64)
    picks = Picks(table[:, :2].copy(), stem, index, table[:, 2].copy())
    return PicksFile(text.path, FORMAT, picks, text.content, spans, names_from_stem=True)


def _entry(text: TextFile, start: int, end: int) -> tuple[float, float, float]:
    """x, y and score of an entry."""
    piece = text.content[start:end]
    short = len(piece) <= _LONGEST_ENTRY and b"{" not in piece and piece.find(b"[", 1) < 0
    try:
        entry = json.loads(piece) if short else None
    except ValueError:  # a whole number of thousands of digits
        entry = None
    if not isinstance(entry, list) or not _is_box(entry):
        shown = piece[:60].decode("utf-8", "replace")
        raise text.fault(start, f'a box is {shown}, not [x, y, "type"]', "mend or delete the entry")
    score = entry[3] if len(entry) > 3 and _is_finite(entry[3]) else math.nan
    return float(entry[0]), float(entry[1]), float(score)


def _is_box(entry: list[Any]) -> bool:
    typed = len(entry) == 2 or (len(entry) > 2 and isinstance(entry[2], str))
    return typed and _is_finite(entry[0]) and _is_finite(entry[1])


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def subset_info_json(file: PicksFile, keep: NDArray[np.bool_]) -> bytes:
    """The file without the entries of the picks where `keep`, (n,) bool, is False, and their commas."""
    check_keep(file, keep)
    if not len(keep):
        return file.content
    spans = file.row_spans
    parts = [file.content[: spans[0, 0]]]
    for i in np.flatnonzero(keep).tolist():
        comma = file.content[spans[i - 1, 1] : spans[i, 0]] if i and len(parts) > 1 else b""
        parts.append(comma + file.content[slice(*spans[i].tolist())])
    return b"".join([*parts, file.content[spans[-1, 1] :]])


def write_info_json(picks: Picks) -> bytes:
    """An info file with the boxes of one micrograph; the fourth value of an entry is its score."""
    merits = ("" if math.isnan(value) else f", {value!r}" for value in picks.figure_of_merit.tolist())
    boxes = [
        f'[{plain(x)}, {plain(y)}, "manual"{merit.replace("inf", "Infinity")}]'
        for (x, y), merit in zip(picks.coordinates.tolist(), merits, strict=True)
    ]
    return ('{\n"boxes": [\n' + ",\n".join(boxes) + "\n]\n}\n").encode()
