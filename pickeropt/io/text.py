"""Text files as bytes: reading, lines, tokens, and messages that name the line.

Files of picks stay the bytes that they are; only offsets into them are kept. Large files are scanned in pieces of a
few MB, so that a million rows never become a million Python objects at once.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError

Spans = NDArray[np.int64]
"""(n, 2) first byte and the byte after the last one."""

PIECE = 8 * 2**20
HASH = ord("#")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LONE_CR = re.compile(rb"\r(?!\n)")
_BLANK: NDArray[np.bool_] = np.zeros(256, dtype=np.bool_)
_BLANK[list(b" \t\n\v\f")] = True
_BLANKS = _BLANK.tobytes()
_INDENT = 64
_NOT_BLANK = re.compile(rb"[^ \t\n\v\f]")
_QUOTED = re.compile(rb"(?<!\S)(?:'[^\n]*?'|\"[^\n]*?\")(?!\S)")


@dataclass(frozen=True)
class TextFile:
    """A text file in memory, byte for byte."""

    path: Path
    content: bytes

    def fault(self, offset: int, what: str, remedy: str) -> FormatError:
        """The error for a fault at a byte offset; names the file and the line (1-based)."""
        line = self.content.count(b"\n", 0, offset) + 1
        return FormatError(f"{self.path}, line {line}: {what}; {remedy}")


def read_text(path: Path, content: bytes | None = None) -> TextFile:
    """The file, checked to be text that RELION can read too.

    content : of the file, where it was read before
    Raises FormatError as `read_content` does, and for what is binary, not UTF-8, has a byte
    order mark or CR line ends.
    """
    text = TextFile(path, read_content(path) if content is None else content)
    check_text(text)
    return text


def read_start(path: Path, most: int = -1) -> bytes:
    """The first bytes of a file, or all. Raises FormatError where it cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}); check the path") from None


def read_content(path: Path) -> bytes:
    """The bytes of a file. Raises FormatError: missing, a folder, unreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FormatError.missing(path) from None
    except IsADirectoryError:
        raise FormatError(f"{path}: is a folder; name the file inside it") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def check_text(text: TextFile, spreadsheet: bool = False) -> None:
    """Raises FormatError for what is binary, not UTF-8, has a byte order mark or CR line ends.

    spreadsheet : a byte order mark and CR+LF are well, as spreadsheets write them
    """
    content = text.content
    nul = content.find(b"\0")
    if nul >= 0:
        raise text.fault(nul, "a NUL byte, so this is a binary file", "give a text file of coordinates")
    if not spreadsheet and content.startswith(BYTE_ORDER_MARK):
        remedy = f"remove it: sed -i '1s/^\\xEF\\xBB\\xBF//' {text.path}"
        raise text.fault(0, "the file starts with a byte order mark", remedy)
    cr = _LONE_CR.search(content) if spreadsheet else re.search(b"\r", content)
    if cr:
        windows = content[cr.end() : cr.end() + 1] == b"\n"
        remedy = f"sed -i 's/\\r$//' {text.path}" if windows else f"sed -i 's/\\r/\\n/g' {text.path}"
        kind = "CR+LF" if windows else "CR"
        raise text.fault(cr.start(), f"{kind} line ends, which RELION refuses", f"convert them: {remedy}")
    if not content.isascii():
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            value = content[error.start : error.start + 1]
            remedy = f"convert the file to UTF-8: iconv -f latin1 -t utf-8 {text.path}"
            raise text.fault(error.start, f"byte {value!r} is not UTF-8", remedy) from None


def line_spans(content: bytes) -> Spans:
    """(n, 2): start and end of every line, its newline included."""
    data = np.frombuffer(content, dtype=np.uint8)
    found = [np.flatnonzero(data[i : i + PIECE] == 10) + i + 1 for i in range(0, len(data), PIECE)]
    ends = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
    if len(data) and not content.endswith(b"\n"):
        ends = np.append(ends, len(data))
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    return np.column_stack([starts, ends]).astype(np.int64, copy=False)


def first_characters(content: bytes, lines: Spans) -> NDArray[np.int64]:
    """(n,): offset of each line's first character that is not blank; -1 for blank lines."""
    data = np.frombuffer(content, dtype=np.uint8)
    first = lines[:, 0].copy()
    ends = lines[:, 1]
    todo = np.arange(len(first))
    for _ in range(_INDENT):
        todo = todo[_BLANK[data[first[todo]]]]
        first[todo] += 1
        ended = first[todo] == ends[todo]
        first[todo[ended]] = -1
        todo = todo[~ended]
    for line in todo.tolist():  # few: each has so many blanks
        found = _NOT_BLANK.search(content, first[line], ends[line])
        first[line] = found.start() if found else -1
    return first


def row_lines(content: bytes, lines: Spans) -> Spans:
    """The lines that are neither blank nor a comment."""
    first = first_characters(content, lines)
    data = np.frombuffer(content, dtype=np.uint8)
    filled = first >= 0
    filled[filled] = data[first[filled]] != HASH
    return lines[filled]


def first_row(content: bytes) -> tuple[int, int]:
    """Start and end of the first line that is neither blank nor a comment; two equal ones where none is."""
    start = len(BYTE_ORDER_MARK) * content.startswith(BYTE_ORDER_MARK)
    while start < len(content):
        end = content.find(b"\n", start) + 1 or len(content)
        line = content[start:end].strip()
        if line and not line.startswith(b"#"):
            return start, end
        start = end
    return start, start


def tokens(line: bytes) -> list[bytes]:
    """The tokens of one line, quotes removed, up to a token that starts with `#`."""
    spans = token_spans(line).tolist()
    comment = next((i for i, (start, _) in enumerate(spans) if line[start] == HASH), None)
    return [unquote(line[start:end]) for start, end in spans[:comment]]


def token_spans(piece: bytes) -> Spans:
    """(m, 2): where the tokens of whole lines lie; a quoted one may hold blanks.

    A quote counts only where a token starts, and closes before a blank, as STAR has it.
    """
    blank = np.frombuffer(piece.translate(_BLANKS), dtype=np.bool_)
    if b"'" in piece or b'"' in piece:
        blank = blank.copy()
        for match in _QUOTED.finditer(piece):
            blank[match.start() : match.end()] = False
    edges = np.flatnonzero(np.diff(blank, prepend=True, append=True))
    return edges.reshape(-1, 2).astype(np.int64, copy=False)


def unquote(token: bytes) -> bytes:
    """The token without the quotes around it."""
    if len(token) > 1 and token[0] in b"'\"" and token[0] == token[-1]:
        return token[1:-1]
    return token


def row_tokens(text: TextFile, rows: Spans, width: int) -> Iterator[tuple[Spans, Spans]]:
    """Pieces of rows: their line spans (m, 2) and the spans of their tokens (m * width, 2).

    Raises FormatError for a row that has not `width` tokens.
    """
    position = 0
    while position < len(rows):
        base = int(rows[position, 0])
        stop = max(position + 1, int(np.searchsorted(rows[:, 1], base + PIECE)))
        part = rows[position:stop]
        piece = text.content[base : part[-1, 1]]
        found = token_spans(piece)
        first = np.searchsorted(found[:, 0], part[:, 0] - base)
        last = np.searchsorted(found[:, 0], part[:, 1] - base)
        starts = np.frombuffer(piece, dtype=np.uint8)[found[:, 0]]
        comments = np.append(np.flatnonzero(starts == HASH), len(found))
        last = np.minimum(last, comments[np.searchsorted(comments, first)])
        wrong = np.flatnonzero(last - first != width)
        if len(wrong):
            row = wrong[0]
            what = f"{last[row] - first[row]} values where {width} are expected"
            raise text.fault(int(part[row, 0]), what, "mend or delete the row")
        chosen = first[:, None] + np.arange(width)
        yield part, found[chosen.ravel()] + base
        position = stop


def column(text: TextFile, spans: Spans) -> list[bytes]:
    """The tokens at the spans, without quotes."""
    content = text.content
    found = [content[start:end] for start, end in spans.tolist()]
    first = np.frombuffer(content, dtype=np.uint8)[spans[:, 0]]
    for row in np.flatnonzero((first == ord("'")) | (first == ord('"'))).tolist():
        found[row] = unquote(found[row])
    return found


def numbers(text: TextFile, spans: Spans, label: str, optional: bool = False) -> NDArray[np.float64]:
    """(n,) float64 of the tokens at the spans.

    optional : NaN, infinity and `<NA>` (NaN) are values too
    Raises FormatError naming the first token that is no number, or is not finite.
    """
    values = _plain_numbers(text.content, spans)
    if values is None or not (optional or np.isfinite(values).all()):
        found = column(text, spans)
        if optional:
            found = [b"nan" if token == b"<NA>" else token for token in found]
        for row, token in enumerate(found):
            if not is_number(token, optional):
                what = f"{label} is {token.decode()!r}, not {'a' if optional else 'a finite'} number"
                raise text.fault(int(spans[row, 0]), what, "mend or delete the row")
        values = np.array([float(token) for token in found], dtype=np.float64)
    return values


def _plain_numbers(content: bytes, spans: Spans) -> NDArray[np.float64] | None:
    """The fast way, for short tokens without quotes; None where it does not go."""
    width = int((spans[:, 1] - spans[:, 0]).max(initial=0))
    if not 0 < width <= 32:
        return None
    at = spans[:, :1] + np.arange(width)
    letters = np.frombuffer(content, dtype=np.uint8)[np.minimum(at, len(content) - 1)]
    letters[at >= spans[:, 1:]] = 0
    if (letters == ord("_")).any():
        return None
    try:
        values: NDArray[np.float64] = letters.view(f"S{width}").ravel().astype(np.float64)
    except ValueError:
        return None
    return values


def is_number(token: bytes, optional: bool) -> bool:
    """Whether `numbers` takes the token."""
    try:
        value = float(token)
    except ValueError:
        return False
    return b"_" not in token and (optional or math.isfinite(value))


LONGEST_LINE = 2**16
"""Bytes; no row of picks is longer where lines become Python objects."""


def spans_in_turn(spans: Spans) -> Iterator[tuple[int, int]]:
    """The spans as Python numbers, some thousand at once."""
    for first in range(0, len(spans), 10_000):
        yield from map(tuple, spans[first : first + 10_000].tolist())


def plain(value: float) -> str:
    """A coordinate with at most four decimals, whole numbers without."""
    text = f"{value:.4f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
