"""Image formation: exit wave, microscope, electrons counted.

Sign convention: defocus is positive for underfocus, and
chi(k) = pi λ Δf k² - pi/2 Cs λ³ k⁴. A weak object of phase phi gives the contrast
2 CTF phi with CTF = -(sqrt(1 - A²) sin chi + A cos chi). So CTF(0) = -A, in focus and
without Cs the CTF is -A everywhere, and matter is dark. (The form of Rohou & Grigorieff,
J. Struct. Biol. 2015, without phase plate.) With astigmatism Δf depends on the direction t
of the frequency, Δf + (U - V)/2 cos 2(t - angle), as in RELION: U along `angle` from x to y.

Carbon, gold and ice balls are no weak objects. The image is therefore |wave|² of the full
exit wave exp(i phi - a), times exp(i chi) in Fourier space: Fresnel fringes come out of
it, and for small phi it equals the linear CTF.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from pickeropt.records import FloatArray

ELECTRON_REST_VOLT = 510998.95


@dataclass(frozen=True)
class Optics:
    """The microscope: kV, mm, Å (positive is underfocus), fraction, Å², Å, degrees.

    defocus_angstrom : the mean of U and V; astigmatism_angstrom : U - V
    """

    voltage_kv: float
    cs_mm: float
    defocus_angstrom: float
    amplitude_contrast: float
    b_factor: float = 0.0
    astigmatism_angstrom: float = 0.0
    astigmatism_degrees: float = 0.0


def wavelength(voltage_kv: float) -> float:
    """Relativistic electron wavelength in Å."""
    volt = voltage_kv * 1e3
    return float(12.264259 / np.sqrt(volt * (1.0 + volt / (2.0 * ELECTRON_REST_VOLT))))


def interaction(voltage_kv: float) -> float:
    """Phase per projected potential, rad/(V Å) (relativistic)."""
    volt = voltage_kv * 1e3
    mass = (ELECTRON_REST_VOLT + volt) / (2.0 * ELECTRON_REST_VOLT + volt)
    return float(2.0 * np.pi * mass / (wavelength(voltage_kv) * volt))


def aberration(k2: FloatArray, optics: Optics) -> FloatArray:
    """chi in rad for squared spatial frequencies, 1/Å²; same shape."""
    lam = wavelength(optics.voltage_kv)
    cs = optics.cs_mm * 1e7
    defocus_term = np.pi * lam * optics.defocus_angstrom
    chi: FloatArray = k2 * np.float32(defocus_term) - k2 * k2 * np.float32(0.5 * np.pi * cs * lam**3)
    return chi


def aberration_map(shape: tuple[int, int], pixel_size: float, optics: Optics, half: bool) -> FloatArray:
    """chi in rad, astigmatism included, on the grid of fft2, or of rfft2 where `half`."""
    chi = aberration(squared_frequencies(shape, pixel_size, half), optics)
    if optics.astigmatism_angstrom:
        kx, ky = _frequencies(shape, pixel_size, half)
        strength = 0.5 * np.pi * wavelength(optics.voltage_kv) * optics.astigmatism_angstrom
        twice = 2.0 * np.deg2rad(optics.astigmatism_degrees)
        chi += np.float32(strength * np.cos(twice)) * (kx * kx - ky * ky)
        chi += np.float32(2.0 * strength * np.sin(twice)) * kx * ky
    return chi


def ctf(k2: FloatArray, optics: Optics) -> FloatArray:
    """Contrast transfer, envelope included, for squared frequencies, 1/Å²; same shape.

    Without astigmatism, for which `ctf_map` is.
    """
    return _transfer(aberration(k2, optics), k2, optics)


def ctf_map(shape: tuple[int, int], pixel_size: float, optics: Optics) -> FloatArray:
    """Contrast transfer, envelope and astigmatism included, on the grid of rfft2."""
    k2 = squared_frequencies(shape, pixel_size, half=True)
    return _transfer(aberration_map(shape, pixel_size, optics, half=True), k2, optics)


def _transfer(chi: FloatArray, k2: FloatArray, optics: Optics) -> FloatArray:
    a = optics.amplitude_contrast
    transfer = -(np.sqrt(1.0 - a * a) * np.sin(chi) + a * np.cos(chi))
    result: FloatArray = transfer * np.exp(-0.25 * optics.b_factor * k2)
    return result


def squared_frequencies(shape: tuple[int, int], pixel_size: float, half: bool = False) -> FloatArray:
    """k² in 1/Å² on the grid of fft2, or of rfft2 where `half`."""
    kx, ky = _frequencies(shape, pixel_size, half)
    grid: FloatArray = ky * ky + kx * kx
    return grid


def _frequencies(shape: tuple[int, int], pixel_size: float, half: bool) -> tuple[FloatArray, FloatArray]:
    """kx (1, n) and ky (h, 1) in 1/Å."""
    kx = (fft.rfftfreq if half else fft.fftfreq)(shape[1], pixel_size).astype(np.float32)
    ky = fft.fftfreq(shape[0], pixel_size).astype(np.float32)
    return kx[None, :], ky[:, None]


def intensity(phase: FloatArray, absorption: FloatArray, pixel_size: float, optics: Optics) -> FloatArray:
    """Image intensity, 1 where there is no specimen.

    phase : (h, w) rad, real part of the potential
    absorption : (h, w), amplitude lost to scattering: a thickness over twice its mean free
        path. The share of the phase that is amplitude contrast is added here.
    """
    a = optics.amplitude_contrast
    damping = absorption + phase * np.float32(a)
    wave = np.empty(phase.shape, dtype=np.complex64)
    modulus = np.exp(-damping)
    shift = phase * np.float32(np.sqrt(1.0 - a * a))
    wave.real = modulus * np.cos(shift)
    wave.imag = modulus * np.sin(shift)
    spectrum = fft.fft2(wave, overwrite_x=True)
    shape = (phase.shape[0], phase.shape[1])
    chi = aberration_map(shape, pixel_size, optics, half=False)
    transfer = np.empty(phase.shape, dtype=np.complex64)
    envelope = np.exp(np.float32(-0.25 * optics.b_factor) * squared_frequencies(shape, pixel_size))
    transfer.real = envelope * np.cos(chi)
    transfer.imag = envelope * np.sin(chi)
    spectrum *= transfer
    image = fft.ifft2(spectrum, overwrite_x=True)
    result: FloatArray = image.real**2 + image.imag**2
    return result


def linear_image(phase: FloatArray, pixel_size: float, optics: Optics) -> FloatArray:
    """Contrast of a weak object, 2 CTF phase, with mean where there is nothing 0; (h, w) float32."""
    shape = (phase.shape[0], phase.shape[1])
    spectrum = fft.rfft2(phase) * (np.float32(2.0) * ctf_map(shape, pixel_size, optics))
    result: FloatArray = fft.irfft2(spectrum, s=shape)
    return result.astype(np.float32, copy=False)


def drifted(image: FloatArray, pixel_size: float, path: tuple[float, float]) -> FloatArray:
    """The mean over an exposure during which the image, (h, w), moves evenly by (x, y) Å."""
    if not any(path):
        return image
    kx, ky = _frequencies((image.shape[0], image.shape[1]), pixel_size, half=True)
    spectrum = fft.rfft2(image) * np.sinc(kx * np.float32(path[0]) + ky * np.float32(path[1]))
    result: FloatArray = fft.irfft2(spectrum, s=image.shape)
    return result.astype(np.float32, copy=False)


def count_electrons(expected: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Shot noise: Poisson counts of the expected electrons a pixel, (h, w) float32."""
    counts: NDArray[np.int64] = rng.poisson(np.maximum(expected, 0.0))
    return counts.astype(np.float32)


def low_pass(image: FloatArray, resolution: float, pixel_size: float) -> FloatArray:
    """Gaussian low-pass that falls to 1/e at `resolution` Å; (h, w) float32."""
    k2 = squared_frequencies((image.shape[0], image.shape[1]), pixel_size, half=True)
    spectrum = fft.rfft2(image) * np.exp(-k2 * np.float32(resolution**2))
    result: FloatArray = fft.irfft2(spectrum, s=image.shape)
    return result.astype(np.float32, copy=False)


DETECTOR_PIXEL = 1.2
"""Å, pixel of the detector where the micrograph's is larger: it was binned then."""


def detect(expected: FloatArray, pixel_size: float, dqe: float, ntf: float, rng: np.random.Generator) -> FloatArray:
    """Count the expected electrons a pixel with a detector that blurs; (h, w) float32.

    dqe, ntf : share of the detective quantum efficiency and of the noise transfer function that
        is left at the detector's Nyquist frequency; both fall as a Gaussian, d^(w²) with w in
        Nyquist (McMullan et al., Ultramicroscopy 109, 1126 (2009) has measured curves)

    What scales with the dose (DQE at frequency 0) is in the dose already. The signal passes
    sqrt(DQE), then electrons are counted, then the noise transfer blurs signal and noise alike.
    """
    nyquist2 = 4.0 * min(pixel_size, DETECTOR_PIXEL) ** 2
    signal, noise = (-0.5 * np.log(share) * nyquist2 for share in (dqe, ntf * ntf))
    detected = expected if signal == 0 else low_pass(expected, np.sqrt(signal), pixel_size)
    counted = count_electrons(detected, rng)
    return counted if noise == 0 else low_pass(counted, np.sqrt(noise), pixel_size)
