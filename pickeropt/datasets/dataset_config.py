"""Settings and defaults of `pickeropt dataset build` and `dataset simulate`; imports no arrays."""

from dataclasses import dataclass
from pathlib import Path

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


Range = tuple[float, float]
"""Both ends of a uniform draw, one a micrograph."""


@dataclass(frozen=True)
class DatasetConfig:
    """A data set to simulate.

    micrographs, size : how many, and their side in px
    pixel_size : Å/px; diameter_angstrom : of the particles, None keeps the molecules' own
    species : names of `species.PDB_ENTRIES` or of models in `structures`, `all`, or none for the 14
        of `species.DEFAULT_SPECIES` and all of `structures`
    preset : of `simulation_config.PRESETS`; snr, occupancy : in place of the preset's
    points_per_class : labelled points a micrograph on contaminants, on carbon and on empty ice
    grid_kinds : every species is a grid of its own, with so many kinds of contaminant, other ones than the
        species before it, and on 8 of 14 grids a support of one kind and make; None draws from all kinds
        for each micrograph
    structures : a folder of atomic models
    """

    micrographs: int = 100
    size: int = 2048
    pixel_size: Range = (1.5, 1.5)
    diameter_angstrom: Range | None = None
    species: tuple[str, ...] = ()
    preset: str = "default"
    snr: tuple[float, ...] | None = None
    occupancy: Range | None = None
    points_per_class: int = 40
    grid_kinds: int | None = None
    seed: int = 0
    structures: Path | None = None


@dataclass(frozen=True)
class DatasetReport:
    """micrographs in all, of which `earlier` by an earlier run; particles on them; seconds."""

    folder: Path
    micrographs: int
    earlier: int
    particles: int
    species: tuple[str, ...]
    seconds: float
