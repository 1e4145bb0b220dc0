"""Simulated views with labelled points: what the backbone is trained on."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pickeropt.datasets.simulate import (
    SimulationConfig,
    labelled_points,
    make_species,
    simulate_micrograph,
)
from pickeropt.datasets.views import GRID, make_view
from pickeropt.pretrain.config import PretrainConfig

LEAST_DIAMETER_PX = 24
"""Simulated particles are at least so many px across, so that views are not mere magnifications."""


@dataclass
class View:
    """One training view.

    pixels : (s, s) float16, normalised, s of the form 16 k + 1
    diameter : particle diameter in view px
    points : (n, 2) float64 y, x in view px
    source_classes : (n,) species or kind of junk at each point
    maps : the target maps, one (c, h, w) float16 a stage, once a teacher has seen the view
    """

    pixels: Tensor
    diameter: float
    points: Tensor
    source_classes: tuple[str, ...]
    maps: tuple[Tensor, ...] = ()


def simulated_views(config: PretrainConfig) -> Iterator[View]:
    """Two views of each simulated micrograph, another molecule every time; deterministic from the seed."""
    families = 0
    species = make_species(seed=0)
    for number in range(config.micrographs):
        rng = np.random.default_rng([config.seed, number])
        if number // (2 * len(species)) > families:
            families += 1
            species = make_species(seed=families)
        diameter = float(rng.uniform(*config.diameters_angstrom))
        pixel_size = min(float(rng.uniform(*config.pixel_sizes)), diameter / LEAST_DIAMETER_PX)
        simulation = SimulationConfig(diameter_angstrom=diameter, pixel_size=pixel_size)
        made = simulate_micrograph(simulation, species[number % len(species)], rng)
        points = labelled_points(made, config.points_per_class, rng)
        for _ in range(2):
            view_diameter = float(np.exp(rng.uniform(*np.log(config.view_diameters))))
            view, frame = make_view(made.pixels, made.diameter_px, view_diameter)
            yield _cut(
                view[0, 0],
                view_diameter,
                frame.to_view(points.coordinates),
                (points.source_class, config, rng),
            )


def _cut(
    pixels: Tensor,
    diameter: float,
    points: Tensor,
    rest: tuple[tuple[str, ...], PretrainConfig, np.random.Generator],
) -> View:
    """A square piece of a view at a random place, of the form 16 k + 1, with the points inside it."""
    classes, config, rng = rest
    side = (min(config.view_px, *pixels.shape) - 1) // GRID * GRID + 1
    top, left = (int(rng.integers(0, size - side + 1)) for size in pixels.shape)
    inside = points - torch.tensor([top, left])
    held = ((inside > 0) & (inside < side - 1)).all(1)
    kept = tuple(name for name, here in zip(classes, held.tolist(), strict=True) if here)
    return View(pixels[top : top + side, left : left + side].half(), diameter, inside[held], kept)
