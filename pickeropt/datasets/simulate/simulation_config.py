"""Settings of a simulation, its presets, and the simulated micrograph.

Presets:

default : counted electrons, at doses, defoci and low-passes as wide as published data sets are
cryolo : noise as in the simulations of the crYOLO paper (Wagner et al., Commun. Biol. 2, 218
    (2019), Methods): Gaussian noise of 88 k before the CTF (2.5 µm, 300 kV, amplitude contrast
    0.1, B 200 Å²) and of 51 k after it; a micrograph has one of its five ratios
deepem : the ratios of Fig. 6 of DeepEM (Zhu et al., BMC Bioinformatics 18, 348 (2017)), which
    does not say what its noise was; here the recipe of crYOLO at DeepEM's ratios

The papers drew particles only; ours keep contaminants and carbon, so that all 36 classes occur. `simulation`
defines the signal-to-noise ratio.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pickeropt.datasets.simulate.optics import Optics
from pickeropt.errors import GeometryError
from pickeropt.records import FloatArray

Range = tuple[float, float]
"""Both ends of a uniform draw."""

CONTAMINANT_KINDS = (
    "ice_ball",
    "ice_cluster",
    "ice_crystal",
    "crystalline_ice",
    "ethane",
    "gold_bead",
    "vesicle",
    "fibre",
    "aggregate",
    "denatured",
    "network",
    "fragment",
    "crack",
    "bubble",
)
CARBON_KINDS = (
    "hole_edge",
    "straight_edge",
    "ragged_edge",
    "rim_edge",
    "bar",
    "lacey",
    "film",
    "gold_edge",
)
MASK_CLASSES = ("background", "particle", "contaminant", "carbon")
"""Class of each value of `SimulatedMicrograph.mask`."""
SOURCE_NAMES = ("empty_ice", "particle", *CONTAMINANT_KINDS, *CARBON_KINDS)
"""Meaning of each value of `SimulatedMicrograph.source_map`."""
CLASS_OF_SOURCE: NDArray[np.uint8] = np.array(
    [0, 1] + [2] * len(CONTAMINANT_KINDS) + [3] * len(CARBON_KINDS), dtype=np.uint8
)
"""(len(SOURCE_NAMES),) index into `MASK_CLASSES`."""


@dataclass(frozen=True)
class SimulationConfig:
    """One simulated micrograph. Ranges are uniform draws (dose: of its logarithm), one a micrograph.

    shape : h, w in px
    pixel_size : Å/px
    diameter_angstrom : the species is scaled to it; None keeps the species' own size
    occupancy : particles per squared diameter of free ice (EMPIAR-10017 has about 0.45)
    overlap_fraction : share of the particles that may touch or overlap a neighbour
    preferred : share of the particles that lie in preferred views (see `simulation.draw_angles`)
    defocus_um : µm, positive is underfocus, mean of U and V
    astigmatism_um : µm, U - V; its direction is random
    voltage_kv : one, or several of which a micrograph has one
    dose : electrons/Å² that count, that is exposure times the detector's DQE
    b_factor : Å², envelope exp(-B k²/4) on the wave
    drift_angstrom : Å that the specimen moves in a straight line while it is exposed, of what motion
        correction leaves
    hot_pixels : share of the detector's pixels that give a high value whatever falls on them
    dqe_nyquist, ntf_nyquist : what is left of DQE and noise transfer at the detector's Nyquist
        frequency (see `optics.detect`)
    snr : None, or signal-to-noise ratios of which a micrograph has one: then Gaussian noise of
        that ratio (see `simulation`) stands for electrons, drift, detector and the grain of the ice
    structural_noise : with `snr`, standard deviation of the noise before the CTF over that after
    ice_angstrom, ice_gradient : mean thickness, and its relative change across the field
    contaminants : least and most contaminants a micrograph
    carbon_probability : chance that a micrograph has a support edge or film
    film_seed : of what the support is made of, for micrographs of one grid; None draws it for each
    filtered_probability, filter_diameters : chance of a low-pass and 8 bits; where the
        low-pass falls to 1/e, in particle diameters (EMPIAR-10017 as published: roughly 0.5)
    """

    shape: tuple[int, int] = (1024, 1024)
    pixel_size: float = 4.0
    diameter_angstrom: float | None = None
    occupancy: Range = (0.08, 0.4)
    overlap_fraction: float = 0.06
    preferred: Range = (0.0, 0.6)
    defocus_um: Range = (1.5, 4.5)
    astigmatism_um: Range = (0.0, 0.08)
    voltage_kv: float | tuple[float, ...] = (200.0, 300.0)
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.08
    dose: Range = (2.0, 25.0)
    b_factor: Range = (80.0, 400.0)
    dqe_nyquist: Range = (0.1, 0.7)
    ntf_nyquist: Range = (0.4, 1.0)
    drift_angstrom: Range = (0.0, 4.0)
    hot_pixels: Range = (0.0, 1e-5)
    snr: tuple[float, ...] | None = None
    structural_noise: float = 88.0 / 51.0
    ice_angstrom: Range = (250.0, 700.0)
    ice_gradient: Range = (0.0, 0.25)
    contaminants: tuple[int, int] = (3, 8)
    contaminant_kinds: tuple[str, ...] = CONTAMINANT_KINDS
    carbon_probability: float = 0.5
    carbon_kinds: tuple[str, ...] = CARBON_KINDS
    film_seed: tuple[int, ...] | None = None
    filtered_probability: float = 0.5
    filter_diameters: Range = (0.08, 0.5)

    def __post_init__(self) -> None:
        """Raise GeometryError for a size or a kind that cannot be simulated."""
        if min(self.shape) < 64:
            raise GeometryError(f"shape {self.shape}: a simulated micrograph needs at least 64 px a side")
        if not self.pixel_size > 0:
            raise GeometryError(f"pixel_size {self.pixel_size}: must be above 0 Å/px")
        if self.snr is not None and not (self.snr and all(0 < ratio < math.inf for ratio in self.snr)):
            raise GeometryError(f"snr {self.snr}: give one or more ratios above 0, or None")
        unknown = (set(self.contaminant_kinds) - set(CONTAMINANT_KINDS)) | (set(self.carbon_kinds) - set(CARBON_KINDS))
        if unknown:
            raise GeometryError(f"unknown kinds {sorted(unknown)}: use {CONTAMINANT_KINDS + CARBON_KINDS}")


@dataclass(frozen=True)
class SimulatedMicrograph:
    """A micrograph and the truth about it.

    pixels : (h, w) float32, electrons a pixel, or 8-bit grey values where `filtered`
    coordinates : (n, 2) float64, x and y of the particle centres inside the frame, px
    source_class : (n,) species name of each particle
    angles : (n, 3) float64, rot, tilt, psi in degrees, as RELION has them
    mask : (h, w) uint8, index into `MASK_CLASSES`; a particle is a disc of its diameter
    source_map : (h, w) uint8, index into `SOURCE_NAMES`
    optics : the microscope as it was drawn
    snr : signal-to-noise ratio that was asked for, None where electrons were counted
    """

    pixels: FloatArray
    pixel_size: float
    diameter_angstrom: float
    coordinates: NDArray[np.float64]
    source_class: tuple[str, ...]
    angles: NDArray[np.float64]
    mask: NDArray[np.uint8]
    source_map: NDArray[np.uint8]
    optics: Optics
    snr: float | None
    filtered: bool

    @property
    def defocus_angstrom(self) -> float:
        """Mean defocus in Å."""
        return self.optics.defocus_angstrom

    @property
    def diameter_px(self) -> float:
        """Particle diameter in px."""
        return self.diameter_angstrom / self.pixel_size


CRYOLO_SNR = {1: 1.25, 4: 0.093, 6: 0.041, 8: 0.023, 10: 0.014}
"""Signal-to-noise ratio of each noise level k of the crYOLO paper."""
DEEPEM_SNR = (0.01, 0.008, 0.005, 0.003, 0.002, 0.001)

_CRYOLO = SimulationConfig(
    preferred=(0.0, 0.0),
    defocus_um=(2.5, 2.5),
    astigmatism_um=(0.0, 0.0),
    voltage_kv=300.0,
    amplitude_contrast=0.1,
    b_factor=(200.0, 200.0),
    snr=tuple(CRYOLO_SNR.values()),
    filtered_probability=0.0,
)
PRESETS = {
    "default": SimulationConfig(),
    "cryolo": _CRYOLO,
    "deepem": replace(_CRYOLO, snr=DEEPEM_SNR),
}
