"""cryoSPARC's two kinds of files as bytes: result groups (`.csg`) and tables (`.cs`).

A group says which `.cs` files hold the fields of one output. It is a small YAML file; of its lines only these
matter::

    results:
      blob:
        metafile: '>J12_particles_selected.cs'
        num_items: 4711
        type: particle.blob
      location:
        metafile: '>J12_passthrough_particles_selected.cs'
        num_items: 4711

`>` stands for the folder of the `.csg` itself. Source: files shown in public (cryoDRGN's issue 150,
lab protocols, tests of other programs); no YAML library is needed for them.

A table is a NumPy file (`.npy`) of a one-dimensional structured array.

`numpy.lib.format` reads the header; arrays of Python objects are refused, so that no pickle is ever loaded.
Headers may be longer than the 10,000 characters that `numpy.load` takes (3D classes make them so). The rows
stay the file's own bytes, and a subset is the header with another row count and the rows that stay.

Source: numpy.lib.format, versions 1.0 to 3.0.
"""

import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from pickeropt.errors import FormatError

_RESULTS = re.compile(rb"^results:[ \t]*\r?$", re.MULTILINE)
_METAFILE = re.compile(rb"^[ \t]+metafile:", re.MULTILINE)
_LINE = re.compile(rb"( *)([^\s:#][^:\n]*):[ \t]*([^\r\n]*)")
MOST_BYTES = 2**20


@dataclass(frozen=True)
class GroupEntry:
    """One result: where its rows are and how many.

    count_span : where the number stands in the file; None where it says none
    """

    metafile: str
    count: int | None
    count_span: tuple[int, int] | None


def is_csg(content: bytes) -> bool:
    """Whether the bytes are those of a result group."""
    head = content[:MOST_BYTES]
    return b"\0" not in head and bool(_RESULTS.search(head) and _METAFILE.search(head))


def read_group(path: Path, content: bytes) -> tuple[GroupEntry, ...]:
    """The results in the order of the file.

    Raises FormatError: a result without a metafile, a count that is no number, a metafile outside the
    folder of the group, no result at all, more than 1 MiB.
    """
    if len(content) > MOST_BYTES:
        raise FormatError(f"{path}: {len(content)} bytes are too many for a .csg file; export the group again")
    found = _RESULTS.search(content)
    entries: list[GroupEntry] = []
    values: dict[bytes, tuple[bytes, int]] = {}
    indent = -1
    position = found.end() + 1 if found else len(content)
    for line in content[position:].splitlines(keepends=True):
        match = _LINE.match(line)
        if match is not None:
            if not match[1]:
                break
            indent = len(match[1]) if indent < 0 else indent
            if len(match[1]) <= indent and values:
                entries.append(_entry(path, values))
                values = {}
            values[match[2]] = (match[3].rstrip(), position + match.start(3))
        position += len(line)
    if values:
        entries.append(_entry(path, values))
    if not entries:
        raise FormatError(f"{path}: no results; give a .csg file that cryoSPARC wrote")
    return tuple(entries)


def rewrite_counts(content: bytes, entries: tuple[GroupEntry, ...], counts: Mapping[str, int]) -> bytes:
    """The group with the counts of its metafiles replaced; every other byte stays."""
    parts, done = [], 0
    for entry in entries:
        if entry.count_span is not None:
            parts += [content[done : entry.count_span[0]], str(counts[entry.metafile]).encode()]
            done = entry.count_span[1]
    return b"".join([*parts, content[done:]])


def _entry(path: Path, values: Mapping[bytes, tuple[bytes, int]]) -> GroupEntry:
    if b"metafile" not in values:
        result = next(iter(values)).decode("utf-8", "replace")
        raise FormatError(f"{path}: {result} names no metafile; export the group again")
    name = _metafile(path, values[b"metafile"][0])
    if b"num_items" not in values:
        return GroupEntry(name, None, None)
    text, first = values[b"num_items"]
    if not re.fullmatch(rb"\d{1,18}", text):
        what = f"num_items is {text.decode('utf-8', 'replace')!r}, not a number"
        raise FormatError(f"{path}: {what}; export the group again")
    return GroupEntry(name, int(text), (first, first + len(text)))


def _metafile(path: Path, value: bytes) -> str:
    """The file's path under the folder of the group."""
    text = value.decode("utf-8", "replace")
    if len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]:
        text = text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]
    name = text.removeprefix(">")
    parts = PurePosixPath(name).parts
    plain = name.isprintable() and "\\" not in name and name[:1] not in ("'", '"')
    if not parts or not plain or PurePosixPath(name).is_absolute() or ".." in parts:
        what = f"the metafile {text!r} is no file beside the group"
        raise FormatError(f"{path}: {what}; export the group again, so that its .cs files lie beside it")
    return name


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
