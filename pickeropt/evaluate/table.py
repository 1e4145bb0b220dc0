"""Comma-separated tables with a header: the scores of `pickeropt prune`, and truth as CSV."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError

CRYOPPP = "x-coordinate"
TURNED = "truth --to csv --micrographs DIR"


@dataclass(frozen=True)
class Table:
    """The wanted columns of one file, as text.

    columns : by lower-case name, each n cells, surrounding blanks removed
    lines : (n,) line number of each row in the file, from 1
    """

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)

    def numbers(self, column: str, *, empty_is_nan: bool = False) -> NDArray[np.float64]:
        """One column as (n,) float64, finite, or NaN for an empty cell where that is allowed.

        Raises FormatError naming the line and the cell.
        """
        cells = self.columns[column]
        if empty_is_nan:
            cells = [cell or "nan" for cell in cells]
        try:
            values = np.array([float(cell) for cell in cells], dtype=np.float64)
        except ValueError:
            row = next(row for row, cell in enumerate(cells) if not _is_number(cell))
            raise self.fault(row, column, "is not a number; write one") from None
        bad = np.isinf(values) if empty_is_nan else ~np.isfinite(values)
        if bad.any():
            raise self.fault(int(np.argmax(bad)), column, "is not finite; write a number")
        return values

    def fault(self, row: int, column: str, what: str) -> FormatError:
        """The error for one cell: file, line, column, value and what is wrong with it."""
        value = self.columns[column][row]
        return FormatError(f"{self.path}, line {self.lines[row]}: {column} {value!r} {what}")


def read_table(path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Table:
    """Read the named columns, whatever their order and case; other columns are passed over.

    Blank lines are skipped. An optional column that the file lacks is absent from the result.
    Raises FormatError where the file cannot be read, a required column is missing or
    appears twice, or a row is too short or too long.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            places = _places(path, header, required, optional)
            rows = ((reader.line_num, cells) for cells in reader)
            return _read_rows(path, rows, len(header), places)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path}: is not a comma-separated text file ({error})") from error


def _places(
    path: Path, header: list[str], required: tuple[str, ...], optional: tuple[str, ...]
) -> dict[str, int]:
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


def _read_rows(
    path: Path, rows: Iterable[tuple[int, list[str]]], width: int, places: dict[str, int]
) -> Table:
    columns: dict[str, list[str]] = {name: [] for name in places}
    takes = [(columns[name].append, place) for name, place in places.items()]
    lines: list[int] = []
    for line, cells in rows:
        if not cells or cells == [""]:
            continue
        if len(cells) != width:
            raise FormatError(
                f"{path}, line {line}: {len(cells)} values where the header names {width};"
                " the row is cut off or the separators are wrong"
            )
        lines.append(line)
        for take, place in takes:
            take(cells[place].strip())
    return Table(path, columns, lines)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
