"""Micrographs and picks to look at, and the verdict on them. Reads some pixels; no network is needed."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import MicrographError
from pickeropt.frame.evidence import Evidence, look
from pickeropt.frame.frame_config import FrameConfig, Score, Site, Verdict
from pickeropt.frame.verdict import judge
from pickeropt.io.micrographs import read_micrograph

GUESSES = (90, 60, 40, 27, 18, 12)
"""An unknown diameter is one of these parts of a micrograph's shorter side."""
SMALLEST, LARGEST = 4.0, 0.5
"""px, and share of the shorter side: other diameters show no particles."""
AT_ONCE = 2
"""Micrographs in memory, as in `prune`."""


def judge_frame(sites: Sequence[Site], config: FrameConfig, score: Score | None = None) -> Verdict:
    """What frame the picks are in, from a sample of the micrographs.

    A micrograph whose pixels cannot be used is passed over: whoever needs it will say so.
    score : a classifier to judge by in place of local contrast
    """
    seen: list[tuple[Site, list[Evidence]]] = []
    chosen = choose_sites(sites, config)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for site, found in zip(chosen, pool.map(partial(_look, config=config), chosen), strict=True):
            if found:
                seen.append((site, found))
    if not seen:
        return judge([], [], config)
    fewest = min(len(found) for _, found in seen)  # of some the diameter is known, or only few can be seen
    seen = [(site, found) for site, found in seen if len(found) == fewest]
    names = [site.name for site, _ in seen]
    choices = list(zip(*(found for _, found in seen), strict=True))
    verdicts = [judge(evidence, names, config) for evidence in choices]
    best = max(range(len(choices)), key=lambda i: verdicts[i].strength)
    if score is None:
        return verdicts[best]
    return judge(choices[best], names, config, [partial(score, site) for site, _ in seen])


def choose_sites(sites: Sequence[Site], config: FrameConfig) -> list[Site]:
    """Some micrographs, evenly spaced; of many among the half that has more picks than the others."""
    filled = [site for site in sites if len(site.coordinates)]
    if not filled:
        return []
    middle = float(np.median([len(site.coordinates) for site in filled]))
    many = len(filled) >= 2 * config.micrographs
    rich = [site for site in filled if len(site.coordinates) >= middle or not many]
    places = np.linspace(0, len(rich) - 1, min(config.micrographs, len(rich))).round().astype(int)
    chosen: list[Site] = []
    pixels = 0
    for site in (rich[i] for i in places):
        pixels += site.shape[0] * site.shape[1]
        if pixels <= config.pixels or not chosen:
            chosen.append(site)
    return chosen


def choose_picks(site: Site, config: FrameConfig) -> NDArray[np.float64]:
    """(m, 2): the better half by the picker's score, else picks evenly spaced in the file."""
    count = len(site.coordinates)
    if np.isfinite(site.merit).all() and np.ptp(site.merit) > 0:
        most = min(config.picks, max(config.half_from, count // 2))
        return site.coordinates[np.argsort(-site.merit, kind="stable")[:most]]
    return site.coordinates[:: -(-count // config.unranked)]


def _look(site: Site, config: FrameConfig) -> list[Evidence]:
    """At all widths of the diameter, or of several where it is not known; none where nothing can be seen."""
    side = min(site.shape)
    diameters = [side / part for part in GUESSES] if site.diameter_px is None else [site.diameter_px]
    diameters = [d for d in diameters if SMALLEST <= d <= LARGEST * side]
    try:
        pixels = read_micrograph(site.path).pixels
    except (MicrographError, OSError, ValueError):
        return []
    if pixels.shape != site.shape:
        return []
    picks = choose_picks(site, config)
    return [e for diameter in diameters for e in look(pixels, diameter, picks, config.cells)]
