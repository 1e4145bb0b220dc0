"""Files of picks: read once, written again less rows.

The formats are told apart by what the file holds, never by its name (an empty `.box` or `.cbox` is an
empty box file). A pruned file is the bytes of its input without those of the dropped picks.

    relion-coordinates   STAR of one micrograph: RELION, crYOLO, DeepPicker
    relion-particles     STAR with micrograph names; data_optics stays
    labelled             STAR with `_pickeroptClass`
    eman-box             x y w h [score]: EMAN, crYOLO, REPIC; the CBOX of seven values a line
    cbox, cbox-filaments CBOX v1.0
    eman2-json           info/NAME_info.json
    topaz                image_name x_coord y_coord [score]
    csv, xy              other tables with columns x and y; rows `x y [score]`
    cryoppp              X-Coordinate, Y-Coordinate: y from the last row upwards
    xmipp-pos            Xmipp's .pos
    cryosparc-cs, -csg   cryoSPARC's tables and groups of them
    deeppicker           autopick_results.pickle
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError, GeometryError
from pickeropt.io import cryosparc
from pickeropt.io.cbox import FILAMENTS, find_cbox, read_cbox, subset_filaments
from pickeropt.io.cryosparc import is_cs, read_cs, read_csg, subset_cs, subset_csg
from pickeropt.io.cryosparc_files import is_csg
from pickeropt.io.deeppicker import is_pickle, read_deeppicker, subset_deeppicker
from pickeropt.io.delimited import OUR_TABLE, read_table, table_layout
from pickeropt.io.eman import is_box, is_info_json, read_box, read_info_json, subset_info_json
from pickeropt.io.picks_file import Companion, PicksFile, line_subset, placed, row_place
from pickeropt.io.relion_star import MICROGRAPH, read_star_picks
from pickeropt.io.star import find_pos, read_blocks, read_pos
from pickeropt.io.text import TextFile, check_text, first_row, read_content

__all__ = [
    "Companion",
    "PicksFile",
    "companion_subsets",
    "is_picks",
    "placed",
    "read_picks",
    "read_picks_start",
    "row_place",
    "subset",
]

FORMATS = (
    "RELION STAR, EMAN .box, EMAN2 info .json, crYOLO .cbox, Topaz .txt, cryoSPARC .cs and .csg, "
    "Xmipp .pos, DeepPicker .pickle, CSV with columns x and y, CryoPPP CSV, text with rows x y [score]"
)
EMPTY_BOXES = (".box", ".cbox")
"""Endings of files that hold no picks where they hold no row: so EMAN and crYOLO write them."""

_STAR = re.compile(rb"(?:\A(?:\xef\xbb\xbf)?|[\r\n])[ \t]*(?:data_[^\s,]*|loop_)[ \t]*(?:#[^\r\n]*)?(?=[\r\n]|\Z)")


def read_picks(path: Path, content: bytes | None = None) -> PicksFile:
    """Read a file of picks of any format of this module.

    content : of the file, where it was read before
    Raises FormatError naming file, line, value and remedy for all that cannot be read as picks;
    GeometryError where optics groups have different pixel sizes.
    """
    content = read_content(path) if content is None else content
    reader = _reader(content)
    if reader is not None:
        return reader(path, content)
    text = TextFile(path, content)
    check_text(text, spreadsheet=True)
    if first_row(content)[0] < len(content):
        raise _unknown(text)
    if path.suffix.lower() not in EMPTY_BOXES:
        raise FormatError(f"{path}: holds no rows and no data_ block; was it written to the end?")
    return read_box(text)


def read_picks_start(path: Path, most: int) -> PicksFile | None:
    """The first picks of a STAR file, from its first `most` bytes; None where there are none, or no STAR.

    Their micrographs are the first ones of the whole file, in the same order.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most)
        content = content[: content.rindex(b"\n") + 1]
        found = _read_star(path, content) if _STAR.search(content) else None
    except (OSError, ValueError, FormatError, GeometryError):
        return None
    return found if found is not None and len(found.picks) else None


def is_picks(content: bytes) -> bool:
    """Whether a file's content has the marks of one of the formats; it may be damaged for all that."""
    return _reader(content) is not None


def subset(file: PicksFile, keep: NDArray[np.bool_]) -> bytes:
    """The file without the picks where `keep`, (n,) bool, is False; every other byte stays.

    Raises FormatError for filaments that would lose some of their segments.
    """
    return _SUBSETS.get(file.format, line_subset)(file, keep)


def companion_subsets(file: PicksFile, keep: NDArray[np.bool_]) -> dict[str, bytes]:
    """By name, what is to be written beside `subset(file, keep)`: the companions less the same picks."""
    return cryosparc.companion_subsets(file, keep) if file.companions else {}


def _reader(content: bytes) -> Callable[[Path, bytes], PicksFile] | None:
    """What reads the content; None where it is none of the formats."""
    return next((reader for marks, reader in _READERS if marks(content)), None)


def _read_star(path: Path, content: bytes) -> PicksFile:
    text = TextFile(path, content)
    check_text(text)
    blocks = read_blocks(text)
    boxes, pos = find_cbox(blocks), find_pos(blocks)
    if boxes:
        return read_cbox(text, blocks, boxes)
    if pos:
        return read_pos(text, pos)
    picks, block = read_star_picks(text, blocks)
    named = MICROGRAPH in block.labels
    kind = "relion-particles" if named else "relion-coordinates"
    kind = "labelled" if picks.class_names is not None else kind
    return PicksFile(path, kind, picks, content, block.rows, not named)


def _read_box(path: Path, content: bytes) -> PicksFile:
    text = TextFile(path, content)
    check_text(text)
    return read_box(text)


def _read_info_json(path: Path, content: bytes) -> PicksFile:
    return read_info_json(TextFile(path, content))


def _read_table(path: Path, content: bytes) -> PicksFile:
    text = TextFile(path, content)
    check_text(text, spreadsheet=True)
    layout = table_layout(content)
    assert layout is not None  # that is why this reader was chosen
    return read_table(text, layout)


def _unknown(text: TextFile) -> FormatError:
    start, end = first_row(text.content)
    shown = text.content[start : min(end, start + 240)].decode("utf-8", "replace").strip()
    if shown.startswith(",".join(OUR_TABLE)):
        return text.fault(start, "the scores of a pruning, not picks", "give a file under kept/ or rejected/")
    shown = shown if len(shown) < 60 else shown[:57] + "..."
    return text.fault(start, f"no format of picks is recognised in {shown!r}", f"these are read: {FORMATS}")


_READERS: tuple[tuple[Callable[[bytes], object], Callable[[Path, bytes], PicksFile]], ...] = (
    (is_cs, read_cs),
    (is_pickle, read_deeppicker),
    (is_csg, read_csg),
    (is_info_json, _read_info_json),
    (_STAR.search, _read_star),
    (is_box, _read_box),
    (table_layout, _read_table),
)
"""The first whose marks the content has reads it."""

_SUBSETS = {
    FILAMENTS: subset_filaments,
    "eman2-json": subset_info_json,
    "cryosparc-cs": subset_cs,
    "cryosparc-csg": subset_csg,
    "deeppicker": subset_deeppicker,
}
