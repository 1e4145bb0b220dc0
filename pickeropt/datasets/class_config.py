"""What `pickeropt dataset build` can be told; its defaults stand here only."""

from dataclasses import dataclass

BY = ("source", "class")


@dataclass(frozen=True)
class BuildConfig:
    """One class-folder data set.

    diameter_angstrom : of points whose labels say none (`_pickeroptDiameter`)
    pixel_size : Å/px of all micrographs; None takes what the labels say
        (`_pickeroptPixelSize`), else optics blocks and MRC headers
    per_class : at most so many boxes a class, spread over micrographs
    box_diameters : side of a box in particle diameters
    by : "source" makes a class of each `_pickeroptSourceClass`, "class" of each `_pickeroptClass`
    seed : of the choice of points
    diameter_px : the particle in every box, px; as in the default recipe's view, so resampled only once
    """

    diameter_angstrom: float | None = None
    pixel_size: float | None = None
    per_class: int = 100
    box_diameters: float = 1.5
    by: str = "source"
    seed: int = 0
    diameter_px: float = 62.0

    @property
    def box_px(self) -> int:
        """Side of a box, px."""
        return round(self.box_diameters * self.diameter_px)
