"""CryoPPP's particle coordinates: one CSV a micrograph (Dhakal et al., Scientific Data 10, 392 (2023)).

Columns used: `X-Coordinate`, `Y-Coordinate`, px of the micrograph, the particle's centre; the others
(`Diameter` px, angles, defocus) are left. **The y of these files counts from the last row of the MRC file
upwards**: cryoSPARC's fraction times the height, not turned back. It becomes the
row as stored by `picks_file.placed`: ``row = height - y``. (``height - 1 - y`` would be one pixel off:
y = 0 is the outer edge.)
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.io.delimited import read_table, table_layout
from pickeropt.io.picks_file import placed
from pickeropt.io.text import TextFile, check_text, read_content


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
