"""From the evidence under each frame to an answer with a probability.

Under a wrong frame the mean rank of what is under the picks is normal around 0 with a known error;
under the right one it may be anything above. The weight of a frame is its prior times
``exp(z² / 2)``, z its evidence in standard errors (0 where negative): the likelihood of the signal
that fits best against that of none. Probabilities are weights over their sum.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pickeropt.frame.evidence import Ask, Evidence, Tally, shift_sums, tally, tally_scores, total
from pickeropt.frame.frame_config import RIGHT, UNSURE, WRONG, Candidate, FrameConfig, Opinion, Verdict
from pickeropt.frame.frames import FRAMES, IDENTITY, SHIFTED, Frame

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
    asks: Sequence[Ask] | None = None,
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
    opinion = _opinion(candidates, config)
    odd = []
    for name, alone in zip(names, tallies, strict=True) if len(names) > 1 else ():
        said = _opinion(_candidates(frames, alone, sign), config)
        if said.answer in (RIGHT, WRONG) and said.frame != opinion.frame:
            odd.append((name, said.frame))
    shown = tuple(sorted(candidates, key=lambda c: (-c.probability, -c.evidence))[:SHOWN])
    if IDENTITY not in [c.frame for c in shown]:
        shown = (*shown, candidates[0])
    return Verdict(opinion, shown, sign > 0, tuple(odd), picks, len(evidence), diameter)


def _too_few(picks: int) -> Opinion:
    """No verdict."""
    reason = f"{picks} picks are too few to tell" if picks else "there are no picks to look at"
    return Opinion(UNSURE, IDENTITY, 0.0, reason, doubtful=False)


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


def _sign(sums: Tally) -> int:
    """1 where particles are dark, -1 where they are bright: under which the best frame is better."""
    best = {sign: float((sums.evidence(sign) / sums.error()).max()) for sign in (1, -1)}
    return 1 if best[1] >= best[-1] else -1


def _candidates(frames: Sequence[Frame], sums: Tally, sign: int) -> list[Candidate]:
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


def _opinion(candidates: Sequence[Candidate], config: FrameConfig) -> Opinion:
    """The first candidate is the frame as given."""
    given, best = candidates[0], max(candidates, key=lambda c: c.probability)
    sure = min(best.probability, MOST)
    believed = best.above_chance >= config.chance
    if best is given and believed and best.probability >= config.right:
        return Opinion(RIGHT, IDENTITY, sure, "the picks sit on what looks like particles", False)
    if best is not given and believed and best.probability >= config.wrong:
        reason = f"under the picks as given there is {_amount(given)}; {best.frame.name}: {_amount(best)}"
        return Opinion(WRONG, best.frame, sure, reason, False)
    if given.outside > config.outside:
        reason = f"{100 * given.outside:.0f} % of the picks lie outside, but no frame fits them clearly"
        return Opinion(UNSURE, best.frame, sure, reason, True)
    if best is not given:
        return Opinion(UNSURE, best.frame, sure, f"{best.frame.name} fits better, but not clearly", True)
    reason = "what is under the picks differs little from what is elsewhere"
    return Opinion(UNSURE, best.frame, sure, reason, False)


def _amount(candidate: Candidate) -> str:
    return f"evidence {candidate.evidence:+.2f} (chance ± {candidate.error:.2f})"
