"""DeepPicker's `autopick_results.pickle`: for each micrograph a list of [x, y, score, micrograph].

x, y are the centre in px of the micrograph, rows as stored. All candidates are in it, whatever threshold
DeepPicker was given. Nothing of the file is run. Source:
DeepPicker-python, autoPick.py and autoPicker.py.

A pruned file is a pickle of protocol 2 of the same lists less the rows: NumPy's scalars become Python's
numbers of the same value, so that any NumPy, or none, reads them. Kept whole, it is the input's bytes.

The pickle is read by `pickle.Unpickler`, and nothing of the file's choosing is ever called. A pickle of picks holds
lists, tuples, strings, numbers, None, and NumPy's scalars, which pickle as
`numpy.core.multiarray.scalar(numpy.dtype('f4', 0, 1), b'....')`; Python 3 writes bytes for Python 2 as
`_codecs.encode('....', 'latin1')`. Functions of this file stand in for these three names, every other name is
refused, and no function of NumPy or of `codecs` is called in their place.

`Unpickler` alone lets a short file take much memory (a far place in the memo, a text said to be long), so
the opcodes are checked first, as `pickletools` knows them: only those of plain values, no gaps in the memo,
numbers of 64 bits, containers and texts as many as a file of this size can hold.
"""

import io
import math
import pickle
import pickletools
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.io.picks_file import PicksFile, check_keep
from pickeropt.records import Picks

_KIND = re.compile(r"b1|[iu][1248]|f[248]")
_MOST_MARKS = 64
_BITS = 64
_MADE = {
    *("EMPTY_LIST", "LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE"),
}
"""Opcodes that make an object which takes more memory than its bytes in the file."""
_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}
_GET = {"GET", "BINGET", "LONG_BINGET"}
_OTHER = """PROTO FRAME NONE NEWTRUE NEWFALSE MARK APPEND APPENDS MEMOIZE BUILD STOP
INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8"""
_ALLOWED = {*_MADE, *_PUT, *_GET, *_OTHER.split()}
_CODES = {code.code.encode("latin-1"): code for code in pickletools.opcodes}
_FAULTS = (
    *(pickle.UnpicklingError, ValueError, TypeError, AttributeError),
    *(EOFError, IndexError, KeyError, OverflowError),
)
"""What `pickletools` and `Unpickler` raise for damaged files."""


def read_plain_pickle(path: Path, content: bytes) -> Any:
    """The value that a pickle of protocol 0 to 5 holds; strings of Python 2 are taken as latin-1.

    Raises FormatError: an opcode or a global that is not allowed, a file that ends too early or goes on
    after its end, more containers than its size can hold.
    """
    check = _Check(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in the strings of protocol 0
        try:
            check.run()
            return _Unpickler(io.BytesIO(content), encoding="latin1").load()
        except _FAULTS as error:
            where = f"{path}" if check.ended else f"{path}, byte {check.place}"
            what = f"{where}: {str(error)[:200]}"
    raise FormatError(f"{what}; nothing of it was run; give autopick_results.pickle as DeepPicker wrote it")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _stand_in(module, name)


@dataclass
class _Check:
    """A walk through the opcodes that makes no value; it follows the depth of the stack and the memo's size.

    place : of the current opcode, bytes from the start
    ended : whether it came to the end and found no fault
    made : objects that took more memory than their bytes in the file
    """

    content: bytes
    place: int = 0
    ended: bool = False
    depth: int = 0
    made: int = 0
    memo: int = 0
    marks: list[int] = field(default_factory=list)

    def run(self) -> None:
        """Raises UnpicklingError or ValueError at the first opcode that is not allowed."""
        stream = io.BytesIO(self.content)
        name = ""
        while name != "STOP":
            self.place = stream.tell()
            letter = stream.read(1)
            if not letter:
                raise pickle.UnpicklingError("the pickle ends too early")
            code = _CODES.get(letter)
            name = code.name if code else ""
            if code is None or name not in _ALLOWED:
                what = f"{name} has no place" if code else f"{letter!r} is no opcode"
                raise pickle.UnpicklingError(f"{what} in a pickle of picks")
            if name == "STRING":  # not by pickletools, which takes ASCII only; NumPy's bytes are such strings
                argument: Any = stream.readline()
            else:
                argument = None if code.arg is None else code.arg.reader(stream)
            self._stack(code)
            self._argument(name, argument)
        rest = len(self.content) - stream.tell()
        if rest:
            raise pickle.UnpicklingError(f"{rest} bytes follow the end of the pickle")
        self.ended = True

    def _stack(self, code: pickletools.OpcodeInfo) -> None:
        """The depth after an opcode."""
        if code.name == "MARK":
            if len(self.marks) == _MOST_MARKS:
                raise pickle.UnpicklingError("deeper nested than picks are")
            self.marks.append(self.depth)
            return
        if code.name == "STOP" and (self.depth != 1 or self.marks):
            raise pickle.UnpicklingError(f"{self.depth} values where one is expected")
        taken = len(code.stack_before)
        if pickletools.markobject in code.stack_before:
            if not self.marks:
                raise pickle.UnpicklingError("a mark is missing")
            self.depth = self.marks.pop()
            taken = code.stack_before.index(pickletools.markobject)
        if self.depth - taken < (self.marks[-1] if self.marks else 0):
            raise pickle.UnpicklingError("a value is missing")
        self.depth += len(code.stack_after) - taken

    def _argument(self, name: str, argument: Any) -> None:
        """Memory that an opcode asks for, and the name that it wants."""
        if name == "GLOBAL":
            _stand_in(*argument.split(" ", 1))
        elif name == "MEMOIZE":
            self.memo += 1
        elif name in _PUT:
            if not 0 <= argument <= self.memo + 1:
                raise pickle.UnpicklingError(f"the memo skips to {argument}")
            self.memo = max(self.memo, argument + 1)
        elif name in _GET:
            if not 0 <= argument < self.memo:
                raise pickle.UnpicklingError(f"the memo has no entry {argument}")
        elif isinstance(argument, int) and argument.bit_length() > _BITS:
            raise pickle.UnpicklingError(f"a whole number of {argument.bit_length()} bits")
        if name in _MADE or isinstance(argument, str | bytes):
            self.made += 1
            if self.made > len(self.content) // 5 + 1000:  # in pickles of picks one in nine bytes at the most
                raise pickle.UnpicklingError("more values than a pickle of picks of this size has")


@dataclass
class _Dtype:
    """Stands in for a NumPy scalar type; its state sets the byte order."""

    kind: str
    order: str = "="

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("a NumPy type with a state that is not known")
        self.order = order


def _dtype(kind: Any = None, *_: Any) -> _Dtype:
    """Stands in for `numpy.dtype`."""
    if isinstance(kind, str) and _KIND.fullmatch(kind):
        return _Dtype(kind)
    raise _miscalled("numpy.dtype")


def _scalar(dtype: Any = None, raw: Any = None, *_: Any) -> Any:
    """Stands in for `numpy.core.multiarray.scalar`: the Python number of the same value."""
    content = raw.encode("latin-1") if isinstance(raw, str) else raw
    if isinstance(dtype, _Dtype):
        known = np.dtype(f"{dtype.order}{dtype.kind}")
        if isinstance(content, bytes) and len(content) == known.itemsize:
            return np.frombuffer(content, known)[0].item()
    raise _miscalled("numpy.core.multiarray.scalar")


def _encode(text: Any = None, codec: Any = None, *_: Any) -> bytes:
    """Stands in for `_codecs.encode`."""
    if isinstance(text, str) and codec == "latin1":
        return text.encode("latin-1")
    raise _miscalled("_codecs.encode")


def _miscalled(name: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"{name!r} is called with values that are no NumPy scalar")


_STAND_INS = {
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
}


def _stand_in(module: str, name: str) -> Any:
    """What is called for a global. Raises UnpicklingError for every other than the three."""
    if (module, name) not in _STAND_INS:
        wanted = f"{module}.{name}"[:100]
        raise pickle.UnpicklingError(f"it wants {wanted!r}, which picks do not need")
    return _STAND_INS[module, name]


DEEPPICKER = "deeppicker"
_TEXT_STARTS = (b"(lp", b"]q")
"""How a list starts in protocols 0 and 1."""
_BINARY_STARTS = (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")
"""How anything starts from protocol 2 on."""


def is_pickle(content: bytes) -> bool:
    """Whether the bytes start as a pickle of a list does."""
    return content.startswith(_TEXT_STARTS) or content[:2] in _BINARY_STARTS


def read_deeppicker(path: Path, content: bytes) -> PicksFile:
    """The picks of DeepPicker's pickle, in its order.

    Raises FormatError: a pickle that holds anything but lists of [x, y, score, name, ...], a coordinate
    that is no finite number, one list in two places.
    """
    rows = [row for rows in _lists(path, content) for row in rows]
    names: dict[str, int] = {}
    index = [names.setdefault(row[3], len(names)) for row in rows]
    picks = Picks(
        coordinates=np.array([row[:2] for row in rows], dtype=np.float64).reshape(-1, 2),
        micrograph_names=tuple(names),
        micrograph_index=np.array(index, dtype=np.int64),
        figure_of_merit=np.array([row[2] for row in rows], dtype=np.float64),
    )
    spans = np.zeros((len(picks), 2), dtype=np.int64)
    return PicksFile(path, DEEPPICKER, picks, content, spans, names_from_stem=False)


def subset_deeppicker(file: PicksFile, keep: NDArray[np.bool_]) -> bytes:
    """The pickle less the rows where `keep`, (n,) bool, is False; a micrograph without rows stays, empty."""
    check_keep(file, keep)
    if keep.all():
        return file.content
    chosen = iter(keep.tolist())
    lists = [[row for row in rows if next(chosen)] for rows in _lists(file.path, file.content)]
    return pickle.dumps(lists, protocol=2)


def write_deeppicker(picks: Picks) -> bytes:
    """The picks as DeepPicker writes them; NaN where there is no score."""
    lists: list[list[list[Any]]] = [[] for _ in picks.micrograph_names]
    columns = (picks.coordinates, picks.figure_of_merit, picks.micrograph_index)
    for (x, y), score, i in zip(*(column.tolist() for column in columns), strict=True):
        lists[i].append([x, y, score, picks.micrograph_names[i]])
    return pickle.dumps(lists, protocol=2)


def _lists(path: Path, content: bytes) -> list[list[list[Any]]]:
    """The lists of a pickle, checked."""
    lists = read_plain_pickle(path, content)
    if not isinstance(lists, list):
        raise _fault(path, f"holds {_kind(lists)}, not a list of micrographs")
    seen = {id(lists)}
    for i, rows in enumerate(lists):
        if not isinstance(rows, list) or id(rows) in seen:
            raise _fault(path, f"micrograph {i} is {_kind(rows)}, not a list of its own")
        seen.add(id(rows))
        for k, row in enumerate(rows):
            where = f"micrograph {i}, row {k}"
            if not isinstance(row, list) or id(row) in seen:
                raise _fault(path, f"{where} is {_kind(row)}, not a list of its own")
            seen.add(id(row))
            _check_row(path, where, row)
    return lists


def _check_row(path: Path, where: str, row: list[Any]) -> None:
    if len(row) < 4:
        raise _fault(path, f"{where} has {len(row)} values, [x, y, score, micrograph] are expected")
    for value, what in zip(row[:3], ("x", "y", "score"), strict=True):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _fault(path, f"{where}: {what} is {_kind(value)}, not a number")
        if what != "score" and not math.isfinite(value):
            raise _fault(path, f"{where}: {what} is {value}, not a finite number")
    if not isinstance(row[3], str) or not row[3].isprintable() or not row[3]:
        raise _fault(path, f"{where}: the micrograph is {_kind(row[3])}, not a name")
    if not all(value is None or isinstance(value, int | float | str) for value in row[4:]):
        raise _fault(path, f"{where} has values that are no numbers or names")


def _kind(value: Any) -> str:
    name = type(value).__name__.strip("_").lower()
    return f"{value!r:.60}" if isinstance(value, str) else f"a {name}"


def _fault(path: Path, what: str) -> FormatError:
    return FormatError(f"{path}: {what}; give autopick_results.pickle as DeepPicker wrote it")
