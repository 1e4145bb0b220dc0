"""The check of picks against their micrographs: what can be wrong, and what to do about it.

A check gives findings: names, pixel sizes, boxes, picks outside, duplicates, and the frame in words.

For names that match no file, the rule that would make them match is proposed.
"""

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from pickeropt.frame.evidence import judge_frame
from pickeropt.frame.frame_config import IDENTITY, RIGHT, UNSURE, WRONG, Frame, FrameConfig, FrameSite, Score, Verdict
from pickeropt.io.find import EXTENSIONS
from pickeropt.io.lists import is_coordinate_list, is_suffix_file
from pickeropt.io.micrographs import AGREE, MicrographHeader
from pickeropt.io.picks_file import PicksFile
from pickeropt.sites import Micrographs, SitedPicks

SAMPLE = 20
"""Names that rules are guessed from; each is then tried on all."""
LEAST = 3
"""Letters that a name must have to be looked for inside another."""
_DIGIT = re.compile(r"\d")
_PREFIX = re.compile(r"^\d{15,21}_")


@dataclass(frozen=True)
class Rule:
    """A change of names.

    what : in words, e.g. ``without _DW``
    matched : how many of the missing names it makes match; example : one of them, and the file
    """

    what: str
    matched: int
    example: tuple[str, str]


@dataclass(frozen=True)
class _Change:
    """Text that is taken off or put before and behind a stem, and whether case counts."""

    drop_before: str = ""
    drop_behind: str = ""
    before: str = ""
    behind: str = ""
    any_case: bool = False
    drop_number: bool = False

    def apply(self, stem: str) -> str | None:
        """The changed stem, None where there is nothing to take off."""
        if self.drop_number:
            stem, count = _PREFIX.subn("", stem)
            if not count:
                return None
        if not (stem.startswith(self.drop_before) and stem.endswith(self.drop_behind)):
            return None
        kept = stem[len(self.drop_before) : len(stem) - len(self.drop_behind)]
        changed = self.before + kept + self.behind
        return changed.lower() if self.any_case else changed

    @property
    def words(self) -> str:
        parts = ["without the number that cryoSPARC puts before the name"] if self.drop_number else []
        parts += [f"without {text!r}" for text in (self.drop_before, self.drop_behind) if text]
        parts += [f"with {self.before!r} before it"] if self.before else []
        parts += [f"with {self.behind!r} behind it"] if self.behind else []
        parts += ["with capitals and small letters as in the files"] if self.any_case else []
        return " and ".join(parts) or "with the extension of the files"


def propose_rule(missing: Sequence[str], files: Sequence[Path]) -> Rule | None:
    """The rule under which most of the missing names are those of files, None where there is none.

    Extensions and folders count for nothing here; a rule must lead to one file only.
    """
    stems: dict[str, list[Path]] = {}
    lower: dict[str, list[Path]] = {}
    for path in files:
        stems.setdefault(path.stem, []).append(path)
        lower.setdefault(path.stem.lower(), []).append(path)
    guesses = Counter(g for name in missing[:SAMPLE] for g in set(_guesses(stem_of(name), stems)))
    rules = []
    likely = [change for change, _ in guesses.most_common(SAMPLE)]
    for change in [_Change(), _Change(any_case=True), *likely]:
        known = lower if change.any_case else stems
        pairs = [(name, known.get(change.apply(stem_of(name)) or "", [])) for name in missing]
        hits = [(name, found[0].name) for name, found in pairs if len(found) == 1]
        if len({file for _, file in hits}) == len(hits) > 0:
            rules.append(Rule(change.words, len(hits), hits[0]))
    return max(rules, key=lambda rule: (rule.matched, -len(rule.what)), default=None)


def stem_of(name: str) -> str:
    """The file name without folders and the extension of a micrograph."""
    last = PurePath(name).name
    return last[: last.rindex(".")] if last.lower().endswith(EXTENSIONS) else last


def _guesses(stem: str, stems: Iterable[str]) -> Iterator[_Change]:
    """Changes that make this one match: a file's stem in the name, the name in a file's stem, other ends.

    Digits tell micrographs apart, so none is changed at an end that differs, and no number is cut.
    """
    bare = _PREFIX.sub("", stem)
    if bare != stem:
        yield _Change(drop_number=True)
        return
    for other in stems:
        if min(len(stem), len(other)) < LEAST or other == stem:
            continue
        inner, outer = sorted((stem, other), key=len)
        before, found, behind = outer.partition(inner)
        if found and not _cuts_number(before, inner) and not _cuts_number(inner, behind):
            if outer == stem:
                yield _Change(drop_before=before, drop_behind=behind)
            else:
                yield _Change(before=before, behind=behind)
            continue
        length = next((i for i, (a, b) in enumerate(zip(stem, other, strict=False)) if a != b), 0)
        if length >= max(LEAST, len(stem) // 2) and not _DIGIT.search(stem[length:] + other[length:]):
            yield _Change(drop_behind=stem[length:], behind=other[length:])


def _cuts_number(left: str, right: str) -> bool:
    return left[-1:].isdigit() and right[:1].isdigit()


FINE, WARNING, FAULT = "fine", "warning", "fault"
CLOSE = 1 / 3
"""Picks closer than this part of the diameter are of one particle."""
SOME = 0.01
"""A smaller share of duplicates is any picker's."""
SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table.

    level : `fine`, `warning` or `fault` (prune would refuse, or do harm)
    remedy : what to do, empty where nothing is to be done
    """

    what: str
    level: str
    text: str
    remedy: str = ""


def check_names(found: int, missing: Mapping[str, Path], files: Sequence[Path]) -> Finding:
    """Names of micrographs against files.

    found : how many names have a file; missing : the others, with the file of picks that has them
    files : the micrographs that are there
    """
    if not missing:
        return Finding("names", FINE, f"all {found} micrographs are there")
    names = list(missing)
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    text = f"{len(names)} of {found + len(names)} names match no micrograph: {shown}"
    rule = propose_rule(names, files)
    if rule is None:
        there = f"; there are {', '.join(path.name for path in files[:SHOWN])}" if files else ""
        return Finding("names", FAULT, text + there, "give the folder of these micrographs with --micrographs")
    name, file = rule.example
    remedy = f"{rule.what} {rule.matched} of them match ({name} -> {file}): rename them so in the picks"
    return Finding("names", FAULT, text, f"{remedy}, or the files")


def check_pixel_sizes(flag: float | None, headers: Sequence[MicrographHeader], optics: Mapping[str, float]) -> Finding:
    """Flag, headers and optics blocks against each other; sizes within 1 % are the same."""
    said = {f"the header of {h.path.name}": h.pixel_size for h in headers if h.pixel_size is not None}
    said |= optics
    if flag is not None:
        said["--pixel-size"] = flag
    if not said:
        text = "neither flag, header nor optics block says one"
        return Finding("pixel size", WARNING, text, "give it with --pixel-size")
    low, high = min(said, key=lambda who: said[who]), max(said, key=lambda who: said[who])
    if said[high] <= said[low] * (1 + AGREE):
        return Finding("pixel size", FINE, f"{said[high]:.6g} Å/px by {_many(len(said), 'source')}")
    text = f"{said[low]:.6g} Å/px by {low}, {said[high]:.6g} Å/px by {high}"
    if flag is not None:
        return Finding("pixel size", WARNING, text, "the flag counts; make sure that it is right")
    return Finding("pixel size", FAULT, text, "give the right one with --pixel-size")


def check_boxes(files: Sequence[PicksFile], diameter_px: float | None) -> Finding | None:
    """Boxes against the particle; None where no file has boxes or no one knows the diameter."""
    sizes = [file.box_sizes for file in files if file.box_sizes is not None and len(file.box_sizes)]
    if not sizes or diameter_px is None:
        return None
    sides = np.concatenate(sizes).min(axis=1)
    small = int((sides < diameter_px).sum())
    if not small:
        return Finding("boxes", FINE, f"{sides.min():g} px and more hold the particle, {diameter_px:.0f} px")
    text = f"{small} of {len(sides)} boxes are smaller than the particle"
    text = f"{text}: {sides.min():g} px for {diameter_px:.0f} px"
    remedy = "check --diameter and --pixel-size, and extract with larger boxes; are they of a binned image?"
    return Finding("boxes", WARNING, text, remedy)


def check_outside(sites: Sequence[FrameSite]) -> Finding:
    """Picks whose centre lies outside, and those whose particle does not even touch the micrograph."""
    centres = away = 0
    first = ""
    for site in sites:
        sides, reach = np.array(site.shape[::-1]), (site.diameter_px or 0) / 2
        xy = site.coordinates
        outside = ((xy < 0) | (xy > sides)).any(axis=1)
        if outside.any() and not first:
            x, y = xy[outside.argmax()].tolist()
            first = f", first x {x:g}, y {y:g} on {site.name}, {sides[0]} x {sides[1]} px"
        centres += int(outside.sum())
        away += int(((xy < -reach) | (xy > sides + reach)).any(axis=1).sum())
    picks = sum(len(site.coordinates) for site in sites)
    if not centres:
        return Finding("places", FINE, f"all {picks:,} picks lie in their micrographs")
    text = f"{centres:,} of {picks:,} picks lie outside{first}"
    if away:
        remedy = "give the micrographs that were picked, or mend the frame (see above)"
        return Finding("places", FAULT, f"{text}; {away:,} by more than a radius", remedy)
    return Finding("places", WARNING, text, "none by more than a radius: prune takes them as they are")


def check_duplicates(sites: Sequence[FrameSite]) -> Finding | None:
    """Picks closer to another one than a third of the diameter; None where no one knows the diameter."""
    known = [site for site in sites if site.diameter_px is not None and len(site.coordinates)]
    if not known:
        return None
    double = picks = 0
    for site in known:
        pairs = cKDTree(site.coordinates).query_pairs((site.diameter_px or 0) * CLOSE, output_type="ndarray")
        double += len(np.unique(pairs.max(axis=1))) if len(pairs) else 0
        picks += len(site.coordinates)
    text = f"{double:,} of {picks:,} picks are closer to an earlier one than a third of the diameter"
    if double <= SOME * picks:
        return Finding("duplicates", FINE, text)
    remedy = "remove duplicates after extraction, or pick with a larger distance; is one file there twice?"
    return Finding("duplicates", WARNING, text, remedy)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


MENDED = "mended"
"""The folder that the remedies write to."""
SAME_ENDING = (".star", ".box", ".cbox", ".csv")
"""Files with these endings are converted to the same format, all others to STAR."""


def describe(verdict: Verdict, picks: Sequence[Path], micrographs: Sequence[Path]) -> tuple[str, str]:
    """What is said of the frame, and the remedy, empty where there is none.

    picks, micrographs : what the user gave, for commands to copy
    """
    opinion = verdict.opinion
    looked = f"{verdict.picks:,} picks on {_many(verdict.micrographs, 'micrograph')}"
    odd = "".join(f"; on {name} alone: {frame.name}" for name, frame in verdict.odd[:3])
    if opinion.answer == RIGHT:
        return f"right, {percent(opinion.probability)} sure: {opinion.reason} ({looked}){odd}", ""
    if opinion.answer == WRONG:
        text = f"wrong, {percent(opinion.probability)} sure: the coordinates {opinion.frame.what}"
        return f"{text} ({opinion.reason}; {looked}){odd}", remedy(opinion.frame, picks, micrographs)
    text = f"unsure: {opinion.reason} ({looked}){odd}"
    if opinion.doubtful and opinion.frame != IDENTITY:
        guess = remedy(opinion.frame, picks, micrographs)
        return text, f"look at some picks on their micrograph; if it is so, {guess}"
    return text, "look at some picks on their micrograph"


def remedy(frame: Frame, picks: Sequence[Path], micrographs: Sequence[Path]) -> str:
    """The command that brings the picks into the frame of the micrographs."""
    options = [] if frame.scale == 1 else ["--scale", f"{frame.scale:.10g}"]
    turns = {"--swap-xy": frame.swap, "--flip-x": frame.flip_x, "--flip-y": frame.flip_y}
    options += [option for option, wanted in turns.items() if wanted]
    options += [] if frame.shift == (0.0, 0.0) else ["--shift", f"{frame.shift[0]:.0f},{frame.shift[1]:.0f}"]
    options += [word for folder in micrographs for word in ("--micrographs", str(folder))]
    first = picks[0]
    name = first.name if first.suffix in SAME_ENDING else f"{first.stem}.star"
    many = first.is_dir() or (first.is_file() and (is_suffix_file(first) or is_coordinate_list(first)))
    out = [MENDED, "--to", "star"] if many else [f"{MENDED}/{name}"]  # it may be the micrograph's
    more = ", and the others likewise" if len(picks) > 1 else ""
    return f"convert them: {shlex.join(['pickeropt', 'convert', str(first), *out, *options])}{more}"


def percent(probability: float) -> str:
    """``99.9 %``, never 100."""
    return "more than 99.9 %" if probability > 0.999 else f"{100 * probability:.0f} %"


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
