"""What the frame doctor is told, what it looks at, and what it says."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.frame.frames import Frame

Score = Callable[["Site", NDArray[np.float64]], NDArray[np.float64]]
"""P(particle), (m,), at (m, 2) x, y px of a micrograph."""

RIGHT, WRONG, UNSURE = "right", "wrong", "unsure"


@dataclass(frozen=True)
class FrameConfig:
    """The settings of the frame doctor; docs/frames.md says how the bounds were chosen.

    micrographs, pixels : how many are looked at, at most so many px of them (but always one)
    picks : of each, the better half by the picker's own score, but at most so many
    half_from : so many in any case
    unranked : where the picker gave no score at most so many, evenly spaced in the file
    scored : of these so many are shown to a classifier, where one is asked
    least_picks : with fewer in all there is no verdict
    cells : map cells across a particle
    reach : the largest shift that is tried, diameters
    tolerance : a shift below it is the picker's own, diameters
    chance : standard errors above chance that a frame must have to be believed
    right, wrong : least probability for these answers
    outside : a larger share of picks outside the micrographs is a doubt by itself
    """

    micrographs: int = 3
    pixels: int = 60_000_000
    picks: int = 500
    half_from: int = 50
    unranked: int = 2000
    scored: int = 100
    least_picks: int = 30
    cells: int = 12
    reach: float = 1.2
    tolerance: float = 0.3
    chance: float = 4.0
    right: float = 0.95
    wrong: float = 0.999
    outside: float = 0.05


@dataclass(frozen=True)
class Site:
    """A micrograph and its picks.

    shape : (h, w) px
    diameter_px : of the particle; None where no one knows
    pixel_size : Å/px, None likewise
    coordinates : (m, 2) x, y px; merit : (m,) the picker's score, NaN where it gave none
    """

    name: str
    path: Path
    shape: tuple[int, int]
    diameter_px: float | None
    pixel_size: float | None
    coordinates: NDArray[np.float64]
    merit: NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """How well the picks sit on particles under one frame.

    evidence : mean rank of what is under the picks, -1 to 1, 0 by chance; -1 for a pick outside
    error : its standard error by chance
    outside : share of the picks outside the micrograph
    """

    frame: Frame
    evidence: float
    error: float
    outside: float
    probability: float

    @property
    def above_chance(self) -> float:
        """Evidence in standard errors."""
        return self.evidence / self.error


@dataclass(frozen=True)
class Opinion:
    """What frame the picks are in.

    answer : `right`, `wrong` or `unsure`
    frame : the most likely one; probability : of it
    reason : a clause
    doubtful : unsure, and something speaks against the frame as given
    """

    answer: str
    frame: Frame
    probability: float
    reason: str
    doubtful: bool


@dataclass(frozen=True)
class Verdict:
    """An opinion and what it rests on.

    candidates : the most likely frames, the best first, and the frame as given
    dark : whether particles are darker than their surroundings, as far as the picks say
    odd : micrographs that alone are in another frame than all together, with that frame
    picks, micrographs : that were looked at
    diameter_px : that was looked for, of the first micrograph
    """

    opinion: Opinion
    candidates: tuple[Candidate, ...]
    dark: bool
    odd: tuple[tuple[str, Frame], ...]
    picks: int
    micrographs: int
    diameter_px: float | None

    @property
    def strength(self) -> float:
        """How far the most likely frame is above chance, standard errors."""
        return self.candidates[0].above_chance if self.candidates else 0.0
