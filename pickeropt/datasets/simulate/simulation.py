"""One micrograph from nothing: specimen, wave, electrons, and the truth about it."""

from collections.abc import Iterator

import numpy as np
from scipy import fft

from pickeropt.datasets.simulate.canvas import Canvas, smooth_field
from pickeropt.datasets.simulate.carbon import paint_carbon
from pickeropt.datasets.simulate.contaminants import paint_contaminant
from pickeropt.datasets.simulate.exposure import draw_optics, expose, expose_with_snr
from pickeropt.datasets.simulate.ice import ICE_PATH
from pickeropt.datasets.simulate.optics import Optics, interaction, low_pass
from pickeropt.datasets.simulate.particles import place_particles
from pickeropt.datasets.simulate.simulation_config import (
    CLASS_OF_SOURCE,
    Range,
    SimulatedMicrograph,
    SimulationConfig,
)
from pickeropt.datasets.simulate.species import Species, make_species
from pickeropt.records import FloatArray

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


def simulate_micrograph(
    config: SimulationConfig, species: Species, rng: np.random.Generator
) -> SimulatedMicrograph:
    """A micrograph of one species with its truth. The same generator state gives the same."""
    if config.diameter_angstrom is not None:
        species = species.scaled(config.diameter_angstrom)
    optics = draw_optics(config, rng)
    canvas = _empty_canvas(config, species, optics)
    ice = _add_ice(canvas, config, rng)
    if rng.uniform() < config.carbon_probability and config.carbon_kinds:
        look = None if config.film_seed is None else np.random.default_rng(config.film_seed)
        paint_carbon(canvas, str(rng.choice(config.carbon_kinds)), rng, look)
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
