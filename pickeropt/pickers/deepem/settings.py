"""What a DeepEM is made with; the paper's values where it gives any.

Zhu, Ouyang & Mao, BMC Bioinformatics 18, 348 (2017).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pickeropt.errors import PickeroptError
from pickeropt.pickers.deepem.geometry import PUBLISHED, Geometry, derived

STEP = 20
"""px of the raster scan (the preprint's recognition process, step 4)."""
LEAST_STEP_BOX = 112
"""px; the smallest box that the paper scans by `STEP`."""
DERIVED = "derived"


@dataclass(frozen=True)
class DeepEMSettings:
    """px are those of the box, after the micrograph is resampled.

    geometry : "derived" for the rule, or one of `PUBLISHED`: box and layers of that data set
    box : side of the window, px; the micrograph is resampled so that the particle fits
    box_diameters : the same side in particle diameters (KLH: 272 px of 2.2 Å for 40 nm)
    kernels, pools : of the three levels, in place of the rule's; kernels of 0 are the rule's
    step : of the raster, px; 0 is the paper's 20, and its share of the smallest published box where the
        box is smaller still
    epochs : passes over windows in four turns; least_steps : gradient steps of a round at the least
    batch : windows of a step, half of them particles
    spread : of the initial values before each sigmoid (`network.initialise`)
    negative_distance : diameters; windows without a particle lie that far from any known one at least
    rounds : of the learning cycle after the first training; target_error : the learning error below which it
        ends (`training.learning_error`; the paper: about 95 % right at 0.5)
    separation : diameters; no two picks are that close
    std_range : picks whose pixels deviate less or more than the particles learnt from are none: by how
        many of their own standard deviations theirs may lie from their mean; 0 sets no window
    """

    geometry: str = DERIVED
    box: int = 64
    box_diameters: float = 1.5
    kernels: tuple[int, int, int] = (0, 0, 0)
    pools: tuple[int, int, int] = (2, 2, 2)
    step: int = 0
    learning_rate: float = 1.0
    epochs: int = 5
    least_steps: int = 1500
    batch: int = 50
    spread: float = 1.0
    negative_distance: float = 0.5
    rounds: int = 2
    target_error: float = 0.05
    separation: float = 0.5
    std_range: float = 4.0

    def __post_init__(self) -> None:
        """Raises PickeroptError for a value that means nothing, GeometryError for layers that do not fit."""
        if self.geometry not in (DERIVED, *PUBLISHED):
            names = ", ".join((DERIVED, *PUBLISHED))
            raise PickeroptError(f"DeepEM's geometry is {self.geometry!r}; give one of {names}")
        above = ("box_diameters", "learning_rate", "spread", "separation")
        at_least = {
            "std_range": 0,
            "target_error": 0,
            "step": 0,
            "epochs": 1,
            "least_steps": 0,
            "batch": 2,
            "rounds": 0,
            "negative_distance": 0,
        }
        for name in above:
            if not getattr(self, name) > 0:
                raise PickeroptError(f"DeepEM's {name} is {getattr(self, name):g}; give a number above 0")
        for name, least in at_least.items():
            if not getattr(self, name) >= least:
                raise PickeroptError(f"DeepEM's {name} is {getattr(self, name):g}; give {least} or more")
        for name in ("kernels", "pools"):
            sizes = getattr(self, name)
            if len(sizes) != 3 or min(sizes) < 0:
                given = ",".join(map(str, sizes))
                raise PickeroptError(f"DeepEM's {name} are {given}; give three sizes in px, such as 9,7,4")
        self.layers()

    def layers(self) -> Geometry:
        """Box, kernels and pools."""
        if self.geometry != DERIVED:
            return PUBLISHED[self.geometry]
        return Geometry(self.box, self.kernels, self.pools) if any(self.kernels) else derived(self.box)

    def scan_step(self) -> int:
        """Step of the raster, px: as given, 20, or for a box below 112 px 20/112 of it in steps of 4 px."""
        box = self.layers().box
        share = max(4, 4 * (STEP * box // LEAST_STEP_BOX // 4))
        return self.step or (STEP if box >= LEAST_STEP_BOX else share)

    def diameter(self) -> float:
        """Of the particle after resampling, px."""
        return self.layers().box / self.box_diameters


def settings_from(values: Mapping[str, Any]) -> DeepEMSettings:
    """Settings as JSON gives them back: lists are tuples again, names that are not known are left out."""
    names = {field.name for field in fields(DeepEMSettings)}
    kept: dict[str, Any] = {
        n: tuple(v) if isinstance(v, list) else v for n, v in values.items() if n in names
    }
    return DeepEMSettings(**kept)
