"""Molecules of our own making: clouds of points that become Gaussian blobs.

A subunit is a union of overlapping spheres filled with points at the density of protein;
a symmetry group copies it. Nothing here is a real structure.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

Points = NDArray[np.float64]
Lobes = tuple[Points, NDArray[np.float64]]
"""Centres (m, 3) and radii (m,) of spheres, Å."""

MAX_POINTS = 2500
RESIDUE_VOLUME = 134.0
"""Å³ of protein a point stands for at the least (one residue)."""


@dataclass(frozen=True)
class Species:
    """One molecule.

    points : (m, 3) Å about the centre; volumes : (m,) Å³ of protein at each point
    diameter_angstrom : twice the largest distance from the centre
    """

    name: str
    points: Points
    volumes: NDArray[np.float64]
    diameter_angstrom: float

    def scaled(self, diameter_angstrom: float) -> "Species":
        """The same shape at another diameter, at the same density."""
        factor = diameter_angstrom / self.diameter_angstrom
        return replace(
            self,
            points=self.points * factor,
            volumes=self.volumes * factor**3,
            diameter_angstrom=diameter_angstrom,
        )


def make_species(seed: int = 0) -> tuple[Species, ...]:
    """One molecule of each of the 14 shapes; another seed gives other molecules."""
    streams = np.random.SeedSequence(seed).spawn(len(SHAPES))
    return tuple(
        _build(name, np.random.default_rng(stream)) for name, stream in zip(SHAPES, streams, strict=True)
    )


def _build(name: str, rng: np.random.Generator) -> Species:
    points, volumes = _fill(SHAPES[name](rng), rng)
    volumes = volumes * DENSITY.get(name, 1.0) * rng.lognormal(0.0, 0.35, len(volumes))
    points = (points - np.average(points, axis=0, weights=volumes)) * rng.uniform(0.9, 1.1)
    radius = float(np.percentile(np.linalg.norm(points, axis=1), 99.5))
    return Species(name, points, volumes, 2.0 * radius)


def _fill(lobes: Lobes, rng: np.random.Generator) -> tuple[Points, NDArray[np.float64]]:
    """Points in the union of the spheres at even density, with the Å³ of each."""
    centres, radii = lobes
    low, high = (centres - radii[:, None]).min(axis=0), (centres + radii[:, None]).max(axis=0)
    tries = 40_000
    candidates = rng.uniform(low, high, (tries, 3))
    distance, nearest = cKDTree(centres).query(candidates, k=list(range(1, min(8, len(centres)) + 1)))
    inside = candidates[np.any(distance < radii[nearest], axis=1)]
    volume = float(np.prod(high - low)) * len(inside) / tries
    count = min(len(inside), MAX_POINTS, max(64, int(volume / RESIDUE_VOLUME)))
    return inside[:count], np.full(count, volume / count)


def _walk(rng: np.random.Generator, count: int, radius: float, stretch: Points) -> Lobes:
    """A compact chain of overlapping spheres about the origin; `stretch` (3,) elongates it."""
    steps = rng.normal(size=(count, 3)) * stretch
    steps *= radius / np.linalg.norm(steps, axis=1, keepdims=True)
    centres = np.cumsum(steps, axis=0)
    centres = (centres - centres.mean(axis=0)) * 0.7
    return centres, radius * rng.uniform(0.75, 1.15, count)


def _moved(lobes: Lobes, offset: tuple[float, float, float]) -> Lobes:
    return lobes[0] + np.array(offset), lobes[1]


def _joined(*parts: Lobes) -> Lobes:
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _symmetric(group: str, lobes: Lobes) -> Lobes:
    """Copies of the lobes under a point group named as in scipy (C4, D7, T, O, I)."""
    rotations = Rotation.create_group(group)
    centres = np.concatenate([rotation.apply(lobes[0]) for rotation in rotations])
    return centres, np.tile(lobes[1], len(rotations))


def _round(*stretch: float) -> Points:
    return np.array(stretch or (1.0, 1.0, 1.0))


def _globular(rng: np.random.Generator) -> Lobes:
    return _walk(rng, 9, 19.0, _round())


def _two_domain(rng: np.random.Generator) -> Lobes:
    large, small = _walk(rng, 5, 19.0, _round()), _walk(rng, 4, 15.0, _round())
    return _joined(_moved(large, (-22.0, 0.0, 0.0)), _moved(small, (30.0, 6.0, 0.0)))


def _y_shape(rng: np.random.Generator) -> Lobes:
    """Three arms of two lobes, as an antibody has."""
    arms = []
    for angle in np.deg2rad([90.0, 210.0 + rng.uniform(-15, 15), 330.0 + rng.uniform(-15, 15)]):
        reach = np.array([[18.0], [42.0], [62.0]])
        direction = np.array([[np.cos(angle), np.sin(angle), rng.uniform(-0.2, 0.2)]])
        arms.append((reach * direction, np.array([16.0, 20.0, 20.0])))
    return _joined(*arms)


def _dimer_c2(rng: np.random.Generator) -> Lobes:
    return _symmetric("C2", _moved(_walk(rng, 8, 19.0, _round()), (24.0, 0.0, 8.0)))


def _trimer_c3(rng: np.random.Generator) -> Lobes:
    """A spike: wide head, thin stalk."""
    head = _moved(_walk(rng, 8, 18.0, _round()), (22.0, 0.0, 34.0))
    stalk = (np.array([[9.0, 0.0, z] for z in range(-70, 30, 14)]), np.full(8, 11.0))
    return _symmetric("C3", _joined(head, stalk))


def _channel_c4(rng: np.random.Generator) -> Lobes:
    """Four subunits about a pore, with the belt of a detergent micelle."""
    subunit = _moved(_walk(rng, 8, 17.0, _round(0.5, 0.5, 1.0)), (22.0, 0.0, 14.0))
    angles = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    belt = np.stack([45 * np.cos(angles), 45 * np.sin(angles), np.full(18, -14.0)], axis=1)
    return _joined(_symmetric("C4", subunit), (belt, np.full(18, 14.0)))


def _tetramer_d2(rng: np.random.Generator) -> Lobes:
    return _symmetric("D2", _moved(_walk(rng, 10, 21.0, _round()), (35.0, 17.0, 10.0)))


def _barrel_d7(rng: np.random.Generator) -> Lobes:
    return _symmetric("D7", _moved(_walk(rng, 6, 19.0, _round(0.5, 0.5, 1.0)), (44.0, 0.0, 34.0)))


def _cage_o(rng: np.random.Generator) -> Lobes:
    return _symmetric("O", _moved(_walk(rng, 4, 15.0, _round(0.7, 0.7, 0.7)), (42.0, 20.0, 14.0)))


def _capsid_i(rng: np.random.Generator) -> Lobes:
    return _symmetric("I", _moved(_walk(rng, 5, 25.0, _round()), (35.0, 20.0, 115.0)))


def _rod(rng: np.random.Generator) -> Lobes:
    x = np.arange(-110.0, 111.0, 16.0)
    y = rng.uniform(5, 25) * (x / 110.0) ** 2 + rng.normal(0, 3.0, len(x))
    return np.stack([x, y, rng.normal(0, 3.0, len(x))], axis=1), rng.uniform(13.0, 19.0, len(x))


def _ring_c11(rng: np.random.Generator) -> Lobes:
    return _symmetric("C11", _moved(_walk(rng, 4, 18.0, _round(0.5, 0.5, 1.0)), (50.0, 0.0, 0.0)))


def _disc(rng: np.random.Generator) -> Lobes:
    angle, radius = rng.uniform(0, 2 * np.pi, 40), 44.0 * np.sqrt(rng.uniform(0, 1, 40))
    z = rng.uniform(-8.0, 8.0, 40)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1), np.full(40, 15.0)


def _two_part(rng: np.random.Generator) -> Lobes:
    """A large dense body and a smaller one on its side, as a ribosome."""
    large, small = _walk(rng, 26, 26.0, _round()), _walk(rng, 14, 24.0, _round())
    shrink = np.array([0.55])
    return _joined(
        _moved((large[0] * shrink, large[1]), (0.0, 0.0, -36.0)),
        _moved((small[0] * shrink, small[1]), (0.0, 0.0, 52.0)),
    )


SHAPES: dict[str, Callable[[np.random.Generator], Lobes]] = {
    "globular": _globular,
    "two_domain": _two_domain,
    "y_shape": _y_shape,
    "dimer_c2": _dimer_c2,
    "trimer_c3": _trimer_c3,
    "channel_c4": _channel_c4,
    "tetramer_d2": _tetramer_d2,
    "barrel_d7": _barrel_d7,
    "cage_o": _cage_o,
    "capsid_i": _capsid_i,
    "rod": _rod,
    "ring_c11": _ring_c11,
    "disc": _disc,
    "two_part": _two_part,
}

DENSITY = {"two_part": 1.5, "disc": 1.3}
"""Contrast relative to protein where a molecule holds nucleic acid."""
