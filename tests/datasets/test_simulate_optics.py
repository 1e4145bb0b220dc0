"""Image formation against formulas worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickeropt.datasets.simulate.canvas import BLOB_SIGMA, PROTEIN_VOLT, Canvas, smooth_field
from pickeropt.datasets.simulate.optics import (
    Optics,
    ctf,
    intensity,
    interaction,
    low_pass,
    squared_frequencies,
    wavelength,
)
from pickeropt.datasets.simulate.species import make_species

NO_CS = Optics(voltage_kv=300.0, cs_mm=0.0, defocus_angstrom=20000.0, amplitude_contrast=0.0)


@pytest.mark.parametrize(("kv", "angstrom"), [(100, 0.037014), (200, 0.025079), (300, 0.019687)])
def test_wavelength_is_that_of_the_tables(kv: float, angstrom: float) -> None:
    assert wavelength(kv) == pytest.approx(angstrom, rel=1e-4)


@pytest.mark.parametrize(("kv", "radian"), [(100, 9.244e-4), (200, 7.288e-4), (300, 6.526e-4)])
def test_interaction_is_that_of_the_tables(kv: float, radian: float) -> None:
    """Values for 100, 200 and 300 kV as commonly tabulated, rad/(V Å)."""
    assert interaction(kv) == pytest.approx(radian, rel=1e-3)


def test_zeros_without_cs_lie_at_the_square_root_of_n_over_defocus_and_wavelength() -> None:
    for n in (1, 2, 3):
        zero = n / (20000.0 * 0.0196875)
        before, at, after = ctf(np.array([0.97 * zero, zero, 1.03 * zero]), NO_CS)
        assert abs(at) < 1e-3
        assert before * after < 0
    first = ctf(np.array([0.5 / (20000.0 * 0.0196875)]), NO_CS)
    assert first[0] == pytest.approx(-1.0, abs=1e-4)


def test_zeros_with_cs_and_amplitude_contrast_solve_chi_plus_alpha_is_n_pi() -> None:
    optics = Optics(voltage_kv=300.0, cs_mm=2.7, defocus_angstrom=15000.0, amplitude_contrast=0.1)
    lam, cs, alpha = 0.0196875, 2.7e7, np.arcsin(0.1)
    for n in (1, 2, 3):
        # pi/2 Cs λ³ q² - pi λ Δf q + (n pi - alpha) = 0 with q = k², the smaller root
        a, b, c = 0.5 * np.pi * cs * lam**3, -np.pi * lam * 15000.0, n * np.pi - alpha
        q = (-b - np.sqrt(b * b - 4 * a * c)) / (2 * a)
        assert abs(ctf(np.array([q]), optics)[0]) < 1e-3


@given(amplitude=st.floats(0.0, 0.9), k2=st.floats(0.0, 0.04))
def test_in_focus_the_ctf_is_minus_the_amplitude_contrast(amplitude: float, k2: float) -> None:
    focus = Optics(voltage_kv=300.0, cs_mm=0.0, defocus_angstrom=0.0, amplitude_contrast=amplitude)
    assert ctf(np.array([k2]), focus)[0] == pytest.approx(-amplitude, abs=1e-12)


def test_envelope_falls_as_the_b_factor_says() -> None:
    bare, damped = (ctf(np.array([0.01]), Optics(300.0, 2.7, 18000.0, 0.1, b_factor=b))[0] for b in (0.0, 200.0))
    assert damped / bare == pytest.approx(np.exp(-0.5))


def test_a_weak_object_is_imaged_by_the_linear_ctf() -> None:
    rng = np.random.default_rng(0)
    phase = (1e-3 * rng.standard_normal((64, 96))).astype(np.float32)
    optics = Optics(voltage_kv=300.0, cs_mm=2.7, defocus_angstrom=20000.0, amplitude_contrast=0.1, b_factor=80.0)
    image = intensity(phase, np.zeros_like(phase), 3.0, optics)
    transfer = ctf(squared_frequencies((64, 96), 3.0), optics)
    expected = 1.0 + 2.0 * np.fft.ifft2(np.fft.fft2(phase) * transfer).real
    np.testing.assert_allclose(image, expected, atol=2e-5)
    assert image.std() > 3e-4


def test_absorption_without_phase_in_focus_is_the_law_of_beer() -> None:
    focus = Optics(voltage_kv=300.0, cs_mm=0.0, defocus_angstrom=0.0, amplitude_contrast=0.1)
    thick = np.full((64, 64), 0.25, dtype=np.float32)
    np.testing.assert_allclose(intensity(np.zeros_like(thick), thick, 4.0, focus), np.exp(-0.5), rtol=1e-5)


def test_a_phase_edge_has_a_bright_fringe_outside_and_a_dark_one_inside() -> None:
    phase = np.zeros((64, 256), dtype=np.float32)
    phase[:, 64:192] = 0.8
    image = intensity(phase, np.zeros_like(phase), 4.0, NO_CS)[32]
    assert image[54:64].max() > 1.1
    assert image[64:74].min() < 0.9


def test_low_pass_keeps_the_mean_and_falls_to_1_over_e() -> None:
    x = np.arange(128, dtype=np.float32)
    wave = np.tile(10.0 + np.cos(2 * np.pi * x / 16.0), (128, 1)).astype(np.float32)
    out = low_pass(wave, 16 * 2.5, 2.5)
    np.testing.assert_allclose(out, 10.0 + np.exp(-1.0) * (wave - 10.0), atol=1e-4)


def test_blobs_are_the_projected_gaussians_they_stand_for() -> None:
    """One point on a pixel: volume times potential in all, spread as its Gaussian."""
    shape, pixel = (64, 80), 2.5
    empty = np.zeros(shape, dtype=np.float32)
    canvas = Canvas(
        phase=empty.copy(),
        absorption=empty.copy(),
        source=np.zeros(shape, dtype=np.uint8),
        species=make_species(0)[0],
        pixel_size=pixel,
        radian=interaction(300.0),
        amplitude_contrast=0.1,
        pad=0,
    )
    canvas.add_spots(np.array([[40.0, 30.0], [-5.0, 300.0]]), np.array([4000.0, 1e6]))
    canvas.render_spots()
    y, x = np.mgrid[:64, :80]
    r2 = ((x - 40.0) ** 2 + (y - 30.0) ** 2) * pixel**2
    gauss = np.exp(-r2 / (2 * BLOB_SIGMA**2)) / (2 * np.pi * BLOB_SIGMA**2)
    expected = 4000.0 * PROTEIN_VOLT * interaction(300.0) * gauss
    np.testing.assert_allclose(canvas.phase, expected, atol=0.01 * expected.max())


def test_smooth_fields_are_smooth_at_their_scale() -> None:
    field = smooth_field((256, 300), 20.0, np.random.default_rng(0))
    assert field.shape == (256, 300)
    assert 0.6 < field.std() < 1.4
    assert np.abs(np.diff(field, axis=0)).max() < 0.3
    far = np.corrcoef(field[:, :-90].ravel(), field[:, 90:].ravel())[0, 1]
    assert abs(far) < 0.35
