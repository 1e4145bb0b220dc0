"""DeepPicker's `autopick_results.pickle`: for each micrograph a list of [x, y, score, micrograph].

x, y are the centre in px of the micrograph, rows as stored. All candidates are in it, whatever threshold
DeepPicker was given. The file is read by `plain_pickle`, which runs nothing of it. Source:
DeepPicker-python, autoPick.py and autoPicker.py.

A pruned file is a pickle of protocol 2 of the same lists less the rows: NumPy's scalars become Python's
numbers of the same value, so that any NumPy, or none, reads them. Kept whole, it is the input's bytes.
"""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.io.picks_file import PicksFile, check_keep
from pickeropt.io.plain_pickle import read_plain_pickle
from pickeropt.records import Picks

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
