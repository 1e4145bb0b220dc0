"""The records that travel between rooms, and the class names.

Coordinates are (x, y) in pixels of the named micrograph, 0-based, rows as stored in the
MRC file, pick centres; arrays of pixels are indexed [y, x].
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pandas import DataFrame

FloatArray = NDArray[np.float32]
OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""
OnCount = Callable[[int, int], None]
"""Called with how much is done, and how much there is."""

PARTICLE = "particle"
"""The class that is kept; first in every class list."""

DEFAULT_CLASSES = (PARTICLE, "background", "contaminant", "carbon")
"""The four classes of the documentation; a user may name any others beside `particle`."""


@dataclass(frozen=True)
class Micrograph:
    """One micrograph in memory.

    path : the file it was read from
    pixels : (h, w) float32, rows as stored
    pixel_size : Å/px, or None where the header does not say (0 and 1 mean unset)
    """

    path: Path
    pixels: FloatArray
    pixel_size: float | None


@dataclass(frozen=True)
class Picks:
    """The picks of one coordinate file, in its order.

    coordinates : (n, 2) float64, x and y of the pick centre, px
    micrograph_names : the distinct names as the file has them, in order of first mention
    micrograph_index : (n,) int64, into `micrograph_names`
    figure_of_merit : (n,) float64, the picker's own score, NaN where it gave none
    class_names : (n,) str per pick where the file has labels (`_pickeroptClass`), else None
    pixel_size : Å/px of the file's optics block, None where it has none
    """

    coordinates: NDArray[np.float64]
    micrograph_names: tuple[str, ...]
    micrograph_index: NDArray[np.int64]
    figure_of_merit: NDArray[np.float64]
    class_names: tuple[str, ...] | None = None
    pixel_size: float | None = None

    def __len__(self) -> int:
        return len(self.coordinates)


@dataclass(frozen=True)
class Scores:
    """The class probabilities of n picks, by row.

    class_names : k names, `particle` first
    probabilities : (n, k) float32, rows sum to 1

    >>> picks = pickeropt.read_picks("picks.star", micrographs="micrographs")
    >>> scores = pickeropt.Model.load("model.safetensors").score(picks)
    >>> scores.class_names, scores.probabilities.shape, scores.particle.shape
    (('particle', 'background', 'carbon'), (94, 3), (94,))
    """

    class_names: tuple[str, ...]
    probabilities: FloatArray

    @property
    def particle(self) -> FloatArray:
        """P(particle), (n,) float32.

        >>> picks = pickeropt.read_picks("picks.star", micrographs="micrographs")
        >>> bool((pickeropt.Model.load("model.safetensors").score(picks).particle <= 1).all())
        True
        """
        column: FloatArray = self.probabilities[:, self.class_names.index(PARTICLE)]
        return column

    def to_pandas(self) -> "DataFrame":
        """A row a pick, a column a class, the probabilities.

        >>> picks = pickeropt.read_picks("picks.star", micrographs="micrographs")
        >>> scores = pickeropt.Model.load("model.safetensors").score(picks)
        >>> picks.to_pandas().join(scores.to_pandas()).shape
        (94, 9)
        """
        from pandas import DataFrame

        return DataFrame(self.probabilities, columns=list(self.class_names))
