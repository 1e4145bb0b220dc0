"""The check of picks: everything that can be wrong with files of picks and their micrographs, and what to do."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pickeropt.frame.evidence import judge_frame
from pickeropt.frame.findings import (
    FAULT,
    FINE,
    WARNING,
    Finding,
    check_boxes,
    check_duplicates,
    check_names,
    check_outside,
    check_pixel_sizes,
    describe,
)
from pickeropt.frame.frame_config import RIGHT, UNSURE, WRONG, FrameConfig, FrameSite, Score, Verdict
from pickeropt.io.picks_file import PicksFile
from pickeropt.sites import Micrographs, SitedPicks

LEVELS = (FINE, WARNING, FAULT)
THOROUGH = FrameConfig(micrographs=8, pixels=400_000_000)
"""More micrographs than `prune` looks at."""


@dataclass(frozen=True)
class CheckConfig:
    """The settings of `pickeropt check`.

    picks : what the user gave, for the remedies
    micrographs : folders to look for micrographs in
    diameter_angstrom : Å; None: the frame is judged at several, and boxes are not looked at
    pixel_size : Å/px; None: from optics block and MRC header
    """

    picks: tuple[Path, ...]
    micrographs: tuple[Path, ...] = ()
    diameter_angstrom: float | None = None
    pixel_size: float | None = None
    frame: FrameConfig = THOROUGH


@dataclass(frozen=True)
class CheckReport:
    """findings : that of the frame first; level : the worst of theirs"""

    verdict: Verdict
    findings: tuple[Finding, ...]
    micrographs: int
    picks: int

    @property
    def level(self) -> str:
        return max((finding.level for finding in self.findings), key=LEVELS.index)

    @property
    def exit_code(self) -> int:
        """0 all fine, 1 unsure or a warning, 2 a fault."""
        return LEVELS.index(self.level)

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        verdict = asdict(self.verdict)
        verdict["opinion"]["name"] = self.verdict.opinion.frame.name
        for shown, candidate in zip(verdict["candidates"], self.verdict.candidates, strict=True):
            shown["name"] = candidate.frame.name
        return {
            "level": self.level,
            "exit_code": self.exit_code,
            "picks": self.picks,
            "micrographs": self.micrographs,
            "frame": verdict,
            "findings": [asdict(finding) for finding in self.findings],
        }


def check(files: Sequence[PicksFile], config: CheckConfig, score: Score | None = None) -> CheckReport:
    """Look at files of picks and their micrographs.

    score : a classifier to judge the frame by, in place of local contrast
    Raises MicrographError for a folder that is not there, and where no micrograph can be read.
    """
    micrographs = Micrographs(config.micrographs, config.pixel_size, collect=True)
    picks = micrographs.locate(files, pixel_sizes=False)
    sites = _frame_sites(picks, config.diameter_angstrom)
    sizes = ((file.path.name, file.picks.pixel_size) for file in files)
    optics = {f"the optics block of {name}": size for name, size in sizes if size is not None}
    verdict = judge_frame(sites, config.frame, score)
    known = [site.diameter_px for site in sites if site.diameter_px is not None]
    findings = [
        frame_finding(verdict, config.picks, config.micrographs),
        check_names(len(sites), micrographs.missing, micrographs.finder.paths()),
        *(Finding("micrographs", FAULT, text) for text in micrographs.faults),
        check_pixel_sizes(config.pixel_size, [site.header for site in sites], optics),
        check_boxes(files, float(np.median(known)) if known else None),
        check_outside(sites),
        check_duplicates(sites),
    ]
    return CheckReport(verdict, tuple(f for f in findings if f is not None), len(sites), len(picks))


def frame_finding(verdict: Verdict, picks: Sequence[Path], micrographs: Sequence[Path]) -> Finding:
    """The verdict as a line of the table."""
    opinion = verdict.opinion
    text, remedy = describe(verdict, picks, micrographs)
    level = {RIGHT: WARNING if verdict.odd else FINE, UNSURE: WARNING, WRONG: FAULT}[opinion.answer]
    return Finding("frame", level, text, remedy)


def _frame_sites(picks: SitedPicks, diameter_angstrom: float | None) -> list[FrameSite]:
    found = []
    for site in picks.sites:
        size = None if np.isnan(site.pixel_size) else site.pixel_size
        diameter = None if size is None or diameter_angstrom is None else diameter_angstrom / size
        here = picks.coordinates[site.rows], picks.figure_of_merit[site.rows]
        found.append(FrameSite(site.found.name, site.header, diameter, size, *here))
    return found
