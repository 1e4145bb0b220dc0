"""A comma-separated table with a header: named columns as text, whole or some rows at a time."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError

PIECE = 20_000
"""Rows that are Python objects at once where a table is read in pieces."""
CRYOPPP = "x-coordinate"
TURNED = "truth --to csv --micrographs DIR"


@dataclass(frozen=True)
class CsvTable:
    """The wanted columns of n rows of one file, as text.

    columns : by name, each n cells as they stand in the file
    lines : (n,) line number of each row in the file, from 1
    """

    path: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.lines)

    def numbers(self, column: str, *, empty_is_nan: bool = False) -> NDArray[np.float64]:
        """One column as (n,) float64, finite, or NaN for an empty cell where that is allowed.

        Raises FormatError naming the line and the cell.
        """
        cells = self.columns[column]
        if empty_is_nan:
            cells = [cell.strip() or "nan" for cell in cells]
        try:
            values = np.array(list(map(float, cells)), dtype=np.float64)
        except ValueError:
            row = next(row for row, cell in enumerate(cells) if not _is_number(cell))
            raise self.fault(row, column, "is not a number; write one") from None
        bad = np.isinf(values) if empty_is_nan else ~np.isfinite(values)
        if bad.any():
            raise self.fault(int(np.argmax(bad)), column, "is not finite; write a number")
        return values

    def fault(self, row: int, column: str, what: str) -> FormatError:
        """The error for one cell: file, line, column, value and what is wrong with it."""
        value = self.columns[column][row].strip()
        return FormatError(f"{self.path}, line {self.lines[row]}: {column} {value!r} {what}")


def read_csv(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> CsvTable:
    """The named columns of a whole file, blanks around the cells removed.

    Raises FormatError as `csv_pieces` does.
    """
    columns: dict[str, list[str]] = {}
    lines: list[int] = []
    for piece in csv_pieces(path, required, optional):
        lines += piece.lines
        for name, cells in piece.columns.items():
            columns.setdefault(name, []).extend(map(str.strip, cells))
    return CsvTable(path, columns, lines)


def csv_pieces(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), classes: str | None = None
) -> Iterator[CsvTable]:
    """The named columns, PIECE rows at a time; a last piece, with no rows, always comes.

    The order of the columns and the case of their names do not matter, other columns are not read, blank
    lines are skipped. An optional column that the file lacks is absent from the result.
    classes : the prefix of further columns, which are read by their own names in the order of the file
    Raises FormatError where the file cannot be read, a required column is missing or appears twice, or a
    row is too short or too long.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            places = _places(path, header, required, optional)
            if classes is not None:
                places |= {name: i for i, name in enumerate(header) if name.startswith(classes)}
            take = itemgetter(*places.values(), -1)  # always more than one: a tuple comes of it
            rows = ((reader.line_num, cells) for cells in reader if cells not in ([], [""]))
            more = True
            while more:
                piece = list(islice(rows, PIECE))
                more = bool(piece)
                _check_widths(path, piece, len(header))
                cells = zip(*(take(row) for _, row in piece), strict=True) if more else [()] * (len(places) + 1)
                columns = dict(zip(places, cells, strict=False))
                yield CsvTable(path, columns, [line for line, _ in piece])
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path}: cannot be read, it is not a comma-separated text file ({error})") from error


def _places(path: Path, header: list[str], required: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    """The column of each name that is there."""
    header = [name.lower() for name in header]
    for name in required:
        if name not in header:
            found = ",".join(header)[:120]
            remedy = f"the first line must name the columns {','.join(required)}, separated by commas"
            if CRYOPPP in header:
                remedy = f"CryoPPP counts y from the other side: pickeropt convert {path.parent} {TURNED}"
            raise FormatError(f"{path}, line 1: no column {name!r} in the header {found!r}; {remedy}")
    for name in (*required, *optional):
        if header.count(name) > 1:
            raise FormatError(f"{path}, line 1: column {name!r} appears twice; rename one")
    return {name: header.index(name) for name in (*required, *optional) if name in header}


def _check_widths(path: Path, rows: Sequence[tuple[int, list[str]]], width: int) -> None:
    for line, cells in rows:
        if len(cells) != width:
            raise FormatError(
                f"{path}, line {line}: {len(cells)} values where the header names {width};"
                " the row is cut off or the separators are wrong"
            )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
