"""What a score means: from the network's log odds to the share of such candidates that are particles."""

import numpy as np
from numpy.typing import NDArray

Calibration = tuple[float, float]
"""Slope and offset of the log odds, from the network's to those of a score."""
UNCALIBRATED: Calibration = (1.0, 0.0)
CALIBRATION = "calibration"
"""Its name beside the network's weights."""
MOST_ODDS = 700.0
"""Log odds beyond which a score is 0 or 1 in float64."""


def log_odds_of(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln(p / (1 - p)), finite: (n,)."""
    least = np.finfo(np.float64).tiny
    odds: NDArray[np.float64] = np.log(np.maximum(scores, least)) - np.log(np.maximum(1 - scores, 2.0**-53))
    return odds


def score_of(log_odds: NDArray[np.float64], scale: Calibration) -> NDArray[np.float64]:
    """Scores 0 to 1 of the network's log odds, (n,)."""
    scaled = np.clip(scale[0] * log_odds + scale[1], -MOST_ODDS, MOST_ODDS)
    scores: NDArray[np.float64] = 1 / (1 + np.exp(-scaled))
    return scores


def calibrated(score: float, scale: Calibration) -> float:
    """What a score of the uncalibrated network becomes, less a trifle, so that it still counts as reached."""
    return float(score_of(log_odds_of(np.array([score])), scale)[0]) * (1 - 1e-9)
