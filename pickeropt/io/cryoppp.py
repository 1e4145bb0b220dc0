"""CryoPPP's particle coordinates: one CSV a micrograph (Dhakal et al., Scientific Data 10, 392 (2023)).

Columns used: `X-Coordinate`, `Y-Coordinate`, px of the micrograph, the particle's centre; the others
(`Diameter` px, angles, defocus) are left. **The y of these files counts from the last row of the MRC file
upwards**: cryoSPARC's fraction times the height, not turned back. Here, and nowhere else, it becomes the
row as stored: ``row = height - y``. (``height - 1 - y`` would be one pixel off: y = 0 is the outer edge.)
"""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError

COLUMNS = ("x-coordinate", "y-coordinate")


def read_cryoppp(path: Path, height: int) -> NDArray[np.float64]:
    """(n, 2) x and y of the centres in px, 0-based, rows as stored in the MRC file.

    height : rows of the micrograph
    Raises FormatError: unreadable, no such columns, a coordinate that is no finite number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path}: cannot be read as CSV ({error}); download the labels again") from error
    header = [name.strip().lower() for name in table[0]] if table else []
    if not all(name in header for name in COLUMNS):
        found = ", ".join(header[:6]) or "nothing"
        raise FormatError(
            f"{path}: no columns X-Coordinate and Y-Coordinate (found: {found}); give CryoPPP's CSV files"
        )
    at = [header.index(name) for name in COLUMNS]
    points = [_point(path, line, row, at) for line, row in enumerate(table[1:], start=2) if row]
    xy = np.array(points, dtype=np.float64).reshape(-1, 2)
    xy[:, 1] = height - xy[:, 1]  # from CryoPPP's side to rows as stored
    return xy


def _point(path: Path, line: int, row: list[str], at: list[int]) -> tuple[float, float]:
    try:
        x, y = (float(row[i]) for i in at)
    except (ValueError, IndexError):
        x = y = float("nan")
    if not np.isfinite([x, y]).all():
        raise FormatError(f"{path}, line {line}: {row} holds no centre; mend or delete the row")
    return x, y
