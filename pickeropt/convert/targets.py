"""The formats that can be written: their endings, and what each cannot hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import PickeroptError
from pickeropt.io.box import write_box
from pickeropt.io.cbox import write_cbox
from pickeropt.io.cryosparc_fields import write_cs
from pickeropt.io.deeppicker import write_deeppicker
from pickeropt.io.delimited import write_cryoppp, write_csv, write_topaz, write_xy
from pickeropt.io.eman2 import write_info_json
from pickeropt.io.relion_star import write_star
from pickeropt.io.xmipp import write_pos
from pickeropt.records import Picks


@dataclass(frozen=True)
class Target:
    """A format to write.

    file : what follows a micrograph's stem in the name of its file in a folder
    several : whether one file can hold the picks of several micrographs
    boxes, scores, decimals : whether it has them
    rows_from_top : y counts from the last row
    shapes : it holds the size of each micrograph
    """

    file: str
    several: bool = False
    boxes: bool = False
    scores: bool = True
    decimals: bool = True
    rows_from_top: bool = False
    shapes: bool = False


TARGETS = {
    "star": Target("_autopick.star", several=True),
    "topaz": Target(".txt", several=True),
    "box": Target(".box", boxes=True),
    "cbox": Target(".cbox", boxes=True),
    "eman2": Target("_info.json"),
    "xmipp": Target(".pos", decimals=False),
    "csv": Target(".csv", several=True),
    "xy": Target(".txt"),
    "cryoppp": Target(".csv", scores=False, rows_from_top=True),
    "cryosparc": Target(".cs", several=True, shapes=True),
    "deeppicker": Target(".pickle", several=True),
}
_BY_ENDING = {
    ".star": "star",
    ".box": "box",
    ".cbox": "cbox",
    ".json": "eman2",
    ".pos": "xmipp",
    ".csv": "csv",
    ".cs": "cryosparc",
    ".pickle": "deeppicker",
    ".pkl": "deeppicker",
}


def choose_target(out: Path, to: str | None) -> str:
    """The format of an output: as told, else by its ending. Raises PickeroptError where neither says it."""
    known = ", ".join(TARGETS)
    if to is not None:
        if to not in TARGETS:
            raise PickeroptError(f"--to is {to!r}; give one of {known}")
        return to
    ending = out.suffix.lower()
    if ending == ".csg":
        what = f"{out}: a group is written by cryoSPARC only"
        raise PickeroptError(f"{what}; give a .cs file, or prune the group itself")
    if ending not in _BY_ENDING:
        raise PickeroptError(f"{out}: its name does not say the format; give --to with one of {known}")
    return _BY_ENDING[ending]


def encode(
    target: str,
    picks: Picks,
    names: tuple[str, ...],
    boxes: NDArray[np.float64] | None,
    shapes: Sequence[tuple[int, int]],
) -> bytes:
    """The file's bytes.

    names : of each of `picks.micrograph_names`, for formats that hold several micrographs; none where the
        file is one micrograph's
    boxes : (n, 2) px for formats that have them
    shapes : (h, w) px of each of `picks.micrograph_names`, for formats that hold it
    Raises FormatError for a name that the format cannot hold.
    """
    if target == "star":
        return write_star(picks, names)
    if target == "topaz":
        return write_topaz(picks, names)
    if target == "csv":
        return write_csv(picks, names)
    if target == "cryosparc":
        return write_cs(picks, shapes)
    if target == "deeppicker":
        return write_deeppicker(picks)
    if target in ("box", "cbox"):
        assert boxes is not None  # they are asked for before
        return (write_box if target == "box" else write_cbox)(picks, boxes)
    plain = {"eman2": write_info_json, "xmipp": write_pos, "xy": write_xy, "cryoppp": write_cryoppp}
    return plain[target](picks)


def losses(target: str, picks: Picks) -> list[str]:
    """What the format cannot hold of these picks, a sentence each."""
    kind = TARGETS[target]
    found = []
    shift = float(np.abs(picks.coordinates - np.rint(picks.coordinates)).max(initial=0))
    if shift > 0 and not kind.decimals:
        found.append(f"{target} holds whole pixels: coordinates were rounded, by {shift:.3g} px at most")
    if target == "box" and shift > 0:
        found.append("RELION and EMAN read whole pixels of a .box file; pickeropt and crYOLO read all of it")
    if target == "cryosparc":
        found.append("cryoSPARC imports groups of its own micrographs: to go back there prune its own files")
    if not kind.scores and not np.isnan(picks.figure_of_merit).all():
        found.append(f"{target} holds no scores: they are left out")
    return found
