"""A few small simulated micrographs with labelled points: for the tests of finetune and its scorer."""

from pathlib import Path

import numpy as np

from pickeropt.datasets.simulate import SimulationConfig, labelled_points, make_species, simulate_micrographs
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.io.micrographs import write_mrc
from pickeropt.shots import BoxShots, Shots

PIXEL_SIZE, DIAMETER = 5.0, 200.0  # Å/px, Å: 40 px
CONFIG = FinetuneConfig(diameter_angstrom=DIAMETER, device="cpu")
SHAPE = (256, 288)


def make_shots(folder: Path, count: int = 4, per_class: int = 6) -> Shots:
    """Micrographs on disk and at most `per_class` shots of each class on each."""
    config = SimulationConfig(
        shape=SHAPE,
        pixel_size=PIXEL_SIZE,
        diameter_angstrom=DIAMETER,
        occupancy=(0.2, 0.25),
        dose=(20.0, 25.0),
        carbon_probability=1.0,
        carbon_kinds=("straight_edge",),
        filtered_probability=0.0,
        contaminants=(0, 0),
    )
    barrel = tuple(species for species in make_species(0) if species.name == "barrel_d7")
    names = ("particle", "background", "carbon")
    paths, labels, points, index = [], [], [], []
    for number, sim in enumerate(simulate_micrographs(config, count, seed=3, species=barrel)):
        paths.append(folder / f"m{number}.mrc")
        write_mrc(paths[-1], sim.pixels, PIXEL_SIZE)
        found = labelled_points(sim, per_class, np.random.default_rng(number), margin=0.3)
        labels += [names.index(name) for name in found.class_names]
        points.append(found.coordinates)
        index += [number] * len(found.class_names)
    return Shots(names, np.array(labels), np.concatenate(points), np.array(index), tuple(paths), None)


def noise_boxes(count: int = 8, side: int = 60) -> BoxShots:
    """Discs of 40 px on noise against bare noise, with sides that differ by a pixel."""
    rng = np.random.default_rng(0)
    boxes = []
    for number in range(2 * count):
        n = side + number % 2
        rows, columns = np.mgrid[:n, :n] - n // 2
        disc = (np.hypot(rows, columns) < 20) * (number < count)
        boxes.append((rng.standard_normal((n, n)) - 1.5 * disc).astype(np.float32))
    labels = np.repeat([0, 1], count)
    return BoxShots(("particle", "empty"), labels, tuple(boxes), tuple(f"box {i}" for i in range(2 * count)))
