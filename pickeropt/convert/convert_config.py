"""What a conversion is told, and what it reports."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ConvertConfig:
    """The settings of `pickeropt convert`.

    to : a name of `conversion.OUTPUT_FORMATS`; None: by the ending of the output
    scale : factor on coordinates and boxes, from the input's pixels to the output's
    swap_xy : x for y, after scaling
    flip_x, flip_y : mirror in the micrograph, ``y = height - 1 - y``, after that
    shift : px of the output's micrograph, added to x and y at last
    micrographs : folders of the micrographs that the *output* is for
    diameter_angstrom : Å, for formats with boxes; None: the boxes of the input
    pixel_size : Å/px of the output's micrographs; None: from micrographs or input
    overwrite : replace files that are there
    """

    to: str | None = None
    scale: float = 1.0
    swap_xy: bool = False
    flip_x: bool = False
    flip_y: bool = False
    shift: tuple[float, float] = (0.0, 0.0)
    micrographs: tuple[Path, ...] = ()
    diameter_angstrom: float | None = None
    pixel_size: float | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class ConvertReport:
    """What came of a conversion.

    format : of the output, a name of `conversion.OUTPUT_FORMATS`
    files : that were written
    notes : what the output could not hold, a sentence each
    """

    format: str
    picks: int
    micrographs: int
    files: tuple[Path, ...]
    notes: tuple[str, ...]
