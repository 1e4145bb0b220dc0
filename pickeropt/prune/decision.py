"""The decision on each pick, and its counts.

The classifier's scores become those that decide: with the picker's score, where the user asked for it, and at
the share of particles among the picks (the prior). Both steps come after all micrographs are scored, so that a
run that is killed loses nothing by them.

P(particle) of a model assumes that half of the picks are particles. Saerens, Latinne and Decaestecker, Neural
Computation 14, 21 (2002): the share is estimated by expectation-maximisation from the probabilities alone,
without labels, and the probabilities are re-weighted to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pickeropt.prune.filters import Measure, out_of_bounds, too_close
from pickeropt.prune.picker_score import Labelled, ShotsOnPicks, combine, explained
from pickeropt.prune.plan import PrunePlan
from pickeropt.prune.prune_config import REASONS, Filters, PruneConfig
from pickeropt.prune.prune_summary import JudgedPicks
from pickeropt.prune.scoring import ScoringSetup
from pickeropt.records import PARTICLE, FloatArray, Scores

NEUTRAL = 0.5
"""The share that the probabilities of a model assume."""
LEAST = 0.01
"""An estimate stays this far from 0 and 1, so that no pick's score is lost."""
ROUNDS, ENOUGH = 10_000, 1e-7


def estimate_prior(probabilities: NDArray[np.floating]) -> float:
    """The share of particles among the picks, from LEAST to 1 - LEAST; half where there are no picks.

    probabilities : (n,) calibrated P(particle), under the assumption that half are particles
    The share of highest likelihood, which has one maximum. It is as good as the probabilities are
    calibrated: of a model that is too sure it is the share of picks above 0.5.
    """
    if not len(probabilities):
        return NEUTRAL
    particle = np.asarray(probabilities, dtype=np.float64)
    share = NEUTRAL
    for _ in range(ROUNDS):
        before, share = share, float(reweighted(particle, share).mean())
        share = min(max(share, LEAST), 1 - LEAST)
        if abs(share - before) < ENOUGH:
            break
    return share


def reweighted(probabilities: NDArray[np.floating], prior: float) -> NDArray[np.float64]:
    """(n,) P(particle) where a share `prior`, above 0 and below 1, of the picks are particles.

    probabilities : (n,) P(particle) where half of them are. Their order stays.
    """
    particle = np.asarray(probabilities, dtype=np.float64)
    weighted = prior * particle
    found: NDArray[np.float64] = weighted / (weighted + (1 - prior) * (1 - particle))
    return found


def with_picker_score(scores: Scores, figure_of_merit: NDArray[np.float64], labelled: Labelled) -> tuple[Scores, str]:
    """The scores of classifier and picker together, and what came of it in a sentence."""
    rows, is_particle = labelled
    shots = ShotsOnPicks(scores.particle[rows], figure_of_merit[rows], is_particle)
    particle, coefficients = combine(scores.particle, figure_of_merit, shots)
    return with_particle(scores, particle), explained(is_particle, coefficients.tolist())


def at_prior(scores: Scores, prior: float | Literal["auto"]) -> tuple[Scores, float]:
    """The scores where that share of the picks are particles, and the share."""
    share = estimate_prior(scores.particle) if prior == "auto" else prior
    if share == NEUTRAL:
        return scores, share
    return with_particle(scores, reweighted(scores.particle, share)), share


def with_particle(scores: Scores, particle: NDArray[np.float64]) -> Scores:
    """The scores with another P(particle), (n,); the other classes share what is left as they did before.

    Where they had nothing they share alike.
    """
    place = scores.class_names.index(PARTICLE)
    found = scores.probabilities.astype(np.float64)
    found[:, place] = 0
    others = np.arange(found.shape[1]) != place
    left = found.sum(axis=1)
    found[np.ix_(left == 0, others)] = 1.0
    found *= ((1 - particle) / np.where(left > 0, left, max(1, others.sum())))[:, None]
    found[:, place] = particle
    return replace(scores, probabilities=found.astype(np.float32))


@dataclass(frozen=True)
class Decision:
    """n picks decided.

    scores : those that decide, by `prior` and, where it was asked, with the picker's score
    measures : (n,) each, what filters held against their bounds, by name
    filtered : whether any filter is on
    notes : what was learnt on the way, a sentence each
    """

    scores: Scores
    judged: JudgedPicks
    measures: Mapping[str, FloatArray]
    filtered: bool
    prior: float
    notes: tuple[str, ...]


def decide(
    plan: PrunePlan, config: PruneConfig, setup: ScoringSetup, values: FloatArray, labelled: Labelled | None
) -> Decision:
    """Judge the picks by what `score_all` saw, (n, k + q).

    labelled : picks that have a label, where the picker's own score is used
    """
    names = tuple(setup.scorer.class_names)
    scores = Scores(names, values[:, : len(names)])
    notes: tuple[str, ...] = ()
    if labelled is not None:
        merits = plan.picks.figure_of_merit
        scores, note = with_picker_score(scores, merits, labelled)
        notes = (note,)
    scores, prior = at_prior(scores, config.prior)
    if prior != NEUTRAL:
        notes = (*notes, f"the scores take {100 * prior:.1f} % of the picks for particles")
    measured = values[:, len(names) :]
    judged = JudgedPicks(
        class_names=names,
        best=scores.probabilities.argmax(axis=1),
        micrographs=tuple(site.name for site in plan.picks.sites),
        micrograph=plan.picks.micrograph,
        above=scores.particle >= np.float32(config.threshold),
        reasons=_reasons(plan, (config.filters, setup.measures), measured, scores.particle),
    )
    measures = {m.name: measured[:, i] for i, m in enumerate(setup.measures)}
    return Decision(scores, judged, measures, config.filters != Filters(), prior, notes)


def _reasons(
    plan: PrunePlan, bounds: tuple[Filters, Sequence[Measure]], measured: FloatArray, particle: FloatArray
) -> NDArray[np.int64]:
    """(n,) index into `REASONS`. Picks that another filter drops push no neighbour out."""
    filters, measures = bounds
    reasons = out_of_bounds(measures, measured)
    if filters.min_distance is not None:
        for site in plan.picks.sites:
            rows = site.rows[reasons[site.rows] == 0]
            close = too_close(plan.picks.coordinates[rows], particle[rows], filters.min_distance / site.pixel_size)
            reasons[rows[close]] = REASONS.index("min-distance")
    return reasons
