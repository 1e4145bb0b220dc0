"""Files of picks: read once, written again less rows.

The formats are told apart by what the file holds, never by its name. A pruned file is
the bytes of its input without the lines of the dropped picks.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.io.box import read_box
from pickeropt.io.relion import MICROGRAPH, read_star_picks
from pickeropt.io.star import read_blocks
from pickeropt.io.text import read_text
from pickeropt.records import Picks

OTHER_FORMATS = {
    b"\x93NUMPY": ("a cryoSPARC .cs file", "convert it with csparc2star.py of pyem"),
    b"\x95CSDAT": ("a cryoSPARC .cs file", "convert it with csparc2star.py of pyem"),
    b"image_name\t": ("a Topaz table", "convert it: topaz convert -o picks.star FILE"),
    b"{": ("a JSON file", "export EMAN2's boxes as .box files"),
}
"""First bytes of formats that are not read here: what they are, and the remedy."""


@dataclass(frozen=True)
class PicksFile:
    """A file of picks in memory.

    format : "relion-coordinates" (no micrograph names), "relion-particles", "labelled"
        (a STAR file with `_pickeroptClass`) or "eman-box"
    content : the file, byte for byte
    row_spans : (n, 2) start and end in `content` of each pick's line, with its newline
    names_from_stem : the file names no micrograph; its one name is the file's own stem
        (none where there are no picks)
    """

    path: Path
    format: str
    picks: Picks
    content: bytes
    row_spans: NDArray[np.int64]
    names_from_stem: bool


def read_picks(path: Path) -> PicksFile:
    """Read a RELION STAR or an EMAN box file.

    A `.box` file without rows holds no picks (so EMAN and crYOLO write it). Raises
    FormatError naming file, line, value and remedy for all that cannot be read as picks;
    GeometryError where optics groups have different pixel sizes.
    """
    text = read_text(path, OTHER_FORMATS)
    blocks = read_blocks(text)
    if blocks:
        picks, block = read_star_picks(text, blocks)
        named = MICROGRAPH in block.labels
        kind = "relion-particles" if named else "relion-coordinates"
        kind = "labelled" if picks.class_names is not None else kind
        return PicksFile(path, kind, picks, text.content, block.rows, not named)
    picks, rows = read_box(text)
    if not len(picks) and path.suffix.lower() != ".box":
        raise FormatError(f"{path}: holds no rows and no data_ block; was it written to the end?")
    return PicksFile(path, "eman-box", picks, text.content, rows, names_from_stem=True)


def subset(file: PicksFile, keep: NDArray[np.bool_]) -> bytes:
    """The file without the lines of the picks where `keep`, (n,) bool, is False.

    Every other byte stays, comments, headers and other blocks included. Only the last
    line of a file can lack its newline, so no two lines are ever joined.
    """
    if keep.shape != (len(file.row_spans),) or keep.dtype != np.bool_:
        raise ValueError(f"keep is {keep.dtype} {keep.shape}, not bool ({len(file.row_spans)},)")
    content = memoryview(file.content)
    parts = []
    done = 0
    for start, end in file.row_spans[~keep].tolist():
        if start > done:
            parts.append(content[done:start])
        done = end
    parts.append(content[done:])
    return b"".join(parts)
