"""EMAN's files of boxes: `.box` of EMAN 1 and e2boxer, `info/NAME_info.json` of EMAN2.

A row of `.box` is `x y w h [score ...]`: x and y of the box's corner, px, rows as stored in the MRC file (EMAN 1,
e2boxer, crYOLO and REPIC agree); the pick's centre is x + w/2, y + h/2. crYOLO's older CBOX is the same with two
values after the score.

`info/NAME_info.json` is `{"boxes": [[x, y, "type", score?], ...], ...}` with centres in px. The file may hold much
else (CTF, quality, box size). Nothing of it is parsed into objects: the text is scanned once for its structure, and
only the entries of `boxes` are read. A pruned file lacks the dropped entries and the commas before them; every other
byte stays.
"""

import json
import math
import re
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.io.picks_file import PicksFile, check_keep
from pickeropt.io.text import (
    LONGEST_LINE,
    Spans,
    TextFile,
    first_row,
    is_number,
    line_spans,
    numbers,
    plain,
    row_lines,
    row_tokens,
    spans_in_turn,
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
            f"{line}\t{'nan' if math.isnan(merit) else repr(merit)}" for line, merit in zip(lines, merits, strict=True)
        ]
    return "".join(f"{line}\n" for line in lines).encode()


_BLANKS = re.compile(rb"[ \t\n\r]*")
_SCALAR = re.compile(rb"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|NaN|-?Infinity")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_ESCAPE = re.compile(rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_CLOSES = {ord("]"): ord("["), ord("}"): ord("{")}
_ALLOWED = {
    "value": b"[{sv",
    "value or end": b"[{sv]",
    "key": b"s",
    "key or end": b"s}",
    "colon": b":",
    "comma or end": b",]}",
    "nothing": b"",
}
"""The tokens that may come next: brackets and signs, `s` for a string, `v` for another scalar."""


class JsonError(ValueError):
    """The text is no JSON from this offset on."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"no JSON at byte {offset}")
        self.offset = offset


def entry_spans(content: bytes, key: bytes) -> list[Spans]:
    """For each list called `key` in the outermost object, the (n, 2) spans of its entries.

    key : with its quotes. Several lists: the key stands there several times. Raises JsonError.
    """
    found: list[array[int]] = []
    named = inside = False
    for kind, (start, end), state, depth in _walk(content):
        if depth == 1 and state.startswith("key"):
            named = content[start:end] == key
        elif depth == 1 and state == "value" and named and kind == ord("["):
            inside = True
            found.append(array("q"))
        elif inside and depth == 2 and kind == ord("]"):
            inside = False
        elif inside:
            if depth == 2 and state.startswith("value"):
                found[-1].append(start)
            if (depth == 2 and kind in b"sv") or (depth == 3 and kind in b"]}"):
                found[-1].append(end)
    return [np.array(spans, dtype=np.int64).reshape(-1, 2) for spans in found]


def _walk(content: bytes) -> Iterator[tuple[int, tuple[int, int], str, int]]:
    """Every token: its kind, its span, and the state and number of open brackets before it."""
    open_ = bytearray()
    state = "value"
    at = _skip_blanks(content, 0)
    while at < len(content):
        kind, end = _token(content, at)
        if kind not in _ALLOWED[state]:
            raise JsonError(at)
        yield kind, (at, end), state, len(open_)
        state = _next(kind, state, open_, at)
        at = _skip_blanks(content, end)
    if state != "nothing":
        raise JsonError(at)


def _next(kind: int, state: str, open_: bytearray, at: int) -> str:
    """The state after a token; `open_` holds the brackets that are open."""
    if kind in b"[{":
        open_.append(kind)
        return "value or end" if kind == ord("[") else "key or end"
    if kind == ord(","):
        return "value" if open_[-1:] == b"[" else "key"
    if kind == ord(":"):
        return "value"
    if kind in b"]}":
        if open_[-1] != _CLOSES[kind]:
            raise JsonError(at)
        open_.pop()
    elif state.startswith("key"):
        return "colon"
    return "comma or end" if open_ else "nothing"


def _token(content: bytes, at: int) -> tuple[int, int]:
    """Kind and end of the token at an offset."""
    if content[at] in b"[]{}:,":
        return content[at], at + 1
    if content[at] == ord('"'):
        return ord("s"), _string_end(content, at + 1)
    scalar = _SCALAR.match(content, at)
    if scalar is None:
        raise JsonError(at)
    return ord("v"), scalar.end()


def _string_end(content: bytes, at: int) -> int:
    """After the closing quote of a string whose inside starts at an offset."""
    while True:
        plain = _PLAIN.match(content, at)
        assert plain is not None  # it matches nothing too
        at = plain.end()
        if content[at : at + 1] == b'"':
            return at + 1
        escape = _ESCAPE.match(content, at)
        if escape is None:
            raise JsonError(at)
        at = escape.end()


def _skip_blanks(content: bytes, at: int) -> int:
    blanks = _BLANKS.match(content, at)
    assert blanks is not None  # it matches nothing too
    return blanks.end()


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
