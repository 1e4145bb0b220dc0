"""Delimited tables: picks as Topaz `.txt`, CSV, CryoPPP's CSV or bare `x y [score]` rows; and any CSV by column.

Topaz writes `image_name  x_coord  y_coord  [score]` with tabs, for many micrographs, named without
folder and extension. Its coordinates are px of the image it searched, which may be binned: they must be
those of the full micrograph here (`pickeropt convert --scale`). CryoPPP's columns are `X-Coordinate` and
`Y-Coordinate`; **its y counts from the last row of the MRC file upwards** (see `cryoppp`). Any other
header counts where a column is x and one is y in a common spelling. All are centres.

Rows are lines. Spreadsheets' byte order mark and CR+LF stay what they are; a blank line and one that
starts with `#` is none.

CryoPPP has one CSV a micrograph (Dhakal et al., Scientific Data 10, 392 (2023)). Columns used: `X-Coordinate`,
`Y-Coordinate`, px of the micrograph, the particle's centre; the others (`Diameter` px, angles, defocus) are left.
**The y of these files counts from the last row of the MRC file upwards**: cryoSPARC's fraction times the height, not
turned back. It becomes the row as stored by `picks_file.placed`: ``row = height - y``. (``height - 1 - y`` would be
one pixel off: y = 0 is the outer edge.)

`csv_pieces` reads named columns of a CSV table as text, some rows at a time.
"""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.io.picks_file import PicksFile, placed
from pickeropt.io.text import (
    BYTE_ORDER_MARK,
    LONGEST_LINE,
    Spans,
    TextFile,
    check_text,
    first_row,
    is_number,
    line_spans,
    plain,
    read_content,
    row_lines,
    spans_in_turn,
    tokens,
)
from pickeropt.records import Picks

CRYOPPP = ("x-coordinate", "y-coordinate")
TOPAZ = ("image_name", "x_coord", "y_coord")
_SPELLINGS = {
    "x": ("x", "x_coord", "xcoord", "x_coordinate", "coordinate_x", "coordinatex", "rlncoordinatex", "x_px",
          "center_x", "x_center"),
    "y": ("y", "y_coord", "ycoord", "y_coordinate", "coordinate_y", "coordinatey", "rlncoordinatey", "y_px",
          "center_y", "y_center"),
    "score": ("score", "scores", "confidence", "figure_of_merit", "fom", "rlnautopickfigureofmerit",
              "probability"),
    "name": ("micrograph", "micrograph_name", "image_name", "image", "rlnmicrographname", "filename"),
}  # fmt: skip
_NOT_CENTRES = {"w", "h", "width", "height", "z", "z_coord", "z_coordinate", "coordinate_z", "rlncoordinatez"}
"""Beside x and y they make a corner of a box, or a point in a tomogram."""
OUR_TABLE = ("file", "row", "micrograph", "x", "y")
"""`scores.csv` of prune begins with these: its rows are of other files."""
_NOTHING = ("", "na", "n/a", "<na>", "none")


@dataclass(frozen=True)
class Layout:
    """Which columns of a table mean what.

    format : "topaz", "csv", "cryoppp" or "xy"
    delimiter : a tab or a comma; None: any blanks
    header : whether the first row is one; width : cells of a row
    x, y, score, name : their columns, None for one that is not there
    """

    format: str
    delimiter: str | None
    header: bool
    width: int
    x: int
    y: int
    score: int | None
    name: int | None


def table_layout(content: bytes) -> Layout | None:
    """The layout of a table, from its first row; None where it is no table of picks."""
    start, end = first_row(content)
    if end - start > LONGEST_LINE:
        return None
    line = _decoded(content[start:end])
    delimiter = next((sign for sign in "\t," if sign in line), None)
    cells = _cells(line, delimiter)
    if cells and all(is_number(cell.encode(), optional=i > 1) for i, cell in enumerate(cells)):
        bare = len(cells) in (2, 3)
        return Layout("xy", delimiter, False, len(cells), 0, 1, 2 if len(cells) > 2 else None, None) if bare else None
    return _of_header(cells or [], delimiter)


def _of_header(cells: list[str], delimiter: str | None) -> Layout | None:
    plain = [cell.strip().lower() for cell in cells]
    if all(label in plain for label in CRYOPPP):
        x, y = (plain.index(label) for label in CRYOPPP)
        return Layout("cryoppp", delimiter, True, len(plain), x, y, None, None)
    bare = [_bare(label) for label in plain]
    at = {what: [i for i, label in enumerate(bare) if label in known] for what, known in _SPELLINGS.items()}
    if len(at["x"]) != 1 or len(at["y"]) != 1 or _NOT_CENTRES & set(bare) or tuple(bare[:5]) == OUR_TABLE:
        return None
    score, name = (at[what][0] if at[what] else None for what in ("score", "name"))
    topaz = delimiter != "," and set(TOPAZ) <= set(plain)
    return Layout("topaz" if topaz else "csv", delimiter, True, len(plain), at["x"][0], at["y"][0], score, name)


def _bare(label: str) -> str:
    """A label without unit and leading underscore, blanks and dashes as underscores."""
    label = label.removesuffix("(px)").removesuffix("[px]").strip().lstrip("_")
    return label.replace(" ", "_").replace("-", "_")


def read_table(text: TextFile, layout: Layout) -> PicksFile:
    """The picks of a table; a table without a column of names belongs to the micrograph of its own stem.

    Raises FormatError: a row of another width, a coordinate that is no finite number, a score that is no
    number, an empty name.
    """
    # the same offsets; a line of CR alone is blank
    blanks = text.content.replace(b"\r", b" ").replace(BYTE_ORDER_MARK, b"   ", 1)
    rows = row_lines(blanks, line_spans(blanks))[layout.header :]
    table = np.full((len(rows), 3), np.nan)
    index = np.zeros(len(rows), dtype=np.int64)
    names: dict[str, int] = {}
    for i, cells in enumerate(_rows(text, rows, layout)):
        start = int(rows[i, 0])
        table[i, 0] = _number(text, start, "x", cells[layout.x])
        table[i, 1] = _number(text, start, "y", cells[layout.y])
        if layout.score is not None and cells[layout.score].lower() not in _NOTHING:
            table[i, 2] = _number(text, start, "the score", cells[layout.score], optional=True)
        if layout.name is not None:
            if not cells[layout.name]:
                raise text.fault(start, "the micrograph's name is empty", "mend or delete the row")
            index[i] = names.setdefault(cells[layout.name], len(names))
    stem = (text.path.stem,) if len(rows) else ()
    found = Picks(table[:, :2].copy(), tuple(names) if layout.name is not None else stem, index, table[:, 2].copy())
    upwards = layout.format == "cryoppp"
    return PicksFile(text.path, layout.format, found, text.content, rows, layout.name is None, upwards)


def _rows(text: TextFile, rows: Spans, layout: Layout) -> Iterator[list[str]]:
    """The cells of each row. Raises FormatError for a row of another width."""
    for start, end in spans_in_turn(rows):
        if end - start > LONGEST_LINE:
            raise text.fault(start, f"a line of {end - start} bytes", "give a file with a row for each pick")
        cells = _cells(_decoded(text.content[start:end]), layout.delimiter)
        if cells is None:
            raise text.fault(start, "a quote is not closed on its line", "mend or delete the row")
        if len(cells) != layout.width:
            what = f"{len(cells)} values where {layout.width} are expected"
            raise text.fault(start, what, "mend or delete the row")
        yield cells


def _cells(line: str, delimiter: str | None) -> list[str] | None:
    """The cells of a line, stripped; None where a quote is not closed."""
    if delimiter is None and not any(sign in line for sign in "#'\""):
        return line.split()
    if delimiter is None:
        return [token.decode("utf-8", "replace") for token in tokens(line.encode())]
    if '"' not in line:
        return [cell.strip() for cell in line.split(delimiter)]
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, strict=True))]
    except (csv.Error, StopIteration):
        return None


def _decoded(line: bytes) -> str:
    """A line without its end and a byte order mark; bytes that are no UTF-8 are replaced."""
    return line.removeprefix(BYTE_ORDER_MARK).decode("utf-8", "replace").rstrip("\r\n")


def _number(text: TextFile, start: int, label: str, cell: str, optional: bool = False) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
        optional = False
    if "_" in cell or not (optional or math.isfinite(value)):
        kind = "a number" if label == "the score" else "a finite number"
        raise text.fault(start, f"{label} is {cell!r}, not {kind}", "mend or delete the row")
    return value


def write_topaz(picks: Picks, names: Sequence[str]) -> bytes:
    """Topaz's table. names : without folder and extension, one for each of `picks.micrograph_names`."""
    return _written("image_name\tx_coord\ty_coord", picks, "\t", names)


def write_csv(picks: Picks, names: Sequence[str] = ()) -> bytes:
    """`x,y[,score]`, or with a column of micrographs where there are names."""
    return _written("micrograph,x,y" if names else "x,y", picks, ",", names)


def write_cryoppp(picks: Picks) -> bytes:
    """CryoPPP's two columns; y must count from the last row already. It has no place for scores."""
    bare = replace(picks, figure_of_merit=np.full(len(picks), np.nan))
    return _written("X-Coordinate,Y-Coordinate", bare, ",", ())


def write_xy(picks: Picks) -> bytes:
    """Bare rows `x y [score]`."""
    return _written("", picks, " ", ())


def _written(header: str, picks: Picks, delimiter: str, names: Sequence[str]) -> bytes:
    """A row a pick; scores where any pick has one, `nan` (in CSV nothing) for those that have none."""
    scored = not np.isnan(picks.figure_of_merit).all()
    missing = "" if delimiter == "," else "nan"
    cells = [[quoted(names[i], delimiter) for i in picks.micrograph_index.tolist()]] if names else []
    cells += [[plain(value) for value in axis] for axis in picks.coordinates.T.tolist()]
    if scored:
        merits = picks.figure_of_merit.tolist()
        cells.append([missing if math.isnan(value) else repr(value) for value in merits])
    head = [header + f"{delimiter}score" * scored] if header else []
    return "".join(f"{line}\n" for line in [*head, *map(delimiter.join, zip(*cells, strict=True))]).encode()


def quoted(cell: str, delimiter: str) -> str:
    """A cell, in quotes where it must be. Raises FormatError for one that no line can hold."""
    if "\n" in cell or "\r" in cell:
        raise FormatError(f"the name {cell!r} cannot stand in a table; rename the micrograph")
    return '"' + cell.replace('"', '""') + '"' if delimiter in cell or '"' in cell else cell


def read_cryoppp(path: Path, height: int) -> NDArray[np.float64]:
    """(n, 2) x and y of the centres in px, 0-based, rows as stored in the MRC file.

    height : rows of the micrograph
    Raises FormatError: unreadable, no such columns, a coordinate that is no finite number.
    """
    text = TextFile(path, read_content(path))
    check_text(text, spreadsheet=True)
    layout = table_layout(text.content)
    if layout is None or layout.format != "cryoppp":
        found = text.content[:60].decode("utf-8", "replace").splitlines()[:1] or ["nothing"]
        what = f"no columns X-Coordinate and Y-Coordinate (found: {found[0]})"
        raise FormatError(f"{path}: {what}; give CryoPPP's CSV files")
    file = read_table(text, layout)
    return placed(file, np.full(len(file.picks), height))


PIECE = 20_000
"""Rows that are Python objects at once where a table is read in pieces."""
CRYOPPP_CENTRES = "x-coordinate"
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
            if CRYOPPP_CENTRES in header:
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
