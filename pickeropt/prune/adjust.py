"""From the classifier's scores to those that decide: with the picker's, and at the right share of particles.

Both come after all micrographs are scored, so that a run that is killed loses nothing by them.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pickeropt.prune.picker_score import Labelled, ShotsOnPicks, combine, explained
from pickeropt.prune.prior import NEUTRAL, estimate_prior, reweighted
from pickeropt.records import PARTICLE, Scores


def with_picker_score(
    scores: Scores, figure_of_merit: NDArray[np.float64], labelled: Labelled
) -> tuple[Scores, str]:
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
