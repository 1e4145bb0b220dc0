"""`pickeropt convert`. Style and errors as in `cli`, which mounts it."""

from pathlib import Path
from typing import Annotated

import typer

from pickeropt.convert.config import ConvertConfig
from pickeropt.options import Folders, Overwrite, PixelSize, option

FORMATS = "star, topaz, box, cbox, eman2, xmipp, csv, xy, cryoppp"

Source = Annotated[Path, typer.Argument(metavar="IN", help="A coordinate file, a list, or a folder of them.")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="A file, or a folder for a file a micrograph.")]
To = Annotated[str | None, option("--to", "FORMAT", f"{FORMATS}; else by the ending of OUT.")]
Scale = Annotated[
    float, option("--scale", "F", "Pixels of OUT a pixel of IN: 8 for picks on 8x binned images.")
]
FlipY = Annotated[bool, option("--flip-y", None, "Mirror y; needs --micrographs.")]
Diameter = Annotated[
    float | None, option("--diameter", "Å", "For the boxes of box and cbox; else those of IN.")
]


def run_convert(
    source: Source,
    out: Out,
    to: To = ConvertConfig.to,
    scale: Scale = ConvertConfig.scale,
    flip_y: FlipY = ConvertConfig.flip_y,
    micrographs: Folders = None,
    diameter: Diameter = ConvertConfig.diameter_angstrom,
    pixel_size: PixelSize = ConvertConfig.pixel_size,
    overwrite: Overwrite = ConvertConfig.overwrite,
) -> None:
    """Write picks in another format.

    IN is recognised from its content. Coordinates and scores are carried; what OUT cannot hold is
    said. Micrographs are those that OUT is for.
    """
    from pickeropt.convert.run import convert

    config = ConvertConfig(
        to=to,
        scale=scale,
        flip_y=flip_y,
        micrographs=tuple(micrographs or ()),
        diameter_angstrom=diameter,
        pixel_size=pixel_size,
        overwrite=overwrite,
    )
    report = convert(source, out, config)
    for note in report.notes:
        print(f"note: {note}")
    where = out if len(report.files) == 1 else f"{len(report.files)} files in {out}"
    micrographs_text = f"{report.micrographs} micrograph{'s' * (report.micrographs != 1)}"
    print(f"{report.picks:,} picks of {micrographs_text} as {report.format}: {where}")
