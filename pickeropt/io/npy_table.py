"""NumPy files (`.npy`) that hold a table: a one-dimensional structured array, as cryoSPARC's `.cs`.

`numpy.lib.format` reads the header; arrays of Python objects are refused, so that no pickle is ever loaded.
Headers may be longer than the 10,000 characters that `numpy.load` takes (3D classes make them so). The rows
stay the file's own bytes, and a subset is the header with another row count and the rows that stay.

Source: numpy.lib.format, versions 1.0 to 3.0.
"""

import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from pickeropt.errors import FormatError

MAGIC = b"\x93NUMPY"
_READERS = {
    b"\x01\x00": npy_format.read_array_header_1_0,
    b"\x02\x00": npy_format.read_array_header_2_0,
    b"\x03\x00": npy_format.read_array_header_2_0,
}
"""By version; 3.0 is laid out as 2.0, and its UTF-8 only shows in names of fields."""
_MOST_HEADER = 2**19
"""Characters of a header; 500 3D classes need about as many."""
_COUNT = re.compile(rb"'shape': \((\d{1,18})L?,\),? ?\}\s*$")
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
    dtype, start = _read_header(path, content)
    found = _COUNT.search(content, 0, start)
    if found is None or not dtype.names:
        raise _no_table(path, f"{dtype}"[:80])
    _check_types(path, dtype)
    count = int(found[1])
    needed, there = count * dtype.itemsize, len(content) - start
    if needed != there:
        what = f"{path}: {count} rows need {needed} bytes, but {there} follow the header"
        raise FormatError(f"{what}; the file is damaged: {_AGAIN}")
    return NpyTable(path, content, dtype, start, count, found.span(1))


def load_npy_table(path: Path) -> NpyTable:
    """Read a file from disk. Raises FormatError as `read_npy_table`, and where it cannot be opened."""
    try:
        return read_npy_table(path, path.read_bytes())
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _read_header(path: Path, content: bytes) -> tuple[np.dtype[Any], int]:
    """The type of an element, and the first byte after the header."""
    reader = _READERS.get(content[6:8])
    if not content.startswith(MAGIC) or reader is None:
        raise FormatError(f"{path}: no NumPy file of version 1.0 to 3.0; give a .cs file of cryoSPARC")
    stream = io.BytesIO(content)
    npy_format.read_magic(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        try:
            dtype = reader(stream, max_header_size=_MOST_HEADER)[2]
        except (ValueError, TypeError, SyntaxError, KeyError, TokenError) as error:
            if str(error).startswith("EOF: "):
                raise FormatError(f"{path}: ends within its header; the file is damaged: {_AGAIN}") from error
            raise _no_table(path, str(error)[:80]) from error
        except (RecursionError, MemoryError, OverflowError) as error:
            raise _no_table(path, f"{type(error).__name__}") from error
    return dtype, stream.tell()


def _check_types(path: Path, dtype: np.dtype[Any]) -> None:
    """Raises FormatError for a field that holds something else than numbers or text."""
    for name in dtype.names or ():
        base = dtype[name].base
        if base.names:
            raise _no_table(path, f"the field {name} has fields of its own")
        if not _TYPE.fullmatch(base.str):
            what = "Python objects, which would run code" if base.hasobject else f"the type {base.str!r}"
            raise FormatError(f"{path}: field {name} holds {what}; {_AGAIN} from cryoSPARC")
    if not dtype.itemsize:
        raise FormatError(f"{path}: the rows hold nothing; give a .cs file of particles")


def _no_table(path: Path, what: str) -> FormatError:
    return FormatError(f"{path}: is a NumPy file, but no table of named fields: {what}; give a .cs file of particles")
