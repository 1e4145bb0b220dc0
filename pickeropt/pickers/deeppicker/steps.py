"""From the score map to picks: cleaning, filtering, sorting (Wang et al. 2016, sections 2.1 and 4.5)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pickeropt.datasets.domains import relative_domains
from pickeropt.pickers.deeppicker.network import PATCH, STEP
from pickeropt.pickers.peaks import local_maxima

Indices = NDArray[np.int64]


def cleaned(log_odds: NDArray[np.floating], large_domain: float) -> NDArray[np.float64]:
    """The map, NaN on connected domains above a score of 0.5 that are too large.

    large_domain : times the average size of the map's domains; 0 cleans nothing
    """
    kept = log_odds.astype(np.float64)
    if large_domain:
        kept[relative_domains(log_odds, 0.0) > large_domain] = np.nan
    return kept


def peaks(log_odds: NDArray[np.float64], peak_window: float) -> tuple[Indices, Indices, NDArray[np.float64]]:
    """Windows with the best score within a peak window, best first: rows, columns, log odds, (n,) each.

    peak_window : windows; peaks are more than half of it apart

    Inside an area of one and the same score, as empty pixels have, there is no peak.
    """
    flat = np.zeros(log_odds.shape, dtype=np.bool_)
    same_above, same_left = np.diff(log_odds, axis=0) == 0, np.diff(log_odds, axis=1) == 0
    flat[1:, 1:] = same_above[:, 1:] & same_left[1:, :]
    return local_maxima(np.where(flat, np.nan, log_odds), peak_window / 2 * PATCH / STEP, -np.inf)


def extreme_counts(view: Tensor, extreme: float) -> NDArray[np.int64]:
    """Pixels of each window that are more than `extreme` noise units from the grey level: (rows, columns).

    view : (1, 1, h, w), grey level 0 and noise 1
    """
    far = (view.abs() > extreme).double()
    sums = functional.pad(far[0, 0].cumsum(0).cumsum(1), (1, 0, 1, 0))
    counts = sums[PATCH:, PATCH:] - sums[:-PATCH, PATCH:] - sums[PATCH:, :-PATCH] + sums[:-PATCH, :-PATCH]
    return counts[::STEP, ::STEP].round().to(torch.int64).numpy()


def usual(counts: NDArray[np.int64], deviations: float) -> NDArray[np.bool_]:
    """Which candidates of a micrograph, (n,), have no more extreme pixels than the others have.

    deviations : standard deviations above the mean number of the candidates
    """
    if not len(counts):
        return np.ones(0, dtype=np.bool_)
    few: NDArray[np.bool_] = counts <= counts.mean() + deviations * counts.std()
    return few
