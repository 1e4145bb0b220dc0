"""`check`: all that can be the matter with the frame of some files of picks, and what to do."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pickeropt.errors import MicrographError
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
from pickeropt.frame.frame_config import RIGHT, UNSURE, WRONG, FrameConfig, Score, Site, Verdict
from pickeropt.io.find import MicrographFinder
from pickeropt.io.micrographs import MicrographHeader, read_micrograph_header
from pickeropt.io.picks_file import PicksFile, placed

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
    found = _find(files, config)
    sites = [_site(place, config) for place in found.places.values()]
    verdict = judge_frame(sites, config.frame, score)
    known = [site.diameter_px for site in sites if site.diameter_px is not None]
    findings = [
        frame_finding(verdict, config.picks, config.micrographs),
        check_names(len(found.places), found.missing, found.files),
        *(Finding("micrographs", FAULT, text) for text in found.faults),
        check_pixel_sizes(config.pixel_size, [p.header for p in found.places.values()], found.optics),
        check_boxes(files, float(np.median(known)) if known else None),
        check_outside(sites),
        check_duplicates(sites),
    ]
    picks = sum(len(file.picks) for file in files)
    return CheckReport(verdict, tuple(f for f in findings if f is not None), len(sites), picks)


def frame_finding(verdict: Verdict, picks: Sequence[Path], micrographs: Sequence[Path]) -> Finding:
    """The verdict as a line of the table."""
    opinion = verdict.opinion
    text, remedy = describe(verdict, picks, micrographs)
    level = {RIGHT: WARNING if verdict.odd else FINE, UNSURE: WARNING, WRONG: FAULT}[opinion.answer]
    return Finding("frame", level, text, remedy)


@dataclass
class _Place:
    """A micrograph and what the files of picks say of it."""

    name: str
    header: MicrographHeader
    coordinates: list[np.ndarray[Any, np.dtype[np.float64]]] = field(default_factory=list)
    merit: list[np.ndarray[Any, np.dtype[np.float64]]] = field(default_factory=list)
    optics: float | None = None


@dataclass
class _Found:
    """Micrographs by real path, names without one, and what could not be read."""

    files: list[Path]
    places: dict[Path, _Place] = field(default_factory=dict)
    missing: dict[str, Path] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    optics: dict[str, float] = field(default_factory=dict)


def _find(files: Sequence[PicksFile], config: CheckConfig) -> _Found:
    finder = MicrographFinder(config.micrographs)
    found = _Found(finder.paths())
    for file in files:
        if file.picks.pixel_size is not None:
            found.optics[f"the optics block of {file.path.name}"] = file.picks.pixel_size
        heights = np.zeros(len(file.picks.micrograph_names), dtype=np.int64)
        here: list[_Place | None] = []
        for i, name in enumerate(file.picks.micrograph_names):
            place = _place(file, name, finder, found)
            heights[i] = place.header.shape[0] if place else 0
            here.append(place)
        xy = placed(file, heights[file.picks.micrograph_index])
        for i, place in enumerate(here):
            if place is not None:
                rows = file.picks.micrograph_index == i
                place.coordinates.append(xy[rows])
                place.merit.append(file.picks.figure_of_merit[rows])
                place.optics = file.picks.pixel_size if place.optics is None else place.optics
    return found


def _place(file: PicksFile, name: str, finder: MicrographFinder, found: _Found) -> _Place | None:
    try:
        path = finder.find_in(file, name)
        if path is None:
            found.missing[name] = file.path
            return None
        real = path.resolve()
        if real not in found.places:
            found.places[real] = _Place(path.name, read_micrograph_header(real))
    except MicrographError as error:
        found.faults.append(str(error))
        return None
    return found.places[real]


def _site(place: _Place, config: CheckConfig) -> Site:
    sizes = (config.pixel_size, place.header.pixel_size, place.optics)
    size = next((size for size in sizes if size is not None), None)
    diameter = None if size is None or config.diameter_angstrom is None else config.diameter_angstrom / size
    coordinates = np.concatenate(place.coordinates)
    merit = np.concatenate(place.merit)
    return Site(place.name, place.header.path, place.header.shape, diameter, size, coordinates, merit)
