"""A whole simulated data set on disk: `simulate_dataset`.

::

    OUT/
      micrographs/NAME.mrc   float32, pixel size in the header
      masks/NAME.png         8-bit, value = index into MASK_CLASSES
      truth/NAME.star        what is where; written last: a micrograph is done when it is there
      truth.star             all of those, once all are done
      dataset.json           format, seed, configuration, species, micrographs done

Micrograph i has its own generator, seeded with (seed, i), and the (i mod n)th of n species:
the same command gives the same bytes however many processes work, and more micrographs can
be added to a set later.
"""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pickeropt.datasets.dataset_config import DatasetConfig, DatasetReport
from pickeropt.datasets.simulate.dataset_files import check_room, is_done, prepare, settings_of, write_marker
from pickeropt.datasets.simulate.maps import DEFAULT_SPECIES, PDB_ENTRIES, real_species
from pickeropt.datasets.simulate.parallel import run_all
from pickeropt.datasets.simulate.points import labelled_points
from pickeropt.datasets.simulate.presets import PRESETS
from pickeropt.datasets.simulate.simulation import simulate_micrograph
from pickeropt.datasets.simulate.simulation_config import (
    CARBON_KINDS,
    CONTAMINANT_KINDS,
    SimulatedMicrograph,
    SimulationConfig,
)
from pickeropt.datasets.simulate.species import Species
from pickeropt.datasets.simulate.structures import find_structures, read_structure
from pickeropt.errors import FormatError, GeometryError, OutputError
from pickeropt.io.micrographs import read_micrograph_header
from pickeropt.io.mrc import write_mrc
from pickeropt.io.tables import write_bytes_atomically
from pickeropt.io.truth import Truth, join_truth, write_truth
from pickeropt.records import PARTICLE

ALL = "all"
LEAST_PX = 8
"""Particles are at least so many px across."""

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def simulate_dataset(
    out: Path,
    config: DatasetConfig,
    workers: int = 1,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> DatasetReport:
    """Simulate into `out`, or go on with an earlier run of the same configuration there.

    With more than one worker call it under ``if __name__ == "__main__"`` (processes are spawned).
    Raises GeometryError for sizes that do not fit, FormatError for species that are not there,
    OutputError where `out` holds something else or the disk has no room.
    """
    begun, say = time.perf_counter(), on_progress or (lambda what, done, total: None)
    imaging = imaging_of(config)
    species = choose_species(config)
    _check_sizes(config, species)
    names = [f"{i:05d}_{species[i % len(species)].name}" for i in range(config.micrographs)]
    grids = [grid_of(config, i) for i in range(len(species))]
    settings = settings_of(config, imaging, species, grids)
    prepare(out, settings, overwrite)
    tasks = [(i, name, species[i % len(species)]) for i, name in enumerate(names) if not is_done(out, name)]
    earlier = len(names) - len(tasks)
    check_room(out, len(tasks) * config.size**2)
    say("simulating", earlier, len(names))
    write = partial(write_one, out, config, [replace(imaging, **grid) for grid in grids])
    for done, _ in enumerate(run_all(write, tasks, workers), earlier + 1):
        say("simulating", done, len(names))
    particles = join_truth(out / "truth.star", [out / "truth" / f"{name}.star" for name in names])
    write_marker(out, settings, names)
    kinds, seconds = tuple(one.name for one in species), time.perf_counter() - begun
    return DatasetReport(out, len(names), earlier, particles, kinds, seconds)


def imaging_of(config: DatasetConfig) -> SimulationConfig:
    """The preset, with what was given in place of its values. Raises GeometryError."""
    if config.preset not in PRESETS:
        raise GeometryError(f"preset {config.preset!r}: not known; use {', '.join(PRESETS)}")
    for name in ("pixel_size", "diameter_angstrom", "occupancy"):
        ends = getattr(config, name)
        if ends is not None and not 0 < ends[0] <= ends[1] < np.inf:
            raise GeometryError(f"{name} {ends[0]:g} to {ends[1]:g}: must be above 0 and rise")
    changes: dict[str, Any] = {"shape": (config.size, config.size)}
    if config.snr is not None:
        changes |= {"snr": config.snr, "filtered_probability": 0.0}
    if config.occupancy is not None:
        changes["occupancy"] = config.occupancy
    return replace(PRESETS[config.preset], **changes)


def choose_species(config: DatasetConfig) -> tuple[Species, ...]:
    """The species by name, of the package and of the folder. Raises FormatError."""
    models = find_structures(config.structures) if config.structures else {}
    known = dict.fromkeys((*PDB_ENTRIES, *models))
    if len(known) < len(PDB_ENTRIES) + len(models):
        twice = next(path for name, path in models.items() if name in PDB_ENTRIES)
        raise FormatError(f"{twice}: the package has a species of that name; rename the file")
    names = dict.fromkeys(config.species or (*DEFAULT_SPECIES, *models))
    for name in names:
        if name not in known and name != ALL:
            raise FormatError(f"species {name!r}: not known; use {ALL} or some of {', '.join(known)}")
    return tuple(
        read_structure(models[name]) if name in models else real_species((name,))[0]
        for name in (known if ALL in names else names)
    )


def grid_of(config: DatasetConfig, index: int) -> dict[str, Any]:
    """The junk on the grid of species `index`, where each has its own; else nothing is said.

    One order of all kinds is drawn from the seed, and the species take theirs from it in turn. The paper's
    data set has 14 kinds of contaminant and 8 of carbon: so 8 of 14 grids show their support, each of
    another kind, and of one make on all micrographs of the grid.
    """
    if config.grid_kinds is None:
        return {}
    rng = np.random.default_rng([config.seed, len(CONTAMINANT_KINDS)])
    contaminants = rng.permutation(CONTAMINANT_KINDS).tolist()
    bare = ("",) * (len(CONTAMINANT_KINDS) - len(CARBON_KINDS))
    support = rng.permutation((*CARBON_KINDS, *bare)).tolist()[index % len(contaminants)]
    first = index * config.grid_kinds
    turns = range(first, first + min(config.grid_kinds, len(contaminants)))
    return {
        "contaminant_kinds": tuple(contaminants[i % len(contaminants)] for i in turns),
        "carbon_kinds": (support,) if support else (),
        "film_seed": (config.seed, index),
    }


def write_one(
    out: Path, config: DatasetConfig, grids: Sequence[SimulationConfig], task: tuple[int, str, Species]
) -> str:
    """Simulate one micrograph and write its three files, the truth last; its name. Raises OutputError.

    grids : imaging of each species in turn
    """
    index, name, species = task
    imaging = grids[index % len(grids)]
    rng = np.random.default_rng([config.seed, index])
    changes: dict[str, Any] = {"pixel_size": round(float(rng.uniform(*config.pixel_size)), 4)}
    if config.diameter_angstrom is not None:
        changes["diameter_angstrom"] = round(float(rng.uniform(*config.diameter_angstrom)), 2)
    sim = simulate_micrograph(replace(imaging, **changes), species, rng)
    truth = truth_of(f"micrographs/{name}.mrc", sim, config.points_per_class, rng)
    path = out / "micrographs" / f"{name}.mrc"
    try:
        write_mrc(path, sim.pixels, sim.pixel_size)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); make room and run again") from error
    if read_micrograph_header(path).pixel_size is None:  # 1 Å/px: reads as unset
        truth = replace(truth, pixel_size=sim.pixel_size)
    picture = io.BytesIO()
    Image.fromarray(sim.mask).save(picture, format="PNG")
    write_bytes_atomically(out / "masks" / f"{name}.png", picture.getvalue())
    write_truth(out / "truth" / f"{name}.star", truth)
    return name


def truth_of(micrograph: str, sim: SimulatedMicrograph, per_class: int, rng: np.random.Generator) -> Truth:
    """All particles, then at most `per_class` points on contaminants, on carbon and on empty ice."""
    points = labelled_points(sim, per_class, rng)
    others = [i for i, name in enumerate(points.class_names) if name != PARTICLE]
    optics, half = sim.optics, 0.5 * sim.optics.astigmatism_angstrom
    u, v = optics.defocus_angstrom + half, optics.defocus_angstrom - half
    return Truth(
        micrograph=micrograph,
        coordinates=np.concatenate([sim.coordinates, points.coordinates[others]]),
        class_names=(PARTICLE,) * len(sim.coordinates) + tuple(points.class_names[i] for i in others),
        source_classes=sim.source_class + tuple(points.source_class[i] for i in others),
        angles=np.concatenate([sim.angles, np.zeros((len(others), 3))]),
        defocus=(u, v, optics.astigmatism_degrees),
        diameter_angstrom=sim.diameter_angstrom,
    )


def _check_sizes(config: DatasetConfig, species: tuple[Species, ...]) -> None:
    """Raises GeometryError for counts and sizes that cannot be."""
    if config.micrographs < 1 or config.seed < 0 or config.points_per_class < 0:
        what = f"{config.micrographs} micrographs, seed {config.seed}, {config.points_per_class} points"
        raise GeometryError(f"{what}: give at least 1 micrograph, and nothing below 0")
    field = config.size * config.pixel_size[0]
    for one in species:
        least, most = config.diameter_angstrom or (one.diameter_angstrom, one.diameter_angstrom)
        if least < LEAST_PX * config.pixel_size[1]:
            what = f"{one.name} of {least:.0f} Å is under {LEAST_PX} px at {config.pixel_size[1]:g} Å/px"
            raise GeometryError(f"{what}; give a smaller pixel size")
        if 2 * most > field:
            what = f"{one.name} of {most:.0f} Å in a field of {field:.0f} Å"
            raise GeometryError(f"{what}; give a field of two diameters or more (size x pixel size)")
