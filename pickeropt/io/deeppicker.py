"""DeepPicker's `autopick_results.pickle`: for each micrograph a list of [x, y, score, micrograph].

x, y are the centre in px of the micrograph, rows as stored. All candidates are in it, whatever threshold
DeepPicker was given. The file is read by `pickle_values`, which runs nothing of it. Source:
DeepPicker-python, autoPick.py and autoPicker.py.

A pruned file is a pickle of protocol 2 of the same lists less the rows: NumPy's scalars become Python's
numbers of the same value, so that any NumPy, or none, reads them. Kept whole, it is the input's bytes.

The only calls that a pickle of picks may ask for, worked out without looking anything up.

NumPy's scalars pickle as `numpy.core.multiarray.scalar(numpy.dtype('f4', 0, 1), b'....')`, and Python 3
writes bytes for Python 2 as `_codecs.encode('....', 'latin1')`. Every other name is refused.

Pickles of plain values, read without `pickle`: nothing that is named in the file is ever looked up.

A small stack machine over the opcodes of `pickletools`, protocols 0 to 5, Python 2's included (its strings
are taken as latin-1). It makes lists, tuples, strings, numbers, None, and NumPy's scalars, which pickle as
calls of `numpy.dtype` and `numpy.core.multiarray.scalar`; those two and `_codecs.encode` are worked out
here, every other global, dictionaries, sets, persistent ids and out-of-band buffers are refused by name.

Memory stays within a small multiple of the file: every value costs bytes of it, the number of containers
and texts is bounded by its size, the memo can have no gaps, and numbers have 64 bits.
"""

import codecs
import io
import math
import pickle
import pickletools
import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.io.picks_file import PicksFile, check_keep
from pickeropt.records import Picks

_SCALARS = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")
_DTYPE = "numpy dtype"
_ENCODE = "_codecs encode"
_KIND = re.compile(r"b1|[iu][1248]|f[248]")


class ValuesError(Exception):
    """What is wrong at the current opcode."""


@dataclass(frozen=True)
class Global:
    """The name of something that a pickle wants, "module name"; never the thing."""

    name: str


@dataclass
class Dtype:
    """A NumPy scalar type; a later opcode sets its byte order, when it is in the memo already."""

    kind: str
    order: str = "="


def wanted(name: str) -> Global:
    """The global, if it is one of the three kinds. Raises ValuesError naming it otherwise."""
    if name not in (*_SCALARS, _DTYPE, _ENCODE):
        raise ValuesError(f"it wants {name.replace(' ', '.')[:100]!r}, which picks do not need")
    return Global(name)


def call(name: str, arguments: tuple[Any, ...]) -> Any:
    """The value of one of the allowed calls."""
    first, second = (*arguments, None, None)[:2]
    if name == _DTYPE and isinstance(first, str) and _KIND.fullmatch(first):
        return Dtype(first)
    if name == _ENCODE and isinstance(first, str) and second == "latin1":
        return first.encode("latin-1")
    if name in _SCALARS and isinstance(first, Dtype):
        raw = second.encode("latin-1") if isinstance(second, str) else second
        dtype = np.dtype(f"{first.order}{first.kind}")
        if isinstance(raw, bytes) and len(raw) == dtype.itemsize:
            return np.frombuffer(raw, dtype)[0].item()
    raise ValuesError(f"{name.replace(' ', '.')!r} is called with values that are no NumPy scalar")


_MOST_MARKS = 64
_BITS = 64
_PUSHED = """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8"""
"""Opcodes whose argument is the value."""
_NUMBERS = ("BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT")
_LAYOUTS = {"uint1": "<B", "uint2": "<H", "int4": "<i", "uint4": "<I", "float8": ">d"}
"""Layout of the arguments that are numbers of so many bytes."""
_STOP = ord(".")
_Act = Callable[["_Machine", Any], None]
_Read = Callable[[bytes, int], tuple[Any, int]]


def read_values(path: Path, content: bytes) -> Any:
    """The value that a pickle holds.

    Raises FormatError, with the place in the file: an opcode or a global that is not allowed, a file that
    ends too early or goes on after its end, more containers than its size can hold.
    """
    machine = _Machine(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in the strings of protocol 0
        try:
            return machine.run()
        except (ValuesError, ValueError, OverflowError, struct.error) as error:
            what = f"{path}, byte {machine.place}: {str(error)[:200]}"
    raise FormatError(f"{what}; nothing of it was run; give autopick_results.pickle as DeepPicker wrote it")


@dataclass
class _Machine:
    content: bytes
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: list[Any] = field(default_factory=list)
    place: int = 0
    made: int = 0

    def run(self) -> Any:
        """The value at STOP."""
        content, at = self.content, 0
        codes = {code.code: code for code in pickletools.opcodes}
        steps = [self._step(letter, codes.get(chr(letter))) for letter in range(256)]
        while at < len(content):
            self.place = at
            letter = content[at]
            if letter == _STOP:
                return self._end(at + 1)
            read, act = steps[letter]
            value, at = read(content, at + 1)
            act(value)
        raise ValuesError("the pickle ends too early")

    def _step(self, letter: int, code: pickletools.OpcodeInfo | None) -> tuple[_Read, Callable[[Any], None]]:
        """What reads the argument of an opcode, and what is done with it."""
        if code is None or code.name not in _ACTS:
            what = f"{bytes([letter])!r} is no opcode" if code is None else f"{code.name} has no place"
            return _nothing, partial(_refuse, f"{what} in a pickle of picks")
        act = self.stack.append if code.name in _NUMBERS else partial(_ACTS[code.name], self)
        if code.arg is None:
            return _nothing, act
        if code.arg.name in _LAYOUTS:
            return partial(_number, struct.Struct(_LAYOUTS[code.arg.name])), act
        reader = _python_2_string if code.name == "STRING" else code.arg.reader
        return partial(_other, io.BytesIO(self.content), reader), act

    def _end(self, at: int) -> Any:
        if at != len(self.content):
            raise ValuesError(f"{len(self.content) - at} bytes follow the end of the pickle")
        if len(self.stack) != 1 or self.marks:
            raise ValuesError(f"{len(self.stack)} values where one is expected")
        return self.stack[0]

    def value(self, value: Any) -> None:
        if isinstance(value, int):
            if value.bit_length() > _BITS:
                raise ValuesError(f"a whole number of {value.bit_length()} bits")
        elif isinstance(value, str | bytes):
            self._count()
        self.stack.append(value)

    def _count(self) -> None:
        """One container or text more. In pickles of picks they are one in nine bytes at the most."""
        self.made += 1
        if self.made > len(self.content) // 5 + 1000:
            raise ValuesError("more values than a pickle of picks of this size has")

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValuesError("a value is missing")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0) or not isinstance(self.stack[-1], kind):
            raise ValuesError(f"no {kind.__name__.lower()} to work on")
        return self.stack[-1]

    def to_mark(self) -> list[Any]:
        """The values since the last mark, which goes."""
        if not self.marks:
            raise ValuesError("a mark is missing")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def push(self, value: Any) -> None:
        self._count()
        self.stack.append(value)

    def mark(self, _: None) -> None:
        if len(self.marks) == _MOST_MARKS:
            raise ValuesError("deeper nested than picks are")
        self.marks.append(len(self.stack))

    def append(self, _: None) -> None:
        value = self.pop()
        self.top(list).append(value)

    def appends(self, _: None) -> None:
        values = self.to_mark()
        self.top(list).extend(values)

    def tuple_of(self, size: int) -> None:
        self.push(tuple([self.pop() for _ in range(size)][::-1]))

    def put(self, index: int) -> None:
        if not 0 <= index <= len(self.memo) + 1:
            raise ValuesError(f"the memo skips to {index}")
        value = self.top(object)
        self.memo += [None] * (index + 1 - len(self.memo))
        self.memo[index] = value

    def get(self, index: int) -> None:
        if not 0 <= index < len(self.memo):
            raise ValuesError(f"the memo has no entry {index}")
        self.stack.append(self.memo[index])

    def named(self, name: str) -> None:
        self.push(wanted(name))

    def stack_named(self, _: None) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValuesError("a global whose name is no text")
        self.named(f"{module} {name}")

    def reduce(self, _: None) -> None:
        arguments = self.pop()
        name = self.top(Global).name
        self.stack.pop()
        if not isinstance(arguments, tuple):
            raise ValuesError(f"{name!r} is called with {type(arguments).__name__}")
        self.push(call(name, arguments))

    def build(self, _: None) -> None:
        state = self.pop()
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise ValuesError("a NumPy type with a state that is not known")
        self.top(Dtype).order = order


def _refuse(what: str, _: None) -> None:
    raise ValuesError(what)


def _nothing(content: bytes, at: int) -> tuple[None, int]:
    return None, at


def _number(layout: struct.Struct, content: bytes, at: int) -> tuple[Any, int]:
    return layout.unpack_from(content, at)[0], at + layout.size


def _python_2_string(stream: io.BytesIO) -> str:
    """A string of protocol 0, which `pickletools` takes only in ASCII: NumPy's bytes are such strings."""
    line = stream.readline().rstrip(b"\n")
    if len(line) < 2 or line[:1] not in b"'\"" or line[:1] != line[-1:]:
        raise ValuesError("a string without its quotes")
    return codecs.escape_decode(line[1:-1])[0].decode("latin-1")


def _other(stream: io.BytesIO, reader: Callable[[Any], Any], content: bytes, at: int) -> tuple[Any, int]:
    """An argument of any length."""
    stream.seek(at)
    return reader(stream), stream.tell()


_ACTS: dict[str, _Act] = {
    **dict.fromkeys(_PUSHED.split(), _Machine.value),
    "PROTO": lambda machine, version: None,
    "FRAME": lambda machine, size: None,
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "MARK": _Machine.mark,
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "LIST": lambda machine, _: machine.push(machine.to_mark()),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.to_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": lambda machine, _: machine.memo.append(machine.top(object)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "GLOBAL": _Machine.named,
    "STACK_GLOBAL": _Machine.stack_named,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
"""What is done at each opcode that is allowed; STOP apart."""

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
    lists = read_values(path, content)
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
