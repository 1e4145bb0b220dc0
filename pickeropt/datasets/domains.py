"""Connected domains of a map of scores, by which DeepPicker knows ice."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from pickeropt.records import FloatArray

LIKELY = 0.5
"""Grid points with a score above this are connected (Wang et al. 2016, section 4.5)."""


def relative_domains(score_map: NDArray[np.floating], likely: float = LIKELY) -> FloatArray:
    """Size of the connected domain that each grid point is in, over the average of the map's domains.

    score_map : (rows, columns); neighbours share a side
    returns : (rows, columns), 0 where the score is `likely` or less
    """
    domains, count = label(score_map > likely)
    if not count:
        return np.zeros(score_map.shape, dtype=np.float32)
    sizes = np.bincount(domains.ravel())
    relative = sizes / sizes[1:].mean()
    relative[0] = 0
    found: FloatArray = relative[domains].astype(np.float32)
    return found
