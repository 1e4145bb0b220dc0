"""A small simulated project, as the examples of the documentation have it in the current folder."""

from pathlib import Path

import numpy as np

from pickeropt.datasets.simulate import SimulationConfig, labelled_points, make_species, simulate_micrographs
from pickeropt.io.micrographs import write_mrc

PIXEL_SIZE, DIAMETER = 5.0, 200.0  # Å/px, Å: 40 px
SHAPE = (384, 384)
COUNT = 4
HEADER = "\ndata_\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"


def make_world(root: Path) -> None:
    """`micrographs/mK.mrc`, `labels.star` with eight shots a class, `picks.star` of which half are particles, and
    `truth.csv` with all particles."""
    config = SimulationConfig(
        shape=SHAPE,
        pixel_size=PIXEL_SIZE,
        diameter_angstrom=DIAMETER,
        occupancy=(0.2, 0.25),
        dose=(40.0, 45.0),
        carbon_probability=1.0,
        carbon_kinds=("straight_edge",),
        filtered_probability=0.0,
        contaminants=(0, 0),
    )
    barrel = tuple(species for species in make_species(0) if species.name == "barrel_d7")
    labels, picks, truth = [], [], []
    for number, sim in enumerate(simulate_micrographs(config, COUNT, seed=3, species=barrel)):
        name = f"micrographs/m{number}.mrc"
        write_mrc(root / name, sim.pixels, PIXEL_SIZE)
        points = labelled_points(sim, 12, np.random.default_rng(number), margin=0.3)
        count: dict[str, int] = {}
        for kind, (x, y) in zip(points.class_names, points.coordinates.tolist(), strict=True):
            count[kind] = count.get(kind, 0) + 1
            row = f"{name} {x:.2f} {y:.2f}"
            labels += [f"{row} {kind}"] if count[kind] <= 2 else []
            picks += [row] if kind == "particle" or count[kind] <= 6 else []
            truth += [f"{name},{x:.2f},{y:.2f}"] if kind == "particle" else []
    labels.sort(key=lambda row: ["particle", "background", "carbon"].index(row.split()[-1]))
    (root / "labels.star").write_text(HEADER + "_pickeroptClass #4\n" + "\n".join(labels) + "\n")
    (root / "picks.star").write_text(HEADER + "\n".join(picks) + "\n")
    (root / "truth.csv").write_text("\n".join(["micrograph,x,y", *truth]) + "\n")
