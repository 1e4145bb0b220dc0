"""A simulated micrograph: specimen, exposure, and the truth about it.

With `snr`, the signal-to-noise ratio is the variance of the particles' own image (the weak-object image
2 CTF phase of the particles alone, attenuated by the ice, without noise and contaminants) over all px of
particle discs, divided by the variance of the noise, both in the micrograph as written, over all its
frequencies. The noise is that of the crYOLO paper (Wagner et al., Commun. Biol. 2, 218 (2019), Methods):
Gaussian noise before the CTF (structural), filtered by CTF and envelope, and Gaussian noise after it (shot),
in the ratio of its standard deviations, 88 to 51, unless the configuration has another.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

from pickeropt.datasets.simulate.canvas import Canvas, smooth_field
from pickeropt.datasets.simulate.carbon import paint_carbon
from pickeropt.datasets.simulate.contaminants import paint_contaminant
from pickeropt.datasets.simulate.ice import ICE_PATH
from pickeropt.datasets.simulate.optics import (
    Optics,
    ctf_map,
    detect,
    drifted,
    intensity,
    interaction,
    linear_image,
    low_pass,
)
from pickeropt.datasets.simulate.simulation_config import (
    CLASS_OF_SOURCE,
    SOURCE_NAMES,
    Range,
    SimulatedMicrograph,
    SimulationConfig,
)
from pickeropt.datasets.simulate.species import Points, Species, make_species
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
    """x, y (m, 2) of points (m, 3) projected at rot, tilt, psi degrees: RELION's matrix, along its third row.

    RELION's Euler matrix, Rz(psi) Ry(tilt) Rz(rot) as turns of the axes, is the inverse of the
    same turns of the object.
    """
    turned: Points = Rotation.from_euler("ZYZ", angles, degrees=True).inv().apply(points)
    return turned[:, :2]


def draw_angles(species: Species, count: int, preferred: float, rng: np.random.Generator) -> NDArray[np.float64]:
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


def draw_optics(config: SimulationConfig, rng: np.random.Generator) -> Optics:
    """The microscope of one micrograph."""
    voltages = np.atleast_1d(np.asarray(config.voltage_kv, dtype=np.float64))
    return Optics(
        voltage_kv=float(rng.choice(voltages)),
        cs_mm=config.cs_mm,
        defocus_angstrom=1e4 * float(rng.uniform(*config.defocus_um)),
        amplitude_contrast=config.amplitude_contrast,
        b_factor=float(rng.uniform(*config.b_factor)),
        astigmatism_angstrom=1e4 * float(rng.uniform(*config.astigmatism_um)),
        astigmatism_degrees=float(rng.uniform(0.0, 180.0)),
    )


def expose(canvas: Canvas, config: SimulationConfig, optics: Optics, rng: np.random.Generator) -> FloatArray:
    """Electrons counted behind the microscope, (h, w) of the canvas."""
    dose = np.exp(rng.uniform(*np.log(config.dose)))
    dqe, ntf = float(rng.uniform(*config.dqe_nyquist)), float(rng.uniform(*config.ntf_nyquist))
    own = rng.spawn(1)[0]  # draws of its own, so that all others are what they were without these
    image = intensity(canvas.phase, canvas.absorption, config.pixel_size, optics)
    length, turn = float(own.uniform(*config.drift_angstrom)), float(own.uniform(0.0, np.pi))
    image = drifted(image, config.pixel_size, (length * np.cos(turn), length * np.sin(turn)))
    counted = detect(image * np.float32(dose * config.pixel_size**2), config.pixel_size, dqe, ntf, rng)
    add_hot_pixels(counted, float(own.uniform(*config.hot_pixels)), own)
    return counted


def add_hot_pixels(image: FloatArray, share: float, rng: np.random.Generator) -> None:
    """Set a share of the pixels to values 8 to 40 standard deviations above the mean, in place."""
    count = rng.binomial(image.size, share)
    where = rng.integers(0, image.size, count)
    mean, deviation = float(image.mean()), float(image.std())
    image.flat[where] = (mean + deviation * rng.uniform(8.0, 40.0, count)).astype(np.float32)


def expose_with_snr(
    canvas: Canvas,
    particles: Particles,
    config: SimulationConfig,
    optics: Optics,
    snr: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Intensity (1 where nothing is) with noise of that ratio, (h, w) of the canvas.

    The scale of the noise of a micrograph without particles is that for one in its middle.
    """
    signal = linear_image(only_particles(canvas, particles), canvas.pixel_size, optics)
    signal *= np.exp(-2.0 * canvas.absorption)
    h, w = config.shape
    frame = (slice(canvas.pad, canvas.pad + h), slice(canvas.pad, canvas.pad + w))
    discs = canvas.source[frame] == PARTICLE
    power = float(np.var(signal[frame][discs] if discs.any() else _middle(signal, canvas)))
    image = intensity(canvas.phase, canvas.absorption, canvas.pixel_size, optics)
    noise = _noise(canvas, optics, config.structural_noise, rng)
    image += noise * np.float32(np.sqrt(power / (snr * float(np.var(noise[frame])))))
    return image


def _noise(canvas: Canvas, optics: Optics, structural: float, rng: np.random.Generator) -> FloatArray:
    """Structural noise as the microscope shows it, plus shot noise of deviation 1; (h, w) float32."""
    shot = rng.standard_normal(canvas.shape, dtype=np.float32)
    if structural == 0:
        return shot
    spectrum = fft.rfft2(rng.standard_normal(canvas.shape, dtype=np.float32))
    spectrum *= np.float32(structural) * ctf_map(canvas.shape, canvas.pixel_size, optics)
    result: FloatArray = shot + fft.irfft2(spectrum, s=canvas.shape).astype(np.float32, copy=False)
    return result


def _middle(signal: FloatArray, canvas: Canvas) -> FloatArray:
    """Values within the disc in the middle of the canvas, (n,)."""
    h, w = canvas.shape
    area, dx, dy = canvas.window(w / 2.0, h / 2.0, 0.5 * canvas.diameter)
    values: FloatArray = signal[area][dx * dx + dy * dy <= np.float32(0.25 * canvas.diameter**2)]
    return values


WATER_GRAIN = 0.018
"""rad of phase noise in a 4 Å pixel of 300 Å of ice: 0.0314 molecules/Å³, each 0.095 rad Å²,
damped to a quarter because water is all but incompressible."""


def simulate_micrographs(
    config: SimulationConfig, count: int, seed: int = 0, species: tuple[Species, ...] | None = None
) -> Iterator[SimulatedMicrograph]:
    """`count` micrographs from one seed, the species in turn; each is independent of the others."""
    molecules = make_species(seed) if species is None else species
    for index, stream in enumerate(np.random.SeedSequence(seed).spawn(count)):
        yield simulate_micrograph(config, molecules[index % len(molecules)], np.random.default_rng(stream))


def simulate_micrograph(config: SimulationConfig, species: Species, rng: np.random.Generator) -> SimulatedMicrograph:
    """A micrograph of one species with its truth. The same generator state gives the same."""
    if config.diameter_angstrom is not None:
        species = species.scaled(config.diameter_angstrom)
    optics = draw_optics(config, rng)
    canvas = _empty_canvas(config, species, optics)
    ice = _add_ice(canvas, config, rng)
    if rng.uniform() < config.carbon_probability and config.carbon_kinds:
        material = None if config.film_seed is None else np.random.default_rng(config.film_seed)
        paint_carbon(canvas, str(rng.choice(config.carbon_kinds)), rng, material)
    _add_contaminants(canvas, config, rng)
    particles = place_particles(canvas, config, rng)
    canvas.render_spots()
    canvas.absorption += ice * np.float32(0.5 / ICE_PATH)
    snr = None if config.snr is None else float(rng.choice(config.snr))
    if snr is None:
        image = expose(canvas, config, optics, rng)
    else:
        image = expose_with_snr(canvas, particles, config, optics, snr, rng)
    filtered = bool(rng.uniform() < config.filtered_probability)
    h, w = config.shape
    frame = (slice(canvas.pad, canvas.pad + h), slice(canvas.pad, canvas.pad + w))
    if filtered:
        resolution = species.diameter_angstrom * _draw(config.filter_diameters, rng)
        image = low_pass(image, resolution, config.pixel_size)
        image[frame] = _eight_bit(image[frame], rng)
    coordinates = particles.centres - canvas.pad
    inside = np.all((coordinates >= 0) & (coordinates <= np.array([w - 1, h - 1])), axis=1)
    source = np.ascontiguousarray(canvas.source[frame])
    return SimulatedMicrograph(
        pixels=np.ascontiguousarray(image[frame]),
        pixel_size=config.pixel_size,
        diameter_angstrom=species.diameter_angstrom,
        coordinates=coordinates[inside],
        source_class=(species.name,) * int(inside.sum()),
        angles=particles.angles[inside],
        mask=CLASS_OF_SOURCE[source],
        source_map=source,
        optics=optics,
        snr=snr,
        filtered=filtered,
    )


def _draw(ends: Range, rng: np.random.Generator) -> float:
    return float(rng.uniform(*ends))


def _empty_canvas(config: SimulationConfig, species: Species, optics: Optics) -> Canvas:
    """A canvas with a margin of a diameter, so that what wraps round is cut off."""
    margin = int(np.ceil(max(species.diameter_angstrom, 200.0) / config.pixel_size))
    h, w = (fft.next_fast_len(side + 2 * margin, real=True) for side in config.shape)
    return Canvas(
        phase=np.zeros((h, w), dtype=np.float32),
        absorption=np.zeros((h, w), dtype=np.float32),
        source=np.zeros((h, w), dtype=np.uint8),
        species=species,
        pixel_size=config.pixel_size,
        radian=interaction(optics.voltage_kv),
        amplitude_contrast=config.amplitude_contrast,
        pad=margin,
    )


def _add_ice(canvas: Canvas, config: SimulationConfig, rng: np.random.Generator) -> FloatArray:
    """Add the grain of the ice to the phase; return its thickness in Å, (h, w) float32."""
    h, w = canvas.shape
    turn, slope = rng.uniform(0, 2 * np.pi), _draw(config.ice_gradient, rng)
    x = np.linspace(-1, 1, w, dtype=np.float32)[None, :] * np.float32(np.cos(turn))
    y = np.linspace(-1, 1, h, dtype=np.float32)[:, None] * np.float32(np.sin(turn))
    waves = smooth_field(canvas.shape, 5.0 * canvas.diameter / canvas.pixel_size, rng)
    relative = 1.0 + np.float32(slope) * (x + y) + np.float32(0.1 * slope) * waves
    thickness: FloatArray = np.float32(_draw(config.ice_angstrom, rng)) * np.maximum(relative, 0.1)
    if config.snr is None:
        grain = rng.standard_normal(canvas.shape, dtype=np.float32)
        strength = np.float32(WATER_GRAIN * 4.0 / canvas.pixel_size)
        canvas.phase += grain * strength * np.sqrt(thickness / np.float32(300.0))
    return thickness


def _add_contaminants(canvas: Canvas, config: SimulationConfig, rng: np.random.Generator) -> None:
    """Contaminants of random kinds; those that would stand on carbon are moved off it."""
    if not config.contaminant_kinds:
        return
    for _ in range(int(rng.integers(config.contaminants[0], config.contaminants[1] + 1))):
        kind = str(rng.choice(config.contaminant_kinds))
        for _ in range(10):
            x = canvas.pad + rng.uniform(0, config.shape[1])
            y = canvas.pad + rng.uniform(0, config.shape[0])
            if canvas.source[int(y), int(x)] == 0:
                paint_contaminant(canvas, kind, float(x), float(y), rng)
                break


def _eight_bit(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Whole grey values 0 to 255, scaled by the brighter half: dark junk must not set the scale."""
    middle, high = np.percentile(image[::4, ::4], [50.0, 90.0])
    spread = max(float(high - middle), 1e-6)
    grey = (image - middle) / spread * rng.uniform(18.0, 34.0) + rng.uniform(110.0, 155.0)
    result: FloatArray = np.clip(np.rint(grey), 0.0, 255.0).astype(np.float32)
    return result
