"""`pickeropt check`: its options, its call and its table."""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pickeropt.commands import options as given

if TYPE_CHECKING:
    from pickeropt.frame.checking import CheckReport
    from pickeropt.frame.frame_config import Verdict


WIDTH = 110

ModelFile = Annotated[
    Path | None,
    given.option("--model", "FILE", "Compare by the P(particle) of this model instead of contrast; slower."),
]
Diameter = Annotated[
    float | None,
    given.option("--diameter", "Å", "Particle diameter; default: the model's, else several are tried."),
]
Json = Annotated[Path | None, given.option("--json", "FILE", "Also write all results to this file.")]


def run_check(
    picks: given.Picks,
    micrographs: given.Folders = None,
    model: ModelFile = None,
    diameter: Diameter = None,
    pixel_size: given.PixelSize = None,
    device: given.Device = "auto",
    json_file: Json = None,
) -> None:
    """Check whether picks fit their micrographs.

    Compares the picks as given with the same picks flipped, swapped, binned or shifted, and reports
    which frame they are in. Finds micrograph names that match no file, pixel sizes that differ, boxes
    too small, picks outside and duplicates. Exit code 0: all is fine; 1: unsure, or a warning; 2: a
    fault. Nothing is changed.
    """
    from pickeropt.api import Model, check

    judge = None if model is None else Model.load(model, device=device, diameter=diameter)
    report = check(picks, micrographs=micrographs or (), model=judge, diameter=diameter, pixel_size=pixel_size)
    show_check(report)
    if json_file is not None:
        from pickeropt.files import write_bytes_atomically

        text = json.dumps(report.as_json(), indent=2, ensure_ascii=False)
        write_bytes_atomically(json_file, f"{text}\n".encode())
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def show_check(report: "CheckReport", show: Callable[[str], None] = print) -> None:
    """A line a finding with its remedy below it, then the frames that fit best."""
    show(f"{report.picks:,} picks, {report.micrographs:,} micrographs")
    show("")
    for finding in report.findings:
        head = f"{finding.what:12s}{finding.level:9s}"
        show(textwrap.fill(head + finding.text, WIDTH, subsequent_indent=" " * 21, break_long_words=False))
        if finding.remedy:
            show(f"{'':21s}-> {finding.remedy}")  # one line, to be copied
    show("")
    _show_frames(report.verdict, show)
    show(f"overall: {report.level}")


def _show_frames(verdict: "Verdict", show: Callable[[str], None]) -> None:
    if not verdict.candidates:
        return
    show(f"{'frame':46s}{'evidence':>10s}{'by chance':>12s}{'outside':>10s}{'probability':>13s}")
    for c in verdict.candidates:
        row = f"{c.frame.name:46s}{c.evidence:>+10.3f}{f'± {c.error:.3f}':>12s}{c.outside:>10.1%}"
        show(f"{row}{c.probability:>13.2%}")
    looked = f"{verdict.picks:,} picks on {verdict.micrographs} of the micrographs"
    colour = "dark" if verdict.dark else "bright"
    at = "" if verdict.diameter_px is None else f", {verdict.diameter_px:.0f} px across"
    show(f"(looked at {looked}, for {colour} particles{at})")
    show("")
