"""The verdict in words, with what to do."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from pickeropt.frame.frame_config import RIGHT, WRONG, Verdict
from pickeropt.frame.frames import IDENTITY, Frame
from pickeropt.io.lists import is_coordinate_list, is_suffix_file

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


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
