"""`scores.csv` of `pickeropt prune`, and which names in it are the same micrograph.

Comma-separated tables with a header: the scores of `pickeropt prune`, and truth as CSV.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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


def _places(path: Path, header: list[str], required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, int]:
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


def _read_rows(path: Path, rows: Iterable[tuple[int, list[str]]], width: int, places: dict[str, int]) -> Table:
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


MICROGRAPH_SUFFIXES = (".mrc", ".mrcs", ".tif", ".tiff", ".eer", ".png", ".jpg", ".jpeg", ".st", ".ali")


@dataclass(frozen=True)
class ScoredPicks:
    """n scored picks in the order of the file.

    coordinates : (n, 2) float64, x and y, px
    files : the distinct coordinate files; file_index : (n,) into them
    micrographs : the distinct micrographs by stem; micrograph_index : (n,) into them
    score : (n,) P(particle)
    figure_of_merit : (n,) the picker's score, NaN where it gave none
    kept : (n,) bool
    """

    coordinates: NDArray[np.float64]
    files: tuple[str, ...]
    file_index: NDArray[np.int64]
    micrographs: tuple[str, ...]
    micrograph_index: NDArray[np.int64]
    score: NDArray[np.float64]
    figure_of_merit: NDArray[np.float64]
    kept: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.score)

    def take(self, rows: NDArray[np.bool_]) -> "ScoredPicks":
        """The picks of some rows; files and micrographs keep their indices."""
        return ScoredPicks(
            self.coordinates[rows],
            self.files,
            self.file_index[rows],
            self.micrographs,
            self.micrograph_index[rows],
            self.score[rows],
            self.figure_of_merit[rows],
            self.kept[rows],
        )


def read_scores(path: Path) -> ScoredPicks:
    """Read `scores.csv`.

    Raises FormatError (file, line, value) for a missing column, a number that is none, a
    score outside 0 to 1, a `kept` other than 0 and 1, an empty table, or two different
    micrographs of one name.
    """
    required = ("file", "micrograph", "x", "y", "figure_of_merit", "score", "kept")
    table = read_table(path, required)
    if not len(table):
        raise FormatError(f"{path}: has no rows; run `pickeropt prune` on a file that has picks")
    score = table.numbers("score")
    outside = (score < 0) | (score > 1)
    if outside.any():
        raise table.fault(int(np.argmax(outside)), "score", "is outside 0 to 1; it must be P(particle)")
    files, file_index = _distinct(table.columns["file"])
    names, name_index = _distinct(table.columns["micrograph"])
    stems = micrograph_stems(path, names)
    micrographs, stem_index = _distinct(stems)
    return ScoredPicks(
        coordinates=np.column_stack([table.numbers("x"), table.numbers("y")]),
        files=files,
        file_index=file_index,
        micrographs=micrographs,
        micrograph_index=stem_index[name_index],
        score=score,
        figure_of_merit=table.numbers("figure_of_merit", empty_is_nan=True),
        kept=_kept(table),
    )


def micrograph_stem(name: str) -> str:
    """File name without folder and image suffix: `a/b.1.mrc` and `b.1` both give `b.1`."""
    file_name = PurePosixPath(name).name
    for suffix in MICROGRAPH_SUFFIXES:
        if file_name.lower().endswith(suffix):
            return file_name[: -len(suffix)]
    return file_name


def micrograph_stems(path: Path, names: Sequence[str]) -> list[str]:
    """The stem of each name in `path`.

    One micrograph may be named by a longer and a shorter path. Raises FormatError where two
    different folders have a micrograph of one name, as matching by stem would mix them.
    """
    longest: dict[str, PurePosixPath] = {}
    for name in dict.fromkeys(names):
        stem = micrograph_stem(name)
        if not stem:
            raise FormatError(f"{path}: a row has an empty micrograph name {name!r}; name its micrograph")
        folder = PurePosixPath(name).parent
        other = longest.setdefault(stem, folder)
        long, short = sorted((folder, other), key=lambda p: len(p.parts), reverse=True)
        if short.parts and long.parts[-len(short.parts) :] != short.parts:
            raise FormatError(
                f"{path}: two micrographs are called {stem!r}, in {str(other)!r} and {str(folder)!r};"
                " scores and truth are brought together by name: evaluate the folders one at a time"
            )
        longest[stem] = long
    return [micrograph_stem(name) for name in names]


def _kept(table: Table) -> NDArray[np.bool_]:
    cells = table.columns["kept"]
    for row, cell in enumerate(cells):
        if cell not in ("0", "1"):
            raise table.fault(row, "kept", "is neither 1 nor 0")
    return np.array([cell == "1" for cell in cells], dtype=np.bool_)


def _distinct(cells: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The distinct cells in order of first mention, and each cell's index into them."""
    places: dict[str, int] = {}
    index = [places.setdefault(cell, len(places)) for cell in cells]
    return tuple(places), np.array(index, dtype=np.int64)


def pruned_diameter_px(scores_csv: Path) -> float | None:
    """Particle diameter, px of the micrograph, by the `summary.json` that `prune` left beside its scores.

    None where there is none, or where the micrographs differ in pixel size.
    """
    try:
        summary = json.loads(scores_csv.with_name("summary.json").read_text(encoding="utf-8"))
        (pixel_size,) = summary["pixel_sizes"]
        return float(summary["diameter_angstrom"]) / float(pixel_size)
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None
