"""How many of the picks are particles, and what a score means where it is not half of them.

P(particle) of a model takes half of the picks for particles. Saerens, Latinne and Decaestecker, Neural
Computation 14, 21 (2002): the share is estimated by expectation-maximisation from the probabilities alone,
without labels, and the probabilities are re-weighted to it.
"""

import numpy as np
from numpy.typing import NDArray

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
