"""`pickeropt report`: the report of a pruning once more. `cli` hooks `run_report` in."""

from pathlib import Path
from typing import Annotated

import typer

from pickeropt.commands.options import option
from pickeropt.errors import FormatError
from pickeropt.report.rerun_command import ReportConfig

RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder that prune wrote.")]
Overlays = Annotated[
    int,
    option(
        "--overlays",
        "N",
        "Pictures of the N micrographs with the largest and of the N with the smallest rejected share.",
        min=0,
    ),
]
Stars = Annotated[
    list[Path] | None,
    option(
        "--ctf", "FILE", "STAR file of micrographs with ice thickness or defocus, as from CtfFind; may be repeated."
    ),
]


def run_report(folder: RunFolder, overlays: Overlays = ReportConfig.overlays, ctf: Stars = None) -> None:
    """Write the report of a pruned run again.

    DIR gets report.html, one file that any browser opens from disk, contact_sheet.png and
    overlays/NAME.png, as prune writes them. Where micrographs are gone the report has no
    pictures of them.
    """
    from pickeropt.report.ice_and_defocus import silent_stars
    from pickeropt.report.kinds import read_run
    from pickeropt.report.reporting import write_report

    stars = tuple(ctf or ())
    for path in stars:
        if not path.is_file():
            raise FormatError.missing(path)
    report = write_report(folder, ReportConfig(overlays, stars))
    silent = silent_stars(read_run(folder), stars) if stars else ()
    for warning in (*report.warnings, *silent):
        typer.echo(f"warning: {warning}")
    for path in report.written:
        typer.echo(f"written: {path}")
