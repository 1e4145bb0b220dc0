"""What else can be the matter with a file of picks: names, pixel sizes, boxes, places, duplicates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from pickeropt.frame.frame_config import Site
from pickeropt.frame.names import propose_rule
from pickeropt.io.micrographs import MicrographHeader
from pickeropt.io.picks_file import PicksFile
from pickeropt.io.pixel_size import AGREE

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
        return Finding(
            "names", FAULT, text + there, "give the folder of these micrographs with --micrographs"
        )
    name, file = rule.example
    remedy = f"{rule.what} {rule.matched} of them match ({name} -> {file}): rename them so in the picks"
    return Finding("names", FAULT, text, f"{remedy}, or the files")


def check_pixel_sizes(
    flag: float | None, headers: Sequence[MicrographHeader], optics: Mapping[str, float]
) -> Finding:
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


def check_outside(sites: Sequence[Site]) -> Finding:
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


def check_duplicates(sites: Sequence[Site]) -> Finding | None:
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
