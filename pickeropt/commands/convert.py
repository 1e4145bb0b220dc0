"""`pickeropt convert`: its options and its call."""

from pathlib import Path
from typing import Annotated

import typer

from pickeropt.commands.options import Folders, Overwrite, PixelSize, option
from pickeropt.convert.convert_config import ConvertConfig

FORMATS = "star, topaz, box, cbox, eman2, xmipp, csv, xy, cryoppp, cryosparc, deeppicker"

Source = Annotated[Path, typer.Argument(metavar="IN", help="A coordinate file, a list, or a folder of them.")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="A file, or a folder for a file a micrograph.")]
To = Annotated[str | None, option("--to", "FORMAT", f"{FORMATS}; default: by the extension of OUT.")]
Scale = Annotated[float, option("--scale", "F", "Pixels of OUT per pixel of IN: 8 for picks on 8x binned images.")]
SwapXY = Annotated[bool, option("--swap-xy", None, "Exchange x and y.")]
FlipX = Annotated[bool, option("--flip-x", None, "Mirror x; needs --micrographs.")]
FlipY = Annotated[bool, option("--flip-y", None, "Mirror y; needs --micrographs.")]
Shift = Annotated[str | None, option("--shift", "DX,DY", "Pixels of OUT to add, after all other changes.")]
Diameter = Annotated[float | None, option("--diameter", "Å", "Box size for box and cbox; default: the boxes of IN.")]


def run_convert(
    source: Source,
    out: Out,
    to: To = ConvertConfig.to,
    scale: Scale = ConvertConfig.scale,
    swap_xy: SwapXY = ConvertConfig.swap_xy,
    flip_x: FlipX = ConvertConfig.flip_x,
    flip_y: FlipY = ConvertConfig.flip_y,
    shift: Shift = None,
    micrographs: Folders = None,
    diameter: Diameter = ConvertConfig.diameter_angstrom,
    pixel_size: PixelSize = ConvertConfig.pixel_size,
    overwrite: Overwrite = ConvertConfig.overwrite,
) -> None:
    """Write picks in another format.

    IN is recognised by its content. Coordinates and scores are carried; what OUT cannot hold is
    reported. --micrographs are those that OUT is for.
    """
    from pickeropt.api import convert

    report = convert(
        source,
        out,
        to=to,
        scale=scale,
        swap_xy=swap_xy,
        flip_x=flip_x,
        flip_y=flip_y,
        shift=ConvertConfig.shift if shift is None else _pair(shift),
        micrographs=micrographs or (),
        diameter=diameter,
        pixel_size=pixel_size,
        overwrite=overwrite,
    )
    for note in report.notes:
        print(f"note: {note}")
    where = out if len(report.files) == 1 else f"{len(report.files)} files in {out}"
    micrographs_text = f"{report.micrographs} micrograph{'s' * (report.micrographs != 1)}"
    print(f"{report.picks:,} picks of {micrographs_text} as {report.format}: {where}")


def _pair(text: str) -> tuple[float, float]:
    """DX,DY. Raises PickeroptError for anything else."""
    from pickeropt.errors import PickeroptError

    try:
        x, y = (float(value) for value in text.split(","))
    except ValueError:
        raise PickeroptError(f"--shift {text}: give two numbers of px, such as 12,-3.5") from None
    return x, y
