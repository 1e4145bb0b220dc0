"""A finished pruning read back from its folder: `summary.json` and, frugally, `scores.csv`."""

import csv
import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError, OutputError
from pickeropt.io.inputs import SUMMARY
from pickeropt.prune.prune_config import SCORES

PIECE = 20_000
"""Rows of the table that are Python objects at once."""
COLUMNS = ("file", "row", "micrograph", "x", "y", "class", "score", "kept")
FILTER = "filter"


@dataclass(frozen=True)
class Place:
    """Where a micrograph was when it was pruned, and its Å/px."""

    path: Path
    pixel_size: float


@dataclass(frozen=True)
class Run:
    """A pruning of n picks.

    summary : `summary.json`
    classes : the model's, `particle` first
    reasons : filters that rejected picks; the first is "", none
    files, micrographs : their names, in order of first mention
    file, micrograph, best, reason : (n,) int32, of each pick, into these
    row : (n,) int32, its place in the file, 0-based
    xy : (n, 2) float32 px, rows as stored; score : (n,) float32; kept : (n,) bool
    places : of the micrographs, by name; empty for a run of a pickeropt that did not note them
    """

    summary: Mapping[str, Any]
    classes: tuple[str, ...]
    reasons: tuple[str, ...]
    files: tuple[str, ...]
    micrographs: tuple[str, ...]
    file: NDArray[np.int32]
    micrograph: NDArray[np.int32]
    best: NDArray[np.int32]
    reason: NDArray[np.int32]
    row: NDArray[np.int32]
    xy: NDArray[np.float32]
    score: NDArray[np.float32]
    kept: NDArray[np.bool_]
    places: Mapping[str, Place]

    def __len__(self) -> int:
        return len(self.score)

    @property
    def threshold(self) -> float:
        return float(self.summary["threshold"])

    @property
    def diameter_angstrom(self) -> float:
        return float(self.summary["diameter_angstrom"])


def read_run(folder: Path) -> Run:
    """A finished run, from its folder.

    Raises OutputError for a folder that is none, FormatError (file, line) for a table that is not as
    `prune` wrote it.
    """
    summary = _read_summary(folder)
    path = folder / SCORES
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _read_table(path, csv.reader(file), summary)
    except FileNotFoundError:
        raise OutputError(f"{folder}: has no {SCORES}; give the folder of a finished pruning") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path}: cannot be read as a table ({error}); prune once more") from error


def _read_summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY
    try:
        content = json.loads(path.read_bytes())
        numbers = [content[name] for name in ("picks", "kept", "threshold", "diameter_angstrom")]
        if not all(isinstance(value, int | float) for value in numbers):
            raise TypeError(f"{numbers} are not all numbers")
        settings, out = content["settings"], content["out"]
        if not (isinstance(settings, dict) and isinstance(out, str)):
            raise TypeError("settings or out is of another kind")
    except FileNotFoundError:
        raise OutputError(f"{folder}: is no finished pruning (no {SUMMARY} in it); give its folder") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: is no summary of a pruning ({error}); prune once more") from error
    return dict(content)


def _places(summary: Mapping[str, Any]) -> dict[str, Place]:
    try:
        return {str(name): Place(Path(path), float(size)) for name, (path, size) in summary["places"].items()}
    except (KeyError, AttributeError, TypeError, ValueError):
        return {}


class _Names(dict[str, int]):
    """Text as numbers, in order of first mention."""

    def __missing__(self, key: str) -> int:
        self[key] = found = len(self)
        return found


def _read_table(path: Path, rows: Iterator[list[str]], summary: Mapping[str, Any]) -> Run:
    header = next(rows, [])
    absent = [name for name in COLUMNS if name not in header]
    if absent:
        raise FormatError(f"{path}: no column {absent[0]!r}; give {SCORES} as prune wrote it")
    classes = _Names((name[2:], i) for i, name in enumerate(n for n in header if n.startswith("p_")))
    files, micrographs, reasons = _Names(), _Names(), _Names({"": 0})
    wanted = [*COLUMNS, *([FILTER] if FILTER in header else [])]
    pick = itemgetter(*(header.index(name) for name in wanted))
    whole = {name: array("i") for name in ("file", "row", "micrograph", "class", "kept", FILTER)}
    real = {name: array("f") for name in ("x", "y", "score")}
    line = 1
    while piece := list(islice(rows, PIECE)):
        try:
            columns = dict(zip(wanted, zip(*map(pick, piece), strict=True), strict=True))
            for name, known in (("file", files), ("micrograph", micrographs), ("class", classes)):
                whole[name].extend(map(known.__getitem__, columns[name]))
            whole[FILTER].extend(map(reasons.__getitem__, columns.get(FILTER, ("",) * len(piece))))
            for name in ("row", "kept"):
                whole[name].extend(map(int, columns[name]))
            for name, values in real.items():
                values.extend(map(float, columns[name]))
        except (IndexError, ValueError) as error:
            place = f"{path}, lines {line + 1} to {line + len(piece)}"
            raise FormatError(f"{place}: a row is not as prune wrote it ({error}); prune once more") from error
        line += len(piece)
    ints = {name: np.frombuffer(values, np.int32) for name, values in whole.items()}
    floats = {name: np.frombuffer(values, np.float32) for name, values in real.items()}
    if not len(floats["score"]):
        raise FormatError(f"{path}: has no rows; prune once more")
    return Run(
        summary,
        tuple(classes),
        tuple(reasons),
        tuple(files),
        tuple(micrographs),
        ints["file"],
        ints["micrograph"],
        ints["class"],
        ints[FILTER],
        ints["row"],
        np.column_stack([floats["x"], floats["y"]]),
        floats["score"],
        ints["kept"] > 0,
        _places(summary),
    )
