"""P(particle) written into a file of picks, where the next program looks for a score.

RELION STAR     `_rlnAutopickFigureOfMerit`; the picker's own value moves to `_pickeroptPickerFigureOfMerit`
EMAN box        the fifth value of a row, as in crYOLO's older CBOX
CBOX            `_Confidence`
Topaz, CSV, xy  the column of scores

Where the column is not there it is appended. Every other byte stays; but for RELION's, the picker's own
value is then only in `scores.csv`. RELION's Extract keeps figures of merit *above* its
`--minimum_pick_fom`, `prune` those from its threshold on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.io.cbox import find_cbox
from pickeropt.io.delimited import table_layout
from pickeropt.io.picks_file import PicksFile
from pickeropt.io.relion_star import SCORE, X, Y
from pickeropt.io.star import Block, column_spans, find_block, read_blocks
from pickeropt.io.text import Spans, TextFile, first_characters, first_row, line_spans, row_tokens, token_spans, tokens

PICKER_SCORE = "_pickeroptPickerFigureOfMerit"
"""The picker's own score in a RELION STAR file whose figure of merit is P(particle)."""


CONFIDENCE = "_Confidence"
NEWLINE = 10


@dataclass(frozen=True)
class _Edits:
    """m pieces of a file to replace: (m, 2) where, in order and apart, and the bytes to put there."""

    spans: Spans
    texts: Sequence[bytes]


def check_scores_fit(files: Sequence[PicksFile]) -> None:
    """Raises FormatError naming the first file whose format has no place for a score."""
    for file in files:
        if file.format not in _WRITERS:
            kinds = "RELION STAR, EMAN box, CBOX, Topaz, CSV and x y files"
            what = f"{file.path}: a {file.format} file has no place for a score; {kinds} have"
            raise FormatError(f"{what}; leave out --write-score, the scores are in scores.csv")


def with_scores(file: PicksFile, probabilities: NDArray[np.floating]) -> PicksFile:
    """The file with its picks' scores replaced, six decimals; `picks` still has the picker's own.

    probabilities : (n,) from 0 to 1
    Raises FormatError for a format that has no place for them.
    """
    if probabilities.shape != (len(file.picks),):
        raise ValueError(f"{probabilities.shape} probabilities for {len(file.picks)} picks")
    check_scores_fit([file])
    edits = _WRITERS[file.format](file, [b"%.6f" % value for value in probabilities.tolist()])
    return _edited(file, edits)


def _edited(file: PicksFile, edits: _Edits) -> PicksFile:
    """The file after the edits; spans of rows grow with what is put inside them."""
    content = memoryview(file.content)
    parts: list[bytes | memoryview] = []
    done = 0
    for (start, end), text in zip(edits.spans.tolist(), edits.texts, strict=True):
        parts += [content[done:start], text]
        done = end
    parts.append(content[done:])
    lengths = np.array([len(text) for text in edits.texts], dtype=np.int64)
    grown = np.concatenate([[0], np.cumsum(lengths - (edits.spans[:, 1] - edits.spans[:, 0]))])
    starts, ends = file.row_spans.T
    data = np.frombuffer(file.content, dtype=np.uint8)
    values_end = ends - (data[ends - 1] == NEWLINE)  # what is edited there belongs to the row
    before = np.searchsorted(edits.spans[:, 0], starts, side="left")
    until = np.searchsorted(edits.spans[:, 0], values_end, side="right")
    rows = file.row_spans + np.column_stack([grown[before], grown[until]])
    return replace(file, content=b"".join(parts), row_spans=rows)


def _in_star(file: PicksFile, scores: list[bytes]) -> _Edits:
    """The figure of merit, and the picker's own beside it unless it is there already."""
    text = TextFile(file.path, file.content)
    block = find_block(read_blocks(text), X, Y)
    assert block is not None  # read_picks found it
    if SCORE not in block.labels:
        return _appended(text, block, SCORE, scores)
    spans = column_spans(text, block, SCORE)
    replaced = _Edits(spans, _padded(spans, scores))
    if PICKER_SCORE in block.labels:
        return replaced
    own = [file.content[start:end] for start, end in spans.tolist()]
    return _both(replaced, _appended(text, block, PICKER_SCORE, own))


def _padded(spans: Spans, scores: list[bytes]) -> list[bytes]:
    """Each score right-aligned in the room of the value that it replaces, so that columns stay columns."""
    widths = (spans[:, 1] - spans[:, 0]).tolist()
    return [score.rjust(width) for score, width in zip(scores, widths, strict=True)]


def _appended(text: TextFile, block: Block, label: str, values: list[bytes]) -> _Edits:
    """One more column at the end of a loop: a line for its label, a value after the last of each row."""
    lines = line_spans(text.content)
    lines = lines[np.searchsorted(lines[:, 0], block.offset) :]
    first = first_characters(text.content, lines)
    data = np.frombuffer(text.content, dtype=np.uint8)
    tags = lines[np.flatnonzero((first >= 0) & (data[first] == ord("_")))[: len(block.labels)]]
    last = text.content[slice(*tags[-1])]
    number = b" #%d" % (len(block.labels) + 1) if len(last.split()) > 1 else b""
    line = b"\n" + label.encode() + number
    ends = _row_ends(text, block.rows, len(block.labels))
    places = np.concatenate([[tags[-1, 1] - last.endswith(b"\n")], ends])
    return _Edits(np.column_stack([places, places]), [line, *(b" " + value for value in values)])


def _row_ends(text: TextFile, rows: Spans, width: int) -> NDArray[np.int64]:
    """(m,): where the last value of each row ends; a comment may follow."""
    parts = [spans[width - 1 :: width, 1] for _, spans in row_tokens(text, rows, width)]
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


def _both(one: _Edits, other: _Edits) -> _Edits:
    """Two sets of edits as one; of two at the same place the first set's comes first."""
    spans = np.concatenate([one.spans, other.spans])
    texts = [*one.texts, *other.texts]
    order = np.lexsort((spans[:, 1], spans[:, 0]))
    return _Edits(spans[order], [texts[i] for i in order.tolist()])


def _in_box(file: PicksFile, scores: list[bytes]) -> _Edits:
    """The fifth value of each row, after the blanks that stand before the fourth where there is none yet."""
    if not len(file.row_spans):
        return _Edits(np.empty((0, 2), dtype=np.int64), [])
    text = TextFile(file.path, file.content)
    width = len(tokens(file.content[slice(*file.row_spans[0].tolist())]))
    parts = [spans.reshape(-1, width, 2) for _, spans in row_tokens(text, file.row_spans, width)]
    spans = np.concatenate(parts)
    if width > 4:
        return _Edits(spans[:, 4], _padded(spans[:, 4], scores))
    gap = file.content[spans[0, 2, 1] : spans[0, 3, 0]]
    return _Edits(np.column_stack([spans[:, 3, 1]] * 2), [gap + score for score in scores])


def _in_cbox(file: PicksFile, scores: list[bytes]) -> _Edits:
    """crYOLO's confidence."""
    text = TextFile(file.path, file.content)
    block = find_cbox(read_blocks(text))
    assert block is not None  # read_picks found it
    if CONFIDENCE not in block.labels:
        return _appended(text, block, CONFIDENCE, scores)
    spans = column_spans(text, block, CONFIDENCE)
    return _Edits(spans, _padded(spans, scores))


def _in_table(file: PicksFile, scores: list[bytes]) -> _Edits:
    """The cell of the score; a column `score` at the end where there is none."""
    layout = table_layout(file.content)
    assert layout is not None  # read_picks found it
    sign = b" " if layout.delimiter is None else layout.delimiter.encode()
    spans = []
    for start, end in file.row_spans.tolist():
        line = file.content[start:end].rstrip(b"\r\n")
        if layout.score is None:
            spans.append((start + len(line), start + len(line)))
        else:
            cells = token_spans(line).tolist() if layout.delimiter is None else _cell_spans(line, sign)
            spans.append(tuple(start + place for place in cells[layout.score]))
    places = np.array(spans, dtype=np.int64).reshape(-1, 2)
    if layout.score is not None:
        return _Edits(places, scores)
    added = [sign + score for score in scores]
    if not layout.header:
        return _Edits(places, added)
    start, end = first_row(file.content)
    head = start + len(file.content[start:end].rstrip(b"\r\n"))
    return _Edits(np.concatenate([[[head, head]], places]), [sign + b"score", *added])


def _cell_spans(line: bytes, delimiter: bytes) -> list[tuple[int, int]]:
    """Where the cells of a line lie, without the blanks around them; a quoted one may hold the delimiter."""
    spans = []
    start = 0
    while start <= len(line):
        after = start
        if line[start : start + 1] == b'"':
            after = line.index(b'"', start + 1)
            while line[after + 1 : after + 2] == b'"':
                after = line.index(b'"', after + 2)
        end = line.find(delimiter, after)
        end = len(line) if end < 0 else end
        cell = line[start:end]
        left = start + len(cell) - len(cell.lstrip(b" "))
        spans.append((left, left + len(cell.strip(b" "))))
        start = end + 1
    return spans


_WRITERS: dict[str, Callable[[PicksFile, list[bytes]], _Edits]] = {
    "relion-coordinates": _in_star,
    "relion-particles": _in_star,
    "labelled": _in_star,
    "eman-box": _in_box,
    "cbox": _in_cbox,
    "topaz": _in_table,
    "csv": _in_table,
    "xy": _in_table,
}
"""By format, the edits that put (n,) scores into a file."""
