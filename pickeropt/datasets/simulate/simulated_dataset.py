"""A simulated data set on disk: `simulate_dataset`.

::

    OUT/
      micrographs/NAME.mrc   float32, pixel size in the header
      masks/NAME.png         8-bit, value = index into MASK_CLASSES
      truth/NAME.star        what is where; written last: a micrograph is done when it is there
      truth.star             all of those, once all are done
      dataset.json           format, seed, configuration, species, micrographs done

Micrograph i has its own generator, seeded with (seed, i), and the (i mod n)th of n species: the same command
gives the same bytes whatever the number of processes, and micrographs can be added to a set later.
"""

import hashlib
import io
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

import pickeropt
from pickeropt.datasets.dataset_config import DatasetConfig, DatasetReport
from pickeropt.datasets.simulate.points import labelled_points
from pickeropt.datasets.simulate.simulation import simulate_micrograph
from pickeropt.datasets.simulate.simulation_config import (
    CARBON_KINDS,
    CONTAMINANT_KINDS,
    PRESETS,
    SimulatedMicrograph,
    SimulationConfig,
)
from pickeropt.datasets.simulate.species import (
    DEFAULT_SPECIES,
    PDB_ENTRIES,
    Species,
    find_structures,
    read_structure,
    real_species,
)
from pickeropt.errors import FormatError, GeometryError, OutputError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.labels import TruthPoints, join_truth, write_truth
from pickeropt.io.micrographs import read_micrograph_header, write_mrc
from pickeropt.records import PARTICLE, OnProgress

FORMAT = "pickeropt simulated micrographs 1"
MARKER = "dataset.json"
FOLDERS = ("micrographs", "masks", "truth")


def settings_of(
    config: DatasetConfig,
    imaging: SimulationConfig,
    species: tuple[Species, ...],
    grids: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What decides the bytes of a micrograph, as JSON reads it back.

    grids : what the grid of each species has in place of what `imaging` says
    """
    own = {k: v for k, v in asdict(config).items() if k not in ("micrographs", "structures", "species")}
    if config.grid_kinds is None:  # sets of before there were any go on
        del own["grid_kinds"]
    common = asdict(imaging)
    if imaging.film_seed is None:
        del common["film_seed"]
    molecules = {
        one.name: {
            "diameter_angstrom": round(one.diameter_angstrom, 2),
            "sha256": hashlib.sha256(one.points.tobytes() + one.volumes.tobytes()).hexdigest(),
        }
        for one in species
    }
    made = {"format": FORMAT, "seed": config.seed, "config": own | {"imaging": common}}
    if any(grids):
        made["grid"] = list(grids)
    result: dict[str, Any] = json.loads(json.dumps(made | {"species": molecules}))
    return result


def prepare(out: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Make the folders; go on with what is there, or clear it.

    Raises OutputError for a folder that holds anything but a data set of these settings.
    """
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            _check_earlier(out, settings, overwrite)
        write_marker(out, settings, sorted(path.stem for path in (out / "truth").glob("[!.]*.star")))
        for folder in FOLDERS:
            (out / folder).mkdir(parents=True, exist_ok=True)
            for left in (out / folder).glob(".*.partial"):
                left.unlink()
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); give another folder") from error


def _check_earlier(out: Path, settings: dict[str, Any], overwrite: bool) -> None:
    marker = out / MARKER
    try:
        earlier = json.loads(marker.read_bytes())
    except (OSError, ValueError):
        earlier = None
    if not isinstance(earlier, dict) or earlier.get("format") != FORMAT:
        raise OutputError(f"{out}: is there already and no simulated data set; give another folder")
    if overwrite or not any((out / "truth").glob("[!.]*.star")):
        (out / "truth.star").unlink(missing_ok=True)
        for folder in FOLDERS:
            shutil.rmtree(out / folder, ignore_errors=True)
        return
    for part in ("seed", "species", "config", "grid"):
        if earlier.get(part) != settings.get(part):
            what = f"{out}: holds a data set of another {part}"
            remedy = "give its own options to go on with it, another folder, or --overwrite"
            raise OutputError(f"{what}; {remedy}")


def check_room(out: Path, pixels: int) -> None:
    """Raises OutputError where micrographs of so many pixels in all would not fit on the disk."""
    needed, free = 4.1 * pixels, shutil.disk_usage(out).free
    if needed > free:
        what = f"{out}: {needed / 1e9:.1f} GB to write, {free / 1e9:.1f} GB free"
        raise OutputError(f"{what}; make room, or simulate fewer or smaller micrographs")


def is_done(out: Path, name: str) -> bool:
    """Whether all files of a micrograph are there: its truth was written last."""
    return (out / "truth" / f"{name}.star").exists() and (out / "micrographs" / f"{name}.mrc").exists()


def write_marker(out: Path, settings: dict[str, Any], done: list[str]) -> None:
    """Write dataset.json with the names of the micrographs that are done."""
    made = settings | {"pickeropt": pickeropt.__version__, "micrographs": done}
    write_bytes_atomically(out / MARKER, (json.dumps(made, indent=1) + "\n").encode())


Task = TypeVar("Task")
Result = TypeVar("Result")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_all(work: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """The results of `work` on all tasks as they come, from so many processes; in this one for 1.

    `work` and tasks must pickle. Processes end with this one, however it ends. Raises what
    `work` raises, and OutputError where a process dies.
    """
    if min(workers, len(tasks)) <= 1:
        yield from map(work, tasks)
        return
    with _one_thread(), _pool(min(workers, len(tasks))) as pool:
        waiting: set[Future[Result]] = set()
        left = iter(tasks)
        try:
            for task in left:
                waiting.add(pool.submit(work, task))
                if len(waiting) >= 2 * workers:
                    ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in ready)
            while waiting:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in ready)
        except BrokenProcessPool as error:
            what = "a worker process died, perhaps for want of memory"
            raise OutputError(f"{what}; give the same command with fewer --workers to go on") from error


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool that drops what has not begun when it is left."""
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (os.getpid(),))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started within have one thread each."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end when it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


ALL = "all"
LEAST_PX = 8
"""Particles are at least so many px across."""


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
    """The junk on the grid of species `index`, where each has its own; empty where not.

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


def truth_of(micrograph: str, sim: SimulatedMicrograph, per_class: int, rng: np.random.Generator) -> TruthPoints:
    """All particles, then at most `per_class` points on contaminants, on carbon and on empty ice."""
    points = labelled_points(sim, per_class, rng)
    others = [i for i, name in enumerate(points.class_names) if name != PARTICLE]
    optics, half = sim.optics, 0.5 * sim.optics.astigmatism_angstrom
    u, v = optics.defocus_angstrom + half, optics.defocus_angstrom - half
    return TruthPoints(
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
