"""STAR files: blocks, their labels, and where their rows lie; and Xmipp's and Scipion's `.pos`.

Sources: Hall, Allen and Brown, J. Chem. Inf. Comput. Sci. 31, 326 (1991), as RELION narrows it: one row a line, `#`
starts a comment only where a token starts. As in STAR, a blank line does not end a loop, though RELION 3.1 reads no
row after one. Nothing is converted; a block holds offsets into the file.

A `.pos` file is a STAR file with `# XMIPP_STAR_1 *` and `data_particles`. `_xcoor` and `_ycoor` are the centre in
whole px, `_cost` is the picker's score, `_enabled` is -1 for what the user switched off: such rows are picks too.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError, OutputError
from pickeropt.io.picks_file import PicksFile
from pickeropt.io.text import HASH, Spans, TextFile, first_characters, line_spans, numbers, row_tokens, tokens
from pickeropt.records import Picks

MOST = 10_000
"""Tables of a file, and columns of a table."""


@dataclass(frozen=True)
class Block:
    """One table of a `data_` block; a block with several loops gives several of these.

    name : what follows `data_`; RELION leaves it empty in old files
    labels : with their underscore, in order; empty for a block without a table
    loop : False for a list of `_label value` lines
    rows : (m, 2) bytes of the loop's rows, or of the list's `_label value` lines
    offset : first byte of the line that opens it
    """

    name: str
    labels: tuple[str, ...]
    loop: bool
    rows: Spans
    offset: int


def read_blocks(text: TextFile) -> list[Block]:
    """All tables, in the order of the file. An empty list: this is no STAR file.

    A line opens a block only when it is one token, so that a row whose first value is
    `data_001.mrc` stays a row. Raises FormatError for a loop before any `data_` line.
    """
    lines = line_spans(text.content)
    first = first_characters(text.content, lines)
    headers = _keywords(text, lines, first, b"data_")
    loops = _keywords(text, lines, first, b"loop_")
    if loops and (not headers or loops[0] < headers[0]):
        offset = int(lines[loops[0], 0])
        raise text.fault(offset, "loop_ stands before any data_ line", "write `data_` above it")
    if len(headers) + len(loops) > MOST:
        raise text.fault(0, f"more than {MOST} tables", "give a file of picks")
    blocks: list[Block] = []
    for header, end in pairwise([*headers, len(lines)]):
        name = tokens(text.content[slice(*lines[header])])[0][len(b"data_") :].decode()
        inner = [line for line in loops if header < line < end]
        bounds = [header, *inner, end]
        for start, stop in pairwise(bounds):
            block = _table(text, name, (lines[start:stop], first[start:stop]), start in inner)
            if block.labels or not inner:
                blocks.append(block)
    return blocks


def _keywords(text: TextFile, lines: Spans, first: NDArray[np.int64], word: bytes) -> list[int]:
    """The lines whose only token is, or for `data_` starts with, the word."""
    data = np.frombuffer(text.content, dtype=np.uint8)
    found = np.flatnonzero(first >= 0)
    for i, letter in enumerate(word):
        found = found[data[np.minimum(first[found] + i, len(data) - 1)] == letter]
    single = []
    for line in found.tolist():
        row = text.content[slice(*lines[line])].split(maxsplit=1)
        alone = len(row) == 1 or row[1].startswith(b"#")
        if alone and (row[0] == word or word == b"data_"):
            single.append(line)
    return single


def _table(text: TextFile, name: str, part: tuple[Spans, NDArray[np.int64]], loop: bool) -> Block:
    """The table in some lines; the first of them is `data_` or `loop_`."""
    lines, first = part
    data = np.frombuffer(text.content, dtype=np.uint8)
    kind = np.where(first >= 0, data[first], HASH)
    filled = np.flatnonzero(kind != HASH)[1:]
    others = np.flatnonzero(kind[filled] != ord("_"))
    tags = filled[: others[0]] if loop and len(others) else filled[kind[filled] == ord("_")]
    if len(tags) > MOST:
        raise text.fault(int(lines[0, 0]), f"more than {MOST} columns", "give a file of picks")
    labels = tuple(tokens(text.content[slice(*lines[line])])[0].decode() for line in tags.tolist())
    rows = filled[len(tags) :] if loop else tags
    return Block(name, labels, loop, lines[rows], int(lines[0, 0]))


def find_block(blocks: Iterable[Block], *labels: str) -> Block | None:
    """The first loop that has all the labels."""
    return next((b for b in blocks if b.loop and all(label in b.labels for label in labels)), None)


def check_labels(text: TextFile, block: Block) -> None:
    """Raises FormatError where a loop has a label twice."""
    label, uses = next(iter(Counter(block.labels).most_common(1)), ("", 0))
    if uses > 1:
        what = f"data_{block.name} has the column {label} twice"
        raise text.fault(block.offset, what, "remove one of the two and its values")


def column_spans(text: TextFile, block: Block, label: str) -> Spans:
    """(m, 2): where the values of one column lie; one value for a list.

    Raises FormatError for rows of the wrong width.
    """
    i = block.labels.index(label)
    rows, i, width = (block.rows, i, len(block.labels)) if block.loop else (block.rows[i : i + 1], 1, 2)
    parts = [spans[i::width] for _, spans in row_tokens(text, rows, width)]
    return np.concatenate(parts) if parts else np.empty((0, 2), dtype=np.int64)


def is_plain_token(value: str) -> bool:
    """Whether a value can stand in a STAR file without quotes.

    STAR reserves what a token starts with: the label's `_`, quotes, `#` of comments, `;` of text fields, `$`
    and brackets. Further on in a token they mean nothing.
    """
    return bool(value) and value[0] not in "_#'\"$;[]" and not any(c.isspace() for c in value)


def check_label_tokens(path: Path, values: Iterable[str]) -> None:
    """Raises OutputError for a value that a file of labels cannot hold.

    Such files have no quotes, and pandas and starfile, which users read them with, take `#` in the middle of
    a token for a comment, against STAR's rule.
    """
    for value in values:
        if not is_plain_token(value) or "#" in value:
            what = f"{path}: {value!r} cannot stand in a STAR file"
            raise OutputError(f"{what}; remove blanks, #, and what STAR reserves at the start")


def star_token(value: str) -> bytes:
    """A value as a token, quoted where it must be. Raises FormatError for one that no file can hold."""
    if is_plain_token(value):
        return value.encode()
    quote = next((q for q in "\"'" if q not in value), None)
    if quote is None or "\n" in value or "\r" in value or not value:
        raise FormatError(f"{value!r} cannot stand in a STAR file; choose another name")
    return f"{quote}{value}{quote}".encode()


def relion_loop(head: str, columns: Mapping[str, Sequence[str]]) -> bytes:
    """A file of one loop in the layout of RELION's own files, columns of tokens by label.

    starfile cannot write it: RELION ends each line and the table with a blank, and files that go back to it
    keep that byte for byte; scores keep all their digits. head : the lines before `loop_`
    """
    labels = "".join(f"{label} #{i} \n" for i, label in enumerate(columns, start=1))
    rows = "".join(" ".join(row) + " \n" for row in zip(*columns.values(), strict=True))
    return f"{head}loop_ \n{labels}{rows} \n".encode()


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
    """A `.pos` file of one micrograph's picks; coordinates are rounded to whole px, a missing score is 0.

    Not by starfile, which numbers the columns and cannot leave a value on a line of its own.
    """
    head = "# XMIPP_STAR_1 * \n# \ndata_header\nloop_\n _pickingMicrographState\nAuto\ndata_particles\nloop_\n"
    head += "".join(f" {label}\n" for label in _LABELS)
    merits = (0.0 if math.isnan(value) else value for value in picks.figure_of_merit.tolist())
    whole = np.rint(picks.coordinates).astype(np.int64).tolist()
    rows = [f" {i} 1 {x} {y} {m!r}\n" for i, ((x, y), m) in enumerate(zip(whole, merits, strict=True), start=1)]
    return (head + "".join(rows)).encode()
