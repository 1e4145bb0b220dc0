"""The exposure: optics drawn from their ranges, then counted electrons or noise of a chosen ratio.

What SNR means here: the variance of the particles' own image (the weak-object image
2 CTF phase of the particles alone, dimmed by the ice, without noise and junk) over all px of
particle discs, divided by the variance of the noise, both in the micrograph as written, over all its
frequencies. The noise is that of the crYOLO paper (Wagner et al., Commun. Biol. 2, 218
(2019), Methods): Gaussian noise before the CTF (structural), whose image is what CTF and
envelope leave of it, and Gaussian noise after it (shot), in the ratio of its standard
deviations, 88 to 51, unless the configuration has another.
"""

import numpy as np
from scipy import fft

from pickeropt.datasets.simulate.canvas import Canvas
from pickeropt.datasets.simulate.optics import Optics, ctf_map, detect, drifted, intensity, linear_image
from pickeropt.datasets.simulate.particles import PARTICLE, Particles, only_particles
from pickeropt.datasets.simulate.simulation_config import SimulationConfig
from pickeropt.records import FloatArray


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
