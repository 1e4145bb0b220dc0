"""NumPy files (`.npy`) that hold a table: a one-dimensional structured array, as cryoSPARC's `.cs`.

The header is read by a strict grammar, nothing in it is evaluated, and arrays of Python objects are
refused: no pickle is ever loaded. Headers may be longer than the 10,000 bytes that `numpy.load` takes
(3D classes make them so). A subset is the file's own bytes: the header with another row count, the rows
that stay.

Source: numpy.lib.format, versions 1.0 to 3.0.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError

MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    r"\{'descr': \[(?P<fields>[^\]]*)\], 'fortran_order': (?:False|True), "
    r"'shape': \((?P<count>\d{1,18})L?,\),? ?\}\s*"
)
_FIELD = re.compile(r"\('([^'\\]+)', '([^'\\]*)'(?:, \(([\dL, ]{1,60})\))?\)(?:, ?)?")
_SIZES = re.compile(r"\d{1,9}L?(?:, \d{1,9}L?)*,?")
_TYPE = re.compile(r"[<>|=](?:b1|[iu][1248]|f[248]|c8|c16|[SUV]\d{1,9})")
_AGAIN = "export or copy it again"


@dataclass(frozen=True)
class NpyTable:
    """A table in memory.

    start : first byte of the rows in `content`
    count_span : where the number of rows stands in the header
    """

    path: Path
    content: bytes
    dtype: np.dtype[Any]
    start: int
    count: int
    count_span: tuple[int, int]

    def __len__(self) -> int:
        return self.count

    @property
    def rows(self) -> NDArray[Any]:
        """(n,) structured, a view of `content`."""
        return np.ndarray(self.count, self.dtype, self.content, self.start)

    def has(self, *names: str) -> bool:
        """Whether the table has all the fields."""
        return set(names) <= set(self.dtype.names or ())

    def subset(self, keep: NDArray[np.bool_]) -> bytes:
        """The file less the rows where `keep`, (n,) bool, is False.

        The header keeps its length: a shorter count is made up for by blanks before its newline.
        """
        if keep.shape != (self.count,) or keep.dtype != np.bool_:
            raise ValueError(f"keep is {keep.dtype} {keep.shape}, not bool ({self.count},)")
        if keep.all():
            return self.content
        first, last = self.count_span
        number = str(int(keep.sum())).encode()
        tail = self.content[last : self.start]
        text = tail.rstrip(b"\n")
        blanks = b" " * (last - first - len(number))
        raw = np.ndarray(self.count, f"V{self.dtype.itemsize}", self.content, self.start)
        head = [self.content[:first], number, text, blanks, tail[len(text) :]]
        return b"".join([*head, raw[keep].tobytes()])


def read_npy_table(path: Path, content: bytes) -> NpyTable:
    """Parse the header; the rows stay the bytes they are.

    Raises FormatError: no or an unknown header, another array than a table, Python objects, a field
    twice, fewer or more bytes than the rows need.
    """
    first, start = _header_span(path, content)
    header = content[first:start].decode("latin-1")
    match = _HEADER.fullmatch(header)
    if match is None:
        shown = header.strip()[:80]
        what = f"{path}: is a NumPy file, but no table of named fields: {shown!r}"
        raise FormatError(f"{what}; give a .cs file of particles")
    dtype = _dtype(path, match["fields"])
    count = int(match["count"])
    needed, there = count * dtype.itemsize, len(content) - start
    if needed != there:
        what = f"{path}: {count} rows need {needed} bytes, but {there} follow the header"
        raise FormatError(f"{what}; the file is damaged: {_AGAIN}")
    span = (first + match.start("count"), first + match.end("count"))
    return NpyTable(path, content, dtype, start, count, span)


def load_npy_table(path: Path) -> NpyTable:
    """Read a file from disk. Raises FormatError as `read_npy_table`, and where it cannot be opened."""
    try:
        return read_npy_table(path, path.read_bytes())
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _header_span(path: Path, content: bytes) -> tuple[int, int]:
    """First byte of the header's text, and first byte after it."""
    version = content[6:8]
    if not content.startswith(MAGIC) or version not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise FormatError(f"{path}: no NumPy file of version 1.0 to 3.0; give a .cs file of cryoSPARC")
    first = 10 if version == b"\x01\x00" else 12
    start = first + int.from_bytes(content[8:first], "little")
    if len(content) < max(first, start):
        raise FormatError(f"{path}: ends within its header; the file is damaged: {_AGAIN}")
    return first, start


def _dtype(path: Path, text: str) -> np.dtype[Any]:
    """The row's type from the text between the brackets of `descr`."""
    fields: list[tuple[str, str, tuple[int, ...]]] = []
    position = 0
    while position < len(text):
        match = _FIELD.match(text, position)
        if match is None:
            raise FormatError(f"{path}: field {text[position : position + 60]!r} is not known; {_AGAIN}")
        name, kind, shape = match.groups(default="")
        if shape and not _SIZES.fullmatch(shape):
            raise FormatError(f"{path}: field {name} has the shape ({shape}); {_AGAIN}")
        if not _TYPE.fullmatch(kind):
            what = "Python objects, which would run code" if "O" in kind else f"the type {kind!r}"
            raise FormatError(f"{path}: field {name} holds {what}; {_AGAIN} from cryoSPARC")
        fields.append((name, kind, tuple(int(size) for size in re.findall(r"\d+", shape))))
        position = match.end()
    try:
        dtype = np.dtype(fields)
    except (ValueError, TypeError, OverflowError) as error:
        raise FormatError(f"{path}: the fields cannot be read ({error}); {_AGAIN}") from error
    if not dtype.itemsize:
        raise FormatError(f"{path}: the rows hold nothing; give a .cs file of particles")
    return dtype
