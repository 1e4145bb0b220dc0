"""`pickeropt check`: its options, and what it says. `cli` hooks `run_check` in."""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pickeropt.commands import options as given

if TYPE_CHECKING:
    from pickeropt.frame.checking import CheckReport
    from pickeropt.frame.frame_config import Score, Verdict


WIDTH = 110

Model = Annotated[
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
    model: Model = None,
    diameter: Diameter = None,
    pixel_size: given.PixelSize = None,
    device: given.Device = "auto",
    json_file: Json = None,
) -> None:
    """Check picks against their micrographs.

    Compares what is under the picks as given with what is under them flipped, swapped, binned or
    shifted, and says which frame they are in; finds micrograph names that match no file, pixel sizes
    that differ, boxes too small, picks outside and duplicates. Exit code 0: all is fine; 1: unsure,
    or a warning; 2: something is wrong. Nothing is changed.
    """
    from pickeropt.frame.checking import CheckConfig, check
    from pickeropt.io.inputs import read_inputs

    files = [source.file for source in read_inputs(picks, empty=True).sources]
    score = None
    if model is not None:
        score, diameter = _classifier(model, device, diameter)
    config = CheckConfig(tuple(picks), tuple(micrographs or ()), diameter, pixel_size)
    report = check(files, config, score)
    show_check(report)
    if json_file is not None:
        from pickeropt.files import write_bytes_atomically

        text = json.dumps(report.as_json(), indent=2, ensure_ascii=False)
        write_bytes_atomically(json_file, f"{text}\n".encode())
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _classifier(model: Path, device: str, diameter: float | None) -> tuple["Score", float]:
    """P(particle) at places on a micrograph, and the diameter in Å that the model looks for."""
    import numpy as np

    from pickeropt.errors import GeometryError
    from pickeropt.io.micrographs import read_micrograph
    from pickeropt.prune.scoring import load_scorer
    from pickeropt.records import PARTICLE

    scorer = load_scorer(model, device, None, diameter)
    column = scorer.class_names.index(PARTICLE)

    def score(site: Any, places: Any) -> Any:
        if site.pixel_size is None:
            raise GeometryError(f"{site.header.path}: its pixel size is unknown; give it with --pixel-size")
        found = scorer.score(read_micrograph(site.header.path, site.header), places, site.pixel_size)
        return np.asarray(found[:, column], dtype=np.float64)

    return score, scorer.diameter_angstrom


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
    show(f"all in all: {report.level}")


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
