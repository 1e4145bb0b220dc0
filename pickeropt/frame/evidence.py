"""The evidence for a frame: the rank of local contrast under the picks, and what it says about every frame.

A micrograph is binned until the particle is some 12 cells across, and filtered by a difference of
Gaussians: dark blobs of the particle's size come out high. The values are replaced by their rank
among all cells, -1 to 1: under a wrong frame the ranks of the picks are as good as drawn evenly
(mean 0, variance 1/3), whatever ice, carbon or hot pixels are there. Where particles are bright all
of it changes sign.

The mean rank under a wrong frame is therefore normal around 0 with a known error; under the right one it may be
anything above. The weight of a frame is its prior times ``exp(z² / 2)``, z its evidence in standard errors (0
where negative): the likelihood of the signal that fits best against that of none. Probabilities are weights
over their sum.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

from pickeropt.errors import MicrographError
from pickeropt.frame.frame_config import (
    FRAMES,
    IDENTITY,
    RIGHT,
    SHIFTED,
    UNSURE,
    WRONG,
    Candidate,
    Frame,
    FrameConfig,
    FrameDecision,
    FrameSite,
    Score,
    Verdict,
)
from pickeropt.io.micrographs import read_micrograph
from pickeropt.records import FloatArray

CENTRE, SURROUND = 0.2, 0.7
"""Standard deviations of the two Gaussians, diameters."""
WIDTHS = (1.0, 1.6)
"""Factors on both. A solid particle stands out by the narrow ones, a hollow one by the wide ones."""
GRID = 20
"""Places across a micrograph that a classifier is asked about, to know what chance gives."""
ScoreAt = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""P(particle), (m,), at (m, 2) x, y px."""


@dataclass(frozen=True)
class Evidence:
    """One micrograph, seen at the scale of its particle.

    ranks : (rows, columns) float32, -1 to 1, high where it is dark
    cell : px a cell
    shape : (h, w) px of the micrograph; diameter_px : of the particle
    coordinates : (m, 2) x, y as the file has them
    """

    ranks: FloatArray
    cell: int
    shape: tuple[int, int]
    diameter_px: float
    coordinates: NDArray[np.float64]

    def cells(
        self, frame: Frame, coordinates: NDArray[np.float64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Cells (k, 2) column, row of the picks inside, and (m,) which of them are inside.

        A pick whose particle touches the micrograph is inside, and has the cell nearest to it.
        """
        xy = frame.place(self.coordinates if coordinates is None else coordinates, self.shape)
        reach, sides = self.diameter_px / 2, np.array(self.shape[::-1])
        inside = np.all((xy > -reach) & (xy < sides + reach), axis=1)
        cells = np.floor(xy[inside] / self.cell).astype(np.int64)
        return np.clip(cells, 0, np.array(self.ranks.shape[::-1]) - 1), inside


@dataclass(frozen=True)
class FrameSums:
    """Sums over picks, one value a frame, float64; sums over micrographs are sums of these.

    ranks : sum of the ranks of the picks inside
    inside, outside : how many picks
    places : how many squares of a diameter hold picks, and as many for each outside:
        picks closer than that see the same
    """

    ranks: NDArray[np.float64]
    inside: NDArray[np.float64]
    outside: NDArray[np.float64]
    places: NDArray[np.float64]

    def evidence(self, sign: int) -> NDArray[np.float64]:
        """(frames,): the mean rank where dark is good (`sign` 1) or bad (-1); -1 for a pick outside."""
        return (sign * self.ranks - self.outside) / np.maximum(self.inside + self.outside, 1)

    def error(self) -> NDArray[np.float64]:
        """(frames,): the standard error of that by chance."""
        return np.sqrt(1 / 3 / np.maximum(self.places, 1))


def collect_evidence(
    pixels: FloatArray, diameter_px: float, coordinates: NDArray[np.float64], cells: int
) -> tuple[Evidence, ...]:
    """The evidence in a micrograph, (h, w) float32, for particles of a diameter in px: one for each width."""
    cell = max(1, round(diameter_px / cells))
    rows, columns = (side // cell for side in pixels.shape)
    binned = pixels[: rows * cell, : columns * cell]
    if cell > 1:  # rows first: so memory is read in order
        binned = binned.reshape(rows, cell, -1).mean(axis=1, dtype=np.float32)
        binned = binned.reshape(rows, columns, cell).mean(axis=2, dtype=np.float32)
    scales = [width * diameter_px / cell for width in WIDTHS]
    maps = [_ranks(contrast(binned, scale)) for scale in scales]
    return tuple(Evidence(ranks, cell, pixels.shape, diameter_px, coordinates) for ranks in maps)


def contrast(binned: FloatArray, diameter: float) -> FloatArray:
    """How much darker than its surroundings each cell is; diameter in cells."""
    centred = binned - np.median(binned)
    surround = ndimage.gaussian_filter(centred, SURROUND * diameter, truncate=3.0)
    found: FloatArray = surround - ndimage.gaussian_filter(centred, CENTRE * diameter)
    return found


def _ranks(values: FloatArray) -> FloatArray:
    order = np.argsort(values, axis=None)
    ranks = np.empty(values.size, dtype=np.float32)
    ranks[order] = np.linspace(-1, 1, values.size, dtype=np.float32)
    return ranks.reshape(values.shape)


def tally(evidence: Evidence, frames: Sequence[Frame]) -> FrameSums:
    """What is under the picks of one micrograph, for each frame."""
    sums = np.zeros((4, len(frames)))
    side = max(1, round(evidence.diameter_px / evidence.cell))
    across = evidence.ranks.shape[1] // side + 1
    for i, frame in enumerate(frames):
        cells, inside = evidence.cells(frame)
        coarse = cells // side
        outside = len(inside) - len(cells)
        places = len(np.unique(coarse[:, 1] * across + coarse[:, 0])) + outside
        sums[:, i] = evidence.ranks[cells[:, 1], cells[:, 0]].sum(), len(cells), outside, places
    return FrameSums(*sums)


def tally_scores(evidence: Evidence, frames: Sequence[Frame], score: ScoreAt, picks: int) -> FrameSums:
    """As `tally`, with P(particle) in place of contrast, ranked among places all over the micrograph.

    picks : at most so many are asked about under each frame
    """
    height, width = evidence.shape
    grid = np.meshgrid((np.arange(GRID) + 0.5) * width / GRID, (np.arange(GRID) + 0.5) * height / GRID)
    places = np.column_stack([axis.ravel() for axis in grid])
    few = evidence.coordinates[:: -(-len(evidence.coordinates) // picks)]
    inside = [evidence.cells(frame, few)[1] for frame in frames]
    asked = [f.place(few, evidence.shape)[i] for f, i in zip(frames, inside, strict=True)]
    found = score(np.concatenate([places, *asked]))
    among, parts = (
        np.sort(found[: GRID**2]),
        np.split(found[GRID**2 :], np.cumsum([len(a) for a in asked])[:-1]),
    )
    sums = np.zeros((4, len(frames)))
    for i, (part, xy) in enumerate(zip(parts, asked, strict=True)):
        below = np.searchsorted(among, part, "left") + np.searchsorted(among, part, "right")
        outside = len(few) - len(part)
        squares = len(np.unique(xy // evidence.diameter_px, axis=0)) + outside
        sums[:, i] = (below / GRID**2 - 1).sum(), len(part), outside, squares
    return FrameSums(*sums)


def total(tallies: Sequence[FrameSums]) -> FrameSums:
    """The sums over micrographs."""
    rows = [(t.ranks, t.inside, t.outside, t.places) for t in tallies]
    return FrameSums(*np.sum(rows, axis=0))


def shift_sums(evidence: Evidence, frames: Sequence[Frame], reach: int) -> NDArray[np.float64]:
    """(frames, 2 reach + 1, 2 reach + 1): sums of ranks with the picks shifted by dy, dx cells.

    The cross-correlation of the picks' density with the map, round the middle only; a pick shifted
    out of the micrograph adds 0.
    """
    side = 2 * reach + 1
    windows = sliding_window_view(np.pad(evidence.ranks, reach), (side, side))
    sums = np.zeros((len(frames), side, side))
    for i, frame in enumerate(frames):
        cells, _ = evidence.cells(frame)
        for part in np.array_split(cells, max(1, len(cells) // 256)):
            sums[i] += windows[part[:, 1], part[:, 0]].sum(axis=0, dtype=np.float64)
    return sums


SHOWN = 5
MOST = 0.9999
"""No probability is said to be higher: the model of chance is not exact."""
GIVEN = 0.9
"""Prior of the frame as given; the other frames share the rest."""
SHIFTS = 60
"""Shifts within reach that see different things: each has this part of the prior of its frame."""


def judge(
    evidence: Sequence[Evidence],
    names: Sequence[str],
    config: FrameConfig,
    asks: Sequence[ScoreAt] | None = None,
) -> Verdict:
    """The frame that the picks of these micrographs are in, taken together.

    names : of the micrographs, for those that alone are in another frame than all together
    asks : classifiers, one a micrograph, that judge in place of contrast (which still finds shifts)
    """
    picks = sum(len(e.coordinates) for e in evidence)
    diameter = evidence[0].diameter_px if evidence else None
    if picks < config.least_picks:
        return Verdict(_too_few(picks), (), True, (), picks, len(evidence), diameter)
    frames = (*FRAMES, *_best_shifts(evidence, config))
    if asks is None:
        tallies = [tally(e, frames) for e in evidence]
        sign = _sign(total(tallies))
    else:
        pairs = zip(evidence, asks, strict=True)
        tallies, sign = [tally_scores(e, frames, ask, config.scored) for e, ask in pairs], 1
    candidates = _candidates(frames, total(tallies), sign)
    opinion = _decide(candidates, config)
    odd = []
    for name, alone in zip(names, tallies, strict=True) if len(names) > 1 else ():
        said = _decide(_candidates(frames, alone, sign), config)
        if said.answer in (RIGHT, WRONG) and said.frame != opinion.frame:
            odd.append((name, said.frame))
    shown = tuple(sorted(candidates, key=lambda c: (-c.probability, -c.evidence))[:SHOWN])
    if IDENTITY not in [c.frame for c in shown]:
        shown = (*shown, candidates[0])
    return Verdict(opinion, shown, sign > 0, tuple(odd), picks, len(evidence), diameter)


def _too_few(picks: int) -> FrameDecision:
    """No verdict."""
    reason = f"{picks} picks are too few to tell" if picks else "there are no picks to look at"
    return FrameDecision(UNSURE, IDENTITY, 0.0, reason, doubtful=False)


def _best_shifts(evidence: Sequence[Evidence], config: FrameConfig) -> tuple[Frame, ...]:
    """The best shift of each frame of `SHIFTED`, for dark and for bright particles, but no small ones.

    Nor one that is about as good the other way round: the shell of a hollow particle and the lattice of
    an array are so, round picks that are right.
    """
    across = evidence[0].diameter_px / evidence[0].cell
    reach = round(config.reach * across)
    sums = np.sum([shift_sums(e, SHIFTED, reach) for e in evidence], axis=0)
    steps = np.arange(-reach, reach + 1)
    found = []
    for frame, square in zip(SHIFTED, sums, strict=True):
        for sign in (1, -1):
            row, column = divmod(int((sign * square).argmax()), len(steps))
            x, y = steps[[column, row]].tolist()
            there, opposite = square[row, column], square[-1 - row, -1 - column]
            if math.hypot(x, y) > config.tolerance * across and sign * opposite < sign * there / 2:
                found.append(frame.shifted(float(x * evidence[0].cell), float(y * evidence[0].cell)))
    return tuple(dict.fromkeys(found))


def _sign(sums: FrameSums) -> int:
    """1 where particles are dark, -1 where they are bright: under which the best frame is better."""
    best = {sign: float((sums.evidence(sign) / sums.error()).max()) for sign in (1, -1)}
    return 1 if best[1] >= best[-1] else -1


def _candidates(frames: Sequence[Frame], sums: FrameSums, sign: int) -> list[Candidate]:
    """All frames with their probabilities, in the order given."""
    evidence, error = sums.evidence(sign), sums.error()
    weights = np.log(_priors(frames)) + np.maximum(evidence / error, 0) ** 2 / 2
    odds = np.exp(weights - weights.max())
    probability = odds / odds.sum()
    outside = sums.outside / np.maximum(sums.inside + sums.outside, 1)
    columns = (evidence, error, outside, probability)
    rows = zip(frames, *(column.tolist() for column in columns), strict=True)
    return [Candidate(*row) for row in rows]


def _priors(frames: Sequence[Frame]) -> NDArray[np.float64]:
    others = (1 - GIVEN) / (len(FRAMES) - 1)
    share = [1.0 if frame.shift == (0.0, 0.0) else 1 / SHIFTS for frame in frames]
    return np.array([GIVEN if f.is_identity else others * s for f, s in zip(frames, share, strict=True)])


def _decide(candidates: Sequence[Candidate], config: FrameConfig) -> FrameDecision:
    """The first candidate is the frame as given."""
    given, best = candidates[0], max(candidates, key=lambda c: c.probability)
    sure = min(best.probability, MOST)
    believed = best.above_chance >= config.chance
    if best is given and believed and best.probability >= config.right:
        return FrameDecision(RIGHT, IDENTITY, sure, "the picks sit on what looks like particles", False)
    if best is not given and believed and best.probability >= config.wrong:
        reason = f"under the picks as given there is {_amount(given)}; {best.frame.name}: {_amount(best)}"
        return FrameDecision(WRONG, best.frame, sure, reason, False)
    if given.outside > config.outside:
        reason = f"{100 * given.outside:.0f} % of the picks lie outside, but no frame fits them clearly"
        return FrameDecision(UNSURE, best.frame, sure, reason, True)
    if best is not given:
        return FrameDecision(UNSURE, best.frame, sure, f"{best.frame.name} fits better, but not clearly", True)
    reason = "what is under the picks differs little from what is elsewhere"
    return FrameDecision(UNSURE, best.frame, sure, reason, False)


def _amount(candidate: Candidate) -> str:
    return f"evidence {candidate.evidence:+.2f} (chance ± {candidate.error:.2f})"


GUESSES = (90, 60, 40, 27, 18, 12)
"""An unknown diameter is one of these parts of a micrograph's shorter side."""
SMALLEST, LARGEST = 4.0, 0.5
"""px, and share of the shorter side: other diameters show no particles."""
AT_ONCE = 2
"""Micrographs in memory, as in `prune`."""


def judge_frame(sites: Sequence[FrameSite], config: FrameConfig, score: Score | None = None) -> Verdict:
    """What frame the picks are in, from a sample of the micrographs.

    A micrograph whose pixels cannot be used is passed over: whoever needs it will say so.
    score : a classifier to judge by in place of local contrast
    """
    seen: list[tuple[FrameSite, list[Evidence]]] = []
    chosen = choose_sites(sites, config)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for site, found in zip(chosen, pool.map(partial(_collect_evidence, config=config), chosen), strict=True):
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


def choose_sites(sites: Sequence[FrameSite], config: FrameConfig) -> list[FrameSite]:
    """Some micrographs, evenly spaced; of many among the half that has more picks than the others."""
    filled = [site for site in sites if len(site.coordinates)]
    if not filled:
        return []
    middle = float(np.median([len(site.coordinates) for site in filled]))
    many = len(filled) >= 2 * config.micrographs
    rich = [site for site in filled if len(site.coordinates) >= middle or not many]
    places = np.linspace(0, len(rich) - 1, min(config.micrographs, len(rich))).round().astype(int)
    chosen: list[FrameSite] = []
    pixels = 0
    for site in (rich[i] for i in places):
        pixels += site.shape[0] * site.shape[1]
        if pixels <= config.pixels or not chosen:
            chosen.append(site)
    return chosen


def choose_picks(site: FrameSite, config: FrameConfig) -> NDArray[np.float64]:
    """(m, 2): the better half by the picker's score, else picks evenly spaced in the file."""
    count = len(site.coordinates)
    if np.isfinite(site.figure_of_merit).all() and np.ptp(site.figure_of_merit) > 0:
        most = min(config.picks, max(config.half_from, count // 2))
        return site.coordinates[np.argsort(-site.figure_of_merit, kind="stable")[:most]]
    return site.coordinates[:: -(-count // config.unranked)]


def _collect_evidence(site: FrameSite, config: FrameConfig) -> list[Evidence]:
    """At all widths of the diameter, or of several where it is not known; none where nothing can be seen."""
    side = min(site.shape)
    diameters = [side / part for part in GUESSES] if site.diameter_px is None else [site.diameter_px]
    diameters = [d for d in diameters if SMALLEST <= d <= LARGEST * side]
    try:
        pixels = read_micrograph(site.header.path, site.header).pixels
    except (MicrographError, OSError, ValueError):
        return []
    if pixels.shape != site.shape:
        return []
    picks = choose_picks(site, config)
    return [e for diameter in diameters for e in collect_evidence(pixels, diameter, picks, config.cells)]
