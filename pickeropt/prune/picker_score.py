"""The picker's own figure of merit as one more input of the decision, learnt on the user's shots.

The score is a logistic function of the classifier's log-odds and the picker's standardised figure of merit.
Shots that also trained the classifier are no fair test of it: it is sure of them. So their log-odds count no
further than `LIMIT`, and the coefficients are held near "the classifier is right, the picker says nothing"
by a Gaussian prior: what the picker is trusted with is rather too little than too much. The constant is free:
shots that are picks tell false picks from particles, where the others show what a micrograph holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial import cKDTree
from scipy.special import expit, logit

from pickeropt.errors import OutputError, ShotsError
from pickeropt.io.relion_star import NO_SCORE
from pickeropt.prune.plan import PrunePlan
from pickeropt.prune.prune_config import PruneConfig
from pickeropt.pruned_run import KEPT, REJECTED, read_summary
from pickeropt.records import PARTICLE
from pickeropt.shots import Shots, read_labelled_star

FEWEST = 5
"""Shots on picks that are needed of particles, and of all else."""
NEAR = 1 / 3
"""How far a shot may lie from its pick, in particle diameters."""
LIMIT = 3.0
"""The log-odds of shots count no further than this: 95 %."""
FAR = 4.0
"""Standard deviations beyond which a figure of merit says no more."""
SPREAD = np.array([0.25, 0.3, 2.0])
"""Standard deviations of the prior of the coefficients: of the log-odds, around 1; of the picker's score and
of the constant, around 0."""
SURE = 1e-7
"""P(particle) stays this far from 0 and 1 when it becomes log-odds."""

Floats = NDArray[np.floating]
Labelled = tuple[NDArray[np.int64], NDArray[np.bool_]]
"""(m,) places among the picks, and (m,) whether they are particles."""


@dataclass(frozen=True)
class ShotsOnPicks:
    """m labelled picks.

    probabilities : (m,) P(particle), of classifiers that had not seen the shots where there are such
    figure_of_merit : (m,) the picker's
    is_particle : (m,) bool
    """

    probabilities: Floats
    figure_of_merit: Floats
    is_particle: NDArray[np.bool_]


def combine(
    probabilities: Floats, figure_of_merit: Floats, shots: ShotsOnPicks
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P(particle) by classifier and picker, (n,), and what they count for, (3,).

    probabilities : (n,) the classifier's P(particle), where half of the picks are particles
    figure_of_merit : (n,) the picker's; NaN, and -999 as some write for it, counts as the average
    shots : need not be among the n picks, but come from the same picker
    The second is the coefficients of the log-odds, of the figure of merit in standard deviations of the n,
    and the constant. Raises ShotsError for too few shots, or where the picker gave one and the same score.
    """
    check_enough(shots.is_particle)
    scale = _scale(figure_of_merit)
    limited = np.clip(_odds(shots.probabilities), -LIMIT, LIMIT)
    inputs = np.column_stack([limited, _standardised(shots.figure_of_merit, *scale)])
    fitted = _fit(inputs, shots.is_particle)
    merit = _standardised(figure_of_merit, *scale)
    return expit(fitted[0] * _odds(probabilities) + fitted[1] * merit + fitted[2]), fitted


def _scale(figure_of_merit: Floats) -> tuple[float, float]:
    """Mean and standard deviation of the figures that are set."""
    some = figure_of_merit[_is_set(figure_of_merit)].astype(np.float64)
    if not len(some) or np.ptp(some) == 0:
        what = "have no score of the picker" if not len(some) else f"all have the picker's score {some[0]:g}"
        raise ShotsError(f"the picks {what}, so it decides nothing; leave out --use-picker-score")
    return float(some.mean()), float(some.std())


def _standardised(figure_of_merit: Floats, mean: float, deviation: float) -> NDArray[np.float64]:
    """(n,) standard deviations from the mean, within 4; 0 for what is not set."""
    known = _is_set(figure_of_merit)
    found = np.zeros(len(figure_of_merit))
    found[known] = np.clip((figure_of_merit[known] - mean) / deviation, -FAR, FAR)
    return found


def _is_set(figure_of_merit: Floats) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = np.isfinite(figure_of_merit) & (figure_of_merit != NO_SCORE)
    return known


def match_shots(plan: PrunePlan, shots: Shots, diameter_angstrom: float) -> Labelled:
    """The picks that have a shot within a third of the diameter, each with its nearest.

    Raises ShotsError for too few of them.
    """
    site_of = {site.path: site for site in plan.picks.sites}
    pairs: list[tuple[float, int, int]] = []
    for index, path in enumerate(shots.micrographs):
        site = site_of.get(path.resolve())
        if site is None:
            continue
        here = np.flatnonzero(shots.micrograph_index == index)
        reach = NEAR * diameter_angstrom / site.pixel_size
        tree = cKDTree(plan.picks.coordinates[site.rows])
        distances, picks = tree.query(shots.coordinates[here], distance_upper_bound=reach)
        found = np.isfinite(distances)
        rows = site.rows[picks[found]].tolist()
        pairs += zip(distances[found].tolist(), rows, here[found].tolist(), strict=True)
    shot_of: dict[int, int] = {}
    for _, row, shot in sorted(pairs):
        shot_of.setdefault(row, shot)
    places = sorted(shot_of)
    is_particle = shots.labels[[shot_of[row] for row in places]] == shots.class_names.index(PARTICLE)
    check_enough(is_particle)
    return np.array(places, dtype=np.int64), is_particle


def read_labelled_picks(plan: PrunePlan, config: PruneConfig, diameter_angstrom: float) -> Labelled | None:
    """The picks that `config.picker_shots` label, or None where the picker's score is not used.

    Raises as `read_labelled_star` does, and ShotsError for too few shots on picks, or picks without scores
    or with those of an earlier pruning.
    """
    if config.picker_shots is None:
        return None
    _check_scores_are_the_pickers(plan)
    _scale(plan.picks.figure_of_merit)
    shots = read_labelled_star(config.picker_shots, config.micrographs)
    return match_shots(plan, shots, diameter_angstrom)


def _check_scores_are_the_pickers(plan: PrunePlan) -> None:
    """Raises ShotsError for files that `prune --write-score` left: their scores are P(particle)."""
    for source in plan.sources:
        path = source.file.path.resolve()
        for side in path.parents:
            if side.name in (KEPT, REJECTED) and _writes_scores(side.parent):
                what = f"{path}: an earlier pruning (--write-score) put its own scores in place of the picker's"
                raise ShotsError(f"{what}; give the picker's file, or leave out --use-picker-score")


def _writes_scores(folder: Path) -> bool:
    """Whether a folder is that of a pruning with --write-score."""
    try:
        return bool(read_summary(folder)["settings"].get("write_score"))
    except OutputError:
        return False


def check_enough(is_particle: NDArray[np.bool_]) -> None:
    """Raises ShotsError, with the count, for fewer than five particles or five others on picks."""
    particles = int(is_particle.sum())
    others = len(is_particle) - particles
    if min(particles, others) < FEWEST:
        found = f"{particles} shots of particles and {others} of other classes lie on picks"
        why = f"at least {FEWEST} of each are needed to learn what the picker's score is worth"
        raise ShotsError(f"{found}; {why}: label some of the picks, or leave out --use-picker-score")


def explained(is_particle: NDArray[np.bool_], coefficients: Sequence[float]) -> str:
    """What came of it, in a sentence."""
    particles = int(is_particle.sum())
    learnt = f"learnt from {particles} shots of particles and {len(is_particle) - particles} others on picks"
    return (
        f"a standard deviation of the picker's score counts {coefficients[1]:+.2f} in log-odds, the "
        f"classifier's own log-odds {coefficients[0]:.2f} times; {learnt}"
    )


def _odds(probabilities: Floats) -> NDArray[np.float64]:
    found: NDArray[np.float64] = logit(np.clip(np.asarray(probabilities, dtype=np.float64), SURE, 1 - SURE))
    return found


def _fit(inputs: NDArray[np.float64], is_particle: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Coefficients (3,) of highest posterior; both labels weigh alike, as half of the picks are particles."""
    design = np.column_stack([inputs, np.ones(len(inputs))])
    sign = np.where(is_particle, 1.0, -1.0)
    share = float(is_particle.mean())
    weight = np.where(is_particle, 0.5 / share, 0.5 / (1 - share))
    middle = np.array([1.0, 0.0, 0.0])

    def loss(coefficients: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (design @ coefficients)
        off = (coefficients - middle) / SPREAD
        value = float(weight @ np.logaddexp(0, -margin) + off @ off / 2)
        return value, -design.T @ (weight * sign * expit(-margin)) + off / SPREAD

    found: NDArray[np.float64] = minimize(loss, middle, jac=True, method="BFGS").x
    return found
