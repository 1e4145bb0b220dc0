"""Simulated micrographs whose truth is known: for the demo, the tests and pretraining.

::

    species = real_species()                              14 molecules from the PDB, or
    species = make_species(seed)                          14 of our own making
    sim = simulate_micrograph(config, species[0], rng)    pixels, coordinates, mask
    labelled_points(sim, 20, rng)                         points with a class, to train on
    simulate_picks(sim, rng)                              a picker's picks, wrong ones too

Everything that is random comes from the seed or the generator given. The physics is that
of one projection: exit wave, CTF, envelope, counted electrons; no multislice, no motion.
"""

from pickeropt.datasets.simulate.points import (
    LabelledPoints,
    PickerConfig,
    SimulatedPicks,
    labelled_points,
    simulate_picks,
)
from pickeropt.datasets.simulate.simulation import simulate_micrograph, simulate_micrographs
from pickeropt.datasets.simulate.simulation_config import (
    CARBON_KINDS,
    CONTAMINANT_KINDS,
    MASK_CLASSES,
    SOURCE_NAMES,
    SimulatedMicrograph,
    SimulationConfig,
)
from pickeropt.datasets.simulate.species import (
    DEFAULT_SPECIES,
    PDB_ENTRIES,
    SHAPES,
    Species,
    make_species,
    real_species,
)

SPECIES_NAMES = tuple(SHAPES)

__all__ = [
    "CARBON_KINDS",
    "CONTAMINANT_KINDS",
    "DEFAULT_SPECIES",
    "MASK_CLASSES",
    "PDB_ENTRIES",
    "SOURCE_NAMES",
    "SPECIES_NAMES",
    "LabelledPoints",
    "PickerConfig",
    "SimulatedMicrograph",
    "SimulatedPicks",
    "SimulationConfig",
    "Species",
    "labelled_points",
    "make_species",
    "real_species",
    "simulate_micrograph",
    "simulate_micrographs",
    "simulate_picks",
]
