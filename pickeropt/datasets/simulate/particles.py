"""Particles: where they lie in the ice and how they are turned."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pickeropt.datasets.simulate.canvas import Canvas, smooth_field
from pickeropt.datasets.simulate.simulation_config import SOURCE_NAMES, SimulationConfig
from pickeropt.datasets.simulate.species import Points, Species
from pickeropt.records import FloatArray

PARTICLE = SOURCE_NAMES.index("particle")
PREFERRED_SPREAD = 12.0
"""Degrees by which a particle in a preferred view leans to either side (standard deviation)."""
FLAT_SHARE = 0.7
"""Of the particles in preferred views, those that lie flat; the others stand on end."""


@dataclass(frozen=True)
class Particles:
    """centres : (n, 2) float64 x, y px of the padded canvas; angles : (n, 3) rot, tilt, psi degrees"""

    centres: NDArray[np.float64]
    angles: NDArray[np.float64]


def place_particles(canvas: Canvas, config: SimulationConfig, rng: np.random.Generator) -> Particles:
    """Place particles in free ice, mark them, and leave their blobs on the canvas, to be rendered."""
    centres = _centres(canvas, config, rng)
    angles = draw_angles(canvas.species, len(centres), float(rng.uniform(*config.preferred)), rng)
    particles = Particles(centres, angles)
    add_blobs(canvas, particles)
    for x, y in centres:
        area, dx, dy = canvas.window(x, y, 0.5 * canvas.diameter)
        disc = dx * dx + dy * dy <= np.float32(0.25 * canvas.diameter**2)
        canvas.source[area][disc & (canvas.source[area] == 0)] = PARTICLE
    return particles


def add_blobs(canvas: Canvas, particles: Particles) -> None:
    """The blobs of all particles, projected at their angles, onto the canvas."""
    species = canvas.species
    for centre, angles in zip(particles.centres, particles.angles, strict=True):
        turned = project(species.points, angles)
        canvas.add_spots(turned / canvas.pixel_size + centre, species.volumes)


def only_particles(canvas: Canvas, particles: Particles) -> FloatArray:
    """Phase of the particles alone, (h, w) rad; of one in the middle where there is none."""
    shown = particles
    if not len(particles.centres):
        h, w = canvas.shape
        shown = Particles(np.array([[w / 2.0, h / 2.0]]), np.zeros((1, 3)))
    alone = replace(canvas, phase=np.zeros_like(canvas.phase), spots=[])
    add_blobs(alone, shown)
    alone.render_spots()
    return alone.phase


def project(points: Points, angles: NDArray[np.float64]) -> Points:
    """x, y (m, 2) of points (m, 3) seen at rot, tilt, psi degrees: RELION's matrix, along its third row.

    RELION's Euler matrix, Rz(psi) Ry(tilt) Rz(rot) as turns of the axes, is the inverse of the
    same turns of the object.
    """
    turned: Points = Rotation.from_euler("ZYZ", angles, degrees=True).inv().apply(points)
    return turned[:, :2]


def draw_angles(
    species: Species, count: int, preferred: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """rot, tilt, psi of `count` particles, degrees (n, 3); the share `preferred` in preferred views.

    Preferred views look along principal axes of the molecule, as it lies at the air-water
    interface: flat (along its shortest axis, either side up) or on end (along its longest),
    PREFERRED_SPREAD about that. The others are uniform on the sphere.
    """
    z = rng.uniform(-1.0, 1.0, count)
    rot = rng.uniform(-180.0, 180.0, count)
    angles = np.stack([rot, np.rad2deg(np.arccos(z)), rng.uniform(-180.0, 180.0, count)], axis=1)
    weighted = species.points * species.volumes[:, None]
    _, axes = np.linalg.eigh(species.points.T @ weighted)  # columns, shortest axis first
    held = np.flatnonzero(rng.uniform(size=count) < preferred)
    flat = rng.uniform(size=len(held)) < FLAT_SHARE
    axis = np.where(flat[:, None], axes[:, 0], axes[:, 2]) * rng.choice((-1.0, 1.0), (len(held), 1))
    lean = rng.normal(0.0, np.deg2rad(PREFERRED_SPREAD), (len(held), 3))
    view = axis + np.cross(lean, axis)
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    angles[held, 0] = np.rad2deg(np.arctan2(view[:, 1], view[:, 0]))
    angles[held, 1] = np.rad2deg(np.arccos(np.clip(view[:, 2], -1.0, 1.0)))
    return angles


def _centres(canvas: Canvas, config: SimulationConfig, rng: np.random.Generator) -> NDArray[np.float64]:
    """Centres (n, 2) x, y px in free ice, in crowds and gaps."""
    diameter = canvas.diameter / canvas.pixel_size
    room = ndimage.distance_transform_edt(canvas.source == 0)
    free = room > 0.6 * diameter
    crowding = smooth_field(canvas.shape, 3.0 * diameter, rng) * np.float32(rng.uniform(0.0, 0.6))
    wanted = int(rng.uniform(*config.occupancy) * free.sum() / diameter**2)
    h, w = canvas.shape
    centres: list[tuple[float, float]] = []
    cells: dict[tuple[int, int], list[int]] = {}
    for _ in range(6 * wanted):
        if len(centres) >= wanted:
            break
        x, y = rng.uniform(0, w - 1), rng.uniform(0, h - 1)
        if not free[int(y), int(x)] or rng.uniform() > np.exp(min(0.0, crowding[int(y), int(x)])):
            continue
        least = (0.45 if rng.uniform() < config.overlap_fraction else 0.8) * diameter
        cell = (int(x // diameter), int(y // diameter))
        if _nearest(centres, cells, (x, y), cell) >= least:
            cells.setdefault(cell, []).append(len(centres))
            centres.append((x, y))
    return np.array(centres, dtype=np.float64).reshape(-1, 2)


def _nearest(
    centres: list[tuple[float, float]],
    cells: dict[tuple[int, int], list[int]],
    point: tuple[float, float],
    cell: tuple[int, int],
) -> float:
    """Distance to the nearest centre in the cells around, px; infinite where there is none."""
    least = np.inf
    for column in range(cell[0] - 1, cell[0] + 2):
        for row in range(cell[1] - 1, cell[1] + 2):
            for index in cells.get((column, row), ()):
                least = min(least, np.hypot(centres[index][0] - point[0], centres[index][1] - point[1]))
    return float(least)
