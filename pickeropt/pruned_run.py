"""A pruned run: the folder that `pickeropt prune` leaves, with its table of scores and its summary.

`scores.csv` has a row a pick and holds no number of its format, as other programs read it: that number is
`format` in `summary.json`. Format 0 is that of summaries without the number, from before it was written.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pickeropt.errors import FormatError, OutputError
from pickeropt.io.delimited import PIECE, CsvTable, csv_pieces
from pickeropt.io.inputs import SUMMARY

KEPT, REJECTED, SCORES = "kept", "rejected", "scores.csv"
REPORT, SHEET, OVERLAYS = "report.html", "contact_sheet.png", "overlays"
"""What the report of a pruning adds."""
OWN = frozenset({KEPT, REJECTED, SCORES, SUMMARY, REPORT, SHEET, OVERLAYS})
"""What a pruning replaces in its folder; all else in there is the user's."""
EVALUATION = ("evaluation.json", "pr_curve.png")
"""What `pickeropt evaluate` leaves beside the scores."""

FORMAT = 1
"""Of the folder; a reader refuses a larger number."""
COLUMNS = ("file", "row", "micrograph", "x", "y", "figure_of_merit", "class", "score")
"""The first columns of the table; a column `p_NAME` for each class follows, and `kept` is the last."""
PROBABILITY, FILTER = "p_", "filter"
PROBABILITIES = "probabilities"
"""What asks `read_scores` for the columns of all classes."""
NUMBERS = ("picks", "kept", "threshold", "diameter_angstrom")
KINDS = {"settings": dict, "out": str, "warnings": list, "notes": list, "files": list, "lists": list, "inputs": list}

Indices = NDArray[np.int32]


@dataclass(frozen=True)
class ScoresTable:
    """The scores of n picks, by row, in the order of the files.

    class_names : the model's, `particle` first
    files, micrographs : their names, in order of first mention
    reasons : the filters that reject picks; the first is "", no filter
    columns : what was read, by column: `file`, `micrograph`, `class` and `filter` (n,) int32 into the names,
        `row` (n,) int32, 0-based among the picks of the file, `x` and `y` (n,) px, rows as stored,
        `figure_of_merit` (n,) the picker's score, NaN where there is none, `score` (n,) P(particle),
        `probabilities` (n, k), `kept` (n,) bool
    measures : what filters measured, (n,) each, in a table that is to be written
    """

    class_names: tuple[str, ...]
    files: tuple[str, ...]
    micrographs: tuple[str, ...]
    reasons: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]
    measures: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, column: str) -> NDArray[Any]:
        return self.columns[column]

    @property
    def coordinates(self) -> NDArray[Any]:
        """(n, 2) x and y, px."""
        return np.column_stack([self.columns["x"], self.columns["y"]])


@dataclass(frozen=True)
class PrunedRun:
    """A finished pruning.

    summary : the content of `summary.json`
    """

    folder: Path
    summary: Mapping[str, Any]

    def scores(self, columns: Sequence[str] = (*COLUMNS, FILTER, "kept"), dtype: DTypeLike = np.float64) -> ScoresTable:
        """The table, as `read_scores` reads it."""
        return read_scores(self.folder / SCORES, columns, dtype)

    @property
    def kept_files(self) -> tuple[Path, ...]:
        """The files of the kept picks, in the formats of the input."""
        return self._files(KEPT)

    @property
    def rejected_files(self) -> tuple[Path, ...]:
        """The files of the rejected picks."""
        return self._files(REJECTED)

    def _files(self, side: str) -> tuple[Path, ...]:
        return tuple(self.folder / side / str(entry["name"]) for entry in self.summary.get("files", ()))


def open_run(folder: Path) -> PrunedRun:
    """The run of a folder. Raises as `read_summary` does, and OutputError where the table is gone."""
    summary = read_summary(folder)
    if not (folder / SCORES).is_file():
        raise OutputError(f"{folder}: has no {SCORES}; give the folder of a finished pruning")
    return PrunedRun(folder, summary)


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a pruning, with values of the right kinds.

    Raises OutputError for a folder that has none, FormatError for one of a later format.
    """
    path = folder / SUMMARY
    try:
        content = json.loads(path.read_bytes())
        version = content.get("format", 0)
        if not _is_number(version) or version < 0:
            raise TypeError(f"format {version!r} is no number")
        if version > FORMAT:
            what = f"format {version} is of a later pickeropt; this one reads formats up to {FORMAT}"
            raise FormatError(f"{path}: {what}: update pickeropt, or prune once more")
        for name in NUMBERS:
            if not _is_number(content[name]):
                raise TypeError(f"{name} {content[name]!r} is no number")
        for name, kind in KINDS.items():
            if not isinstance(content.get(name, kind()), kind) or (kind in (dict, str) and name not in content):
                raise TypeError(f"{name} is missing or no {kind.__name__}")
    except FileNotFoundError:
        raise OutputError(f"{folder}: is no finished pruning (no {SUMMARY} in it); give its folder") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"cannot be read, it is no summary of a pruning ({error})"
        raise OutputError(f"{path}: {what}; prune once more") from error
    return dict(content)


def write_summary(folder: Path, content: Mapping[str, Any]) -> None:
    """`summary.json` with the number of its format. Paths become text; numbers must be finite."""
    folder.mkdir(parents=True, exist_ok=True)
    numbered = {"format": FORMAT, **{name: value for name, value in content.items() if name != "format"}}
    text = json.dumps(numbered, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    (folder / SUMMARY).write_bytes(f"{text}\n".encode())


def diameter_px(scores_csv: Path) -> float | None:
    """Particle diameter, px of the micrograph, by the summary beside a table of scores.

    None where there is none, or where the micrographs differ in pixel size.
    """
    try:
        summary = read_summary(scores_csv.parent)
        (pixel_size,) = summary["pixel_sizes"]
        return float(summary["diameter_angstrom"]) / float(pixel_size)
    except (OutputError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None


def former_evaluation(stays: Sequence[str]) -> tuple[str, ...]:
    """A warning where an evaluation is among what stays in the folder: it is of the former run."""
    found = [name for name in EVALUATION if name in stays]
    if not found:
        return ()
    text = f"{' and '.join(found)} in the folder {'are' if len(found) > 1 else 'is'} of the former run"
    return (f"{text}; `pickeropt evaluate` measures this one",)


def read_scores(path: Path, columns: Sequence[str] = COLUMNS, dtype: DTypeLike = np.float64) -> ScoresTable:
    """The named columns of a table; `filter` is all "" where the table has none.

    columns : of COLUMNS, `filter`, `probabilities` and `kept`
    dtype : of the numbers that are no integers
    Raises FormatError as `score_pieces` does.
    """
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in columns}
    for piece in score_pieces(path, columns, dtype):
        for name in columns:
            parts[name].append(piece[name])
        last = piece
    return ScoresTable(
        last.class_names,
        last.files,
        last.micrographs,
        last.reasons,
        {name: np.concatenate(parts.pop(name)) for name in columns},
    )


def score_pieces(path: Path, columns: Sequence[str], dtype: DTypeLike = np.float64) -> Iterator[ScoresTable]:
    """The same, some thousand rows at a time: memory does not grow with the table.

    The names of files, micrographs and reasons grow from piece to piece; the indices stay valid.
    Raises FormatError (file, line, value) for a missing column, a number that is none, a score outside 0 to
    1, a `kept` other than 0 and 1, an unknown class, no rows, and a table whose rows are fewer or more than
    the summary beside it counts.
    """
    required = [name for name in columns if name not in (FILTER, PROBABILITIES)]
    prefix = PROBABILITY if {"class", PROBABILITIES} & {*columns} else None
    names: dict[str, dict[str, int]] = {"file": {}, "micrograph": {}, FILTER: {"": 0}}
    count = 0
    for text in csv_pieces(path, required, (FILTER,) if FILTER in columns else (), prefix):
        classes = tuple(name[len(PROBABILITY) :] for name in text.columns if name.startswith(PROBABILITY))
        count += len(text)
        found = {name: _column(text, name, classes, names, dtype) for name in columns}
        files, micrographs, reasons = (tuple(those) for those in names.values())
        yield ScoresTable(classes, files, micrographs, reasons, found)
    _check_count(path, count)


def _column(
    text: CsvTable, name: str, classes: Sequence[str], names: Mapping[str, dict[str, int]], dtype: DTypeLike
) -> NDArray[Any]:
    if name == PROBABILITIES:
        values = [text.numbers(PROBABILITY + each) for each in classes]
        return np.array(values, dtype).reshape(len(classes), len(text)).T
    if name in names:
        known = names[name]
        cells = text.columns.get(name, [""] * len(text))
        return np.array([known.setdefault(cell, len(known)) for cell in cells], dtype=np.int32)
    if name in ("class", "kept"):
        places = {"0": 0, "1": 1} if name == "kept" else {each: i for i, each in enumerate(classes)}
        found = _places(text, name, places)
        return found > 0 if name == "kept" else found
    numbers = text.numbers(name, empty_is_nan=name == "figure_of_merit")
    if name == "score" and (outside := (numbers < 0) | (numbers > 1)).any():
        raise text.fault(int(np.argmax(outside)), name, "is outside 0 to 1; it must be P(particle)")
    return numbers.astype(np.int32 if name == "row" else dtype)


def _places(text: CsvTable, name: str, places: Mapping[str, int]) -> Indices:
    cells = text.columns[name]
    try:
        return np.array([places[cell] for cell in map(str.strip, cells)], dtype=np.int32)
    except KeyError:
        row = next(row for row, cell in enumerate(cells) if cell.strip() not in places)
        what = "is neither 1 nor 0" if name == "kept" else f"is none of {', '.join(places)}"
        raise text.fault(row, name, f"{what}; prune once more") from None


def _check_count(path: Path, count: int) -> None:
    """Hold the number of rows against the summary, where one is beside the table."""
    try:
        picks = read_summary(path.parent)["picks"]
    except OutputError:
        picks = None
    if not count and picks != 0:
        raise FormatError(f"{path}: has no rows; run `pickeropt prune` on a file that has picks")
    if picks is not None and count != picks:
        what = f"has {count} rows, but {SUMMARY} beside it counts {picks} picks"
        raise FormatError(f"{path}: {what}; it was cut or changed: prune once more")


def write_scores(path: Path, table: ScoresTable) -> None:
    """Write a table with all columns; `filter` where it is among them. Probabilities have 6 decimals."""
    header = [*COLUMNS, *(PROBABILITY + name for name in table.class_names), *table.measures]
    header += [*([FILTER] if FILTER in table.columns else []), "kept"]
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(map(_cell, header)) + "\n")
        for first in range(0, len(table), PIECE):
            file.write(_lines(table, slice(first, first + PIECE)))


def _lines(table: ScoresTable, rows: slice) -> str:
    columns = {name: values[rows] for name, values in table.columns.items()}
    files, micrographs, classes = (
        [_cell(name) for name in names] for names in (table.files, table.micrographs, table.class_names)
    )
    cells = [
        [files[i] for i in columns["file"].tolist()],
        columns["row"].tolist(),
        [micrographs[i] for i in columns["micrograph"].tolist()],
        columns["x"].tolist(),
        columns["y"].tolist(),
        [repr(value) if math.isfinite(value) else "" for value in columns["figure_of_merit"].tolist()],
        [classes[i] for i in columns["class"].tolist()],
        columns["score"].tolist(),
        *columns[PROBABILITIES].T.tolist(),
        *(values[rows].tolist() for values in table.measures.values()),
        *([[table.reasons[i] for i in columns[FILTER].tolist()]] if FILTER in columns else []),
        columns["kept"].tolist(),
    ]
    extra = "%.6g," * len(table.measures) + "%s," * (FILTER in columns)
    line = f"%s,%d,%s,%r,%r,%s,%s,{'%.6f,' * (1 + len(classes))}{extra}%d\n"
    return "".join([line % row for row in zip(*cells, strict=True)])


def write_kept(source: Path, target: Path, kept: NDArray[np.bool_]) -> None:
    """Write a table that `read_scores` has read again with another `kept`, (n,) bool.

    All other cells keep their text.
    """
    answers = iter(kept.astype(int).tolist())
    with source.open(encoding="utf-8", newline="") as old, target.open("w", encoding="utf-8", newline="") as new:
        rows, writer = csv.reader(old), csv.writer(new, lineterminator="\n")
        header = next(rows)
        place = [name.strip().lower() for name in header].index("kept")
        writer.writerow(header)
        for row in rows:
            if row not in ([], [""]):
                writer.writerow([*row[:place], next(answers), *row[place + 1 :]])


def _cell(text: str) -> str:
    """The text as a cell of a CSV table, quoted where it must be."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow([text])
    return buffer.getvalue()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
