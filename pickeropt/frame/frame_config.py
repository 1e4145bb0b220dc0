"""The frames that coordinates may be in, and the records of a check: its settings, its samples and its verdict.

A frame is a flip, a transpose, a binning or a constant shift. ``x, y`` of the file times `scale`, swapped where
`swap`, counted from the other side where `flip_x` or `flip_y`, plus `shift`, is ``x, y`` px of the micrograph
with rows as stored. ``H - y`` and ``H - 1 - y`` differ by one pixel of some hundred in a particle: no picture
can tell them apart, and both are `flip_y` here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pickeropt.io.micrographs import MicrographHeader

FACTORS = (1.0, 2.0, 3.0, 4.0, 8.0, 1 / 2, 1 / 3, 1 / 4, 1 / 8)
"""Binnings, both ways: above 1 the coordinates are of a binned micrograph, below 1 of a finer one."""


@dataclass(frozen=True)
class Frame:
    """One reading of the coordinates of a file.

    scale : micrograph px a px of the file
    shift : x, y px of the micrograph, added last
    """

    swap: bool = False
    flip_x: bool = False
    flip_y: bool = False
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def place(self, coordinates: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
        """(n, 2) x, y of the file -> (n, 2) x, y px of a micrograph of shape (h, w)."""
        xy = coordinates * self.scale
        if self.swap:
            xy = xy[:, ::-1].copy()
        height, width = shape
        if self.flip_x:
            xy[:, 0] = width - xy[:, 0]
        if self.flip_y:
            xy[:, 1] = height - xy[:, 1]
        placed: NDArray[np.float64] = xy + np.array(self.shift)
        return placed

    def shifted(self, x: float, y: float) -> "Frame":
        """The same with another shift, px."""
        return replace(self, shift=(x, y))

    @property
    def is_identity(self) -> bool:
        """Whether the coordinates are as they should be."""
        return self == IDENTITY

    @property
    def name(self) -> str:
        """Short, for a table: ``as given``, ``y flipped, x 2``."""
        parts = [_TURNS[self.swap, self.flip_x, self.flip_y]]
        if self.scale != 1:
            parts.append(f"x {self.scale:g}" if self.scale > 1 else f"x 1/{1 / self.scale:g}")
        if self.shift != (0.0, 0.0):
            parts.append(f"shifted by {self.shift[0]:+.0f}, {self.shift[1]:+.0f} px")
        return ", ".join(filter(None, parts)) or "as given"

    @property
    def what(self) -> str:
        """What is the matter with the coordinates, as a clause after "the coordinates"."""
        parts = [_CLAUSES[self.swap, self.flip_x, self.flip_y]]
        if self.scale > 1:
            parts.append(f"are of micrographs binned {self.scale:g} times more")
        elif self.scale < 1:
            parts.append(f"are of micrographs {1 / self.scale:g} times finer")
        if self.shift != (0.0, 0.0):
            x, y = self.shift
            parts.append(f"are off by a constant {-x:+.0f} px in x and {-y:+.0f} px in y")
        return " and ".join(filter(None, parts)) or "are in the frame of the micrographs"


_TURNS = {
    (False, False, False): "",
    (False, True, False): "x flipped",
    (False, False, True): "y flipped",
    (False, True, True): "x and y flipped",
    (True, False, False): "x and y swapped",
    (True, True, False): "swapped, then x flipped",
    (True, False, True): "swapped, then y flipped",
    (True, True, True): "swapped, then both flipped",
}
_CLAUSES = {
    (False, False, False): "",
    (False, True, False): "count x from the right",
    (False, False, True): "count y from the last stored row",
    (False, True, True): "count x from the right and y from the last stored row",
    (True, False, False): "have x and y swapped",
    (True, True, False): "are turned by a quarter (x is the width less y, y is x)",
    (True, False, True): "are turned by a quarter (x is y, y is the height less x)",
    (True, True, True): "are swapped and counted from the far corner",
}

IDENTITY = Frame()
FRAMES = tuple(
    Frame(swap, flip_x, flip_y, scale)
    for scale, swap, flip_x, flip_y in product(FACTORS, (False, True), (False, True), (False, True))
)
"""All turns at all scales, the identity first."""

SHIFTED = tuple(f for f in FRAMES if f.scale == 1 or not (f.swap or f.flip_x or f.flip_y))
"""The frames that are also tried with shifts."""

Score = Callable[["FrameSite", NDArray[np.float64]], NDArray[np.float64]]
"""P(particle), (m,), at (m, 2) x, y px of a micrograph."""

RIGHT, WRONG, UNSURE = "right", "wrong", "unsure"


@dataclass(frozen=True)
class FrameConfig:
    """The settings of the frame doctor; docs/lab/frames.md says how the bounds were chosen.

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
class FrameSite:
    """A micrograph and its picks, as the check of their frame needs them.

    diameter_px : of the particle; None where it is not known
    pixel_size : Å/px, None likewise
    coordinates : (m, 2) x, y px; figure_of_merit : (m,) the picker's score, NaN where it gave none
    """

    name: str
    header: MicrographHeader
    diameter_px: float | None
    pixel_size: float | None
    coordinates: NDArray[np.float64]
    figure_of_merit: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) px."""
        return self.header.shape


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
class FrameDecision:
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

    opinion: FrameDecision
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
