"""Do the probabilities mean what they say: calibration error and Brier score."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration:
    """How far P(particle) is from the observed share of particles.

    expected_calibration_error : 0 to 1, 0 is perfect
    brier_score : mean squared difference of probability and outcome, 0 to 1
    mean_probability, true_share : per bin, None where it is empty
    counts : per bin
    """

    expected_calibration_error: float
    brier_score: float
    mean_probability: tuple[float | None, ...]
    true_share: tuple[float | None, ...]
    counts: tuple[int, ...]


def calibration(probability: NDArray[np.float64], is_true: NDArray[np.bool_], bins: int = 15) -> Calibration:
    """Calibration of one probability against what the picks turned out to be.

    probability : (n,) P(particle), 0 to 1, n at least 1
    is_true : (n,) bool
    bins : of equal width, [0, 1/bins), ... the last one closed; the value does not depend
        on the order of the picks, as bins of equal mass would at equal probabilities

    Expected calibration error: over the bins, share of picks in the bin x |mean probability
    - share of true picks| (Guo et al., ICML 2017, section 2, there for the predicted
    class). An incomplete truth makes a good classifier look overconfident.
    """
    outcome = is_true.astype(np.float64)
    index = np.minimum((probability * bins).astype(np.int64), bins - 1)
    counts = np.bincount(index, minlength=bins)
    probability_sum = np.bincount(index, weights=probability, minlength=bins)
    true_sum = np.bincount(index, weights=outcome, minlength=bins)
    error = np.abs(probability_sum - true_sum).sum() / len(probability)
    return Calibration(
        expected_calibration_error=float(error),
        brier_score=float(np.mean((probability - outcome) ** 2)),
        mean_probability=_means(probability_sum, counts),
        true_share=_means(true_sum, counts),
        counts=tuple(counts.tolist()),
    )


def _means(sums: NDArray[Any], counts: NDArray[Any]) -> tuple[float | None, ...]:
    pairs = zip(sums.tolist(), counts.tolist(), strict=True)
    return tuple(total / count if count else None for total, count in pairs)
