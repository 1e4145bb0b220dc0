"""Angles, astigmatism, detector, and what the signal-to-noise ratio means."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pickeropt.datasets.simulate import SimulationConfig, make_species, real_species, simulate_micrograph
from pickeropt.datasets.simulate.canvas import Canvas
from pickeropt.datasets.simulate.optics import (
    Optics,
    aberration,
    aberration_map,
    count_electrons,
    ctf,
    ctf_map,
    detect,
    drifted,
    interaction,
    linear_image,
    squared_frequencies,
)
from pickeropt.datasets.simulate.simulation import Particles, add_blobs, add_hot_pixels, draw_angles, project
from pickeropt.datasets.simulate.simulation_config import CRYOLO_SNR, DEEPEM_SNR, MASK_CLASSES, PRESETS
from pickeropt.errors import GeometryError

BARE = replace(
    PRESETS["cryolo"], shape=(384, 448), pixel_size=4.0, contaminants=(0, 0), carbon_probability=0.0,
    occupancy=(0.3, 0.4), ice_gradient=(0.0, 0.0),
)  # fmt: skip


def _euler_matrix(rot: float, tilt: float, psi: float) -> np.ndarray:
    """RELION's Euler_angles2matrix, element by element."""
    ca, cb, cg = np.cos(np.deg2rad([rot, tilt, psi]))
    sa, sb, sg = np.sin(np.deg2rad([rot, tilt, psi]))
    return np.array(
        [
            [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
            [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
            [sb * ca, sb * sa, cb],
        ]
    )


def test_projections_are_those_of_relions_angles() -> None:
    points = np.random.default_rng(0).normal(size=(50, 3))
    for angles in ([30.0, 40.0, 50.0], [-170.0, 95.0, 12.0], [0.0, 0.0, 90.0]):
        expected = (points @ _euler_matrix(*angles).T)[:, :2]
        np.testing.assert_allclose(project(points, np.array(angles)), expected, atol=1e-12)


def test_views_are_uniform_or_preferred() -> None:
    species, rng = make_species(0)[10], np.random.default_rng(1)  # a rod along x
    angles = draw_angles(species, 4000, 0.0, rng)
    for column, cosine in ((0, False), (1, True), (2, False)):
        values = np.cos(np.deg2rad(angles[:, column])) if cosine else angles[:, column] / 180.0
        assert stats.kstest(values, stats.uniform(-1, 2).cdf).pvalue > 0.01
    held = draw_angles(species, 2000, 1.0, rng)
    view = np.array([_euler_matrix(*each)[2] for each in held])
    along = np.abs(view[:, 0])  # the rod's own axis
    on_end, flat = along > np.cos(np.deg2rad(40.0)), along < np.sin(np.deg2rad(40.0))
    assert (on_end | flat).mean() > 0.99
    assert on_end.mean() == pytest.approx(0.3, abs=0.04)
    assert np.rad2deg(np.arccos(along[on_end])).mean() == pytest.approx(12.0 * np.sqrt(np.pi / 2), abs=1.5)


def test_recorded_angles_and_centres_make_the_picture() -> None:
    (species,) = real_species(("v_atpase",))
    sim = simulate_micrograph(replace(BARE, snr=(1e6,)), species, np.random.default_rng(2))
    assert len(sim.angles) == len(sim.coordinates) > 8

    def picture(angles: np.ndarray) -> np.ndarray:
        blank = np.zeros(sim.pixels.shape, dtype=np.float32)
        canvas = Canvas(blank, blank, sim.mask * 0, species, 4.0, interaction(300.0), 0.1, 0)
        add_blobs(canvas, Particles(sim.coordinates, angles))
        canvas.render_spots()
        return linear_image(canvas.phase, 4.0, sim.optics)

    discs = sim.mask == MASK_CLASSES.index("particle")
    right, wrong = (
        np.corrcoef(picture(angles)[discs], sim.pixels[discs])[0, 1] for angles in (sim.angles, sim.angles[::-1])
    )
    assert right > 0.95
    assert wrong < right - 0.2


def test_astigmatism_has_defocus_u_along_its_angle_and_v_across() -> None:
    optics = Optics(300.0, 2.7, 20000.0, 0.1, astigmatism_angstrom=3000.0, astigmatism_degrees=90.0)
    chi = aberration_map((64, 64), 2.0, optics, half=False)
    k2 = np.array([(10 / 128) ** 2])
    along_y = aberration(k2, replace(optics, defocus_angstrom=21500.0))[0]
    along_x = aberration(k2, replace(optics, defocus_angstrom=18500.0))[0]
    assert chi[10, 0] == pytest.approx(along_y, rel=1e-5)
    assert chi[0, 10] == pytest.approx(along_x, rel=1e-5)
    turned = aberration_map((64, 64), 2.0, replace(optics, astigmatism_degrees=45.0), half=False)
    diagonal = aberration(2 * k2, replace(optics, defocus_angstrom=21500.0))[0]
    assert turned[10, 10] == pytest.approx(diagonal, rel=1e-5)
    assert turned[10, -10] == pytest.approx(aberration(2 * k2, replace(optics, defocus_angstrom=18500.0))[0], rel=1e-5)


def test_without_astigmatism_the_map_is_the_ctf() -> None:
    optics = Optics(200.0, 2.7, 15000.0, 0.07, b_factor=100.0)
    k2 = squared_frequencies((48, 60), 2.0, half=True)
    np.testing.assert_allclose(ctf_map((48, 60), 2.0, optics), ctf(k2, optics), atol=1e-6)


def test_a_perfect_detector_only_counts() -> None:
    expected = np.full((64, 64), 7.0, dtype=np.float32)
    one, other = (np.random.default_rng(3) for _ in range(2))
    np.testing.assert_array_equal(detect(expected, 1.0, 1.0, 1.0, one), count_electrons(expected, other))


def test_the_detector_falls_to_its_shares_at_nyquist() -> None:
    rng = np.random.default_rng(4)
    flat = np.full((256, 256), 50.0, dtype=np.float32)
    power = np.abs(np.fft.fft2(detect(flat, 1.0, 0.25, 0.5, rng) - 50.0)) ** 2 / flat.size
    assert power[0, 1:6].mean() == pytest.approx(50.0, rel=0.6)
    near = power[:8, 124:132].mean()
    assert near == pytest.approx(50.0 * 0.5**2, rel=0.25)
    x = np.arange(256)
    wave = np.tile(1e6 * (1 + 0.5 * np.cos(np.pi * x)), (256, 1)).astype(np.float32)
    seen = np.fft.rfft(detect(wave, 1.0, 0.25, 1.0, rng)[0])[128].real / 256
    assert seen == pytest.approx(0.5e6 * np.sqrt(0.25), rel=0.01)  # the root of the DQE


def test_binned_pixels_hardly_see_the_detector() -> None:
    rng, x = np.random.default_rng(5), np.arange(256)
    wave = np.tile(1e6 * (1 + 0.5 * np.cos(np.pi * x / 2)), (256, 1)).astype(np.float32)
    seen = np.fft.rfft(detect(wave, 4.8, 0.25, 1.0, rng)[0])[64].real * 2 / 256
    assert seen == pytest.approx(0.5e6 * 0.25 ** (0.5 / 64), rel=0.01)  # w = 1/8


def test_drift_is_the_mean_over_the_path() -> None:
    """Along x by 8 px: a box filter; the middle stays where it is, and across nothing changes."""
    image = np.zeros((32, 64), dtype=np.float32)
    image[10, 30] = 1.0
    found = drifted(image, 1.5, (12.0, 0.0))
    np.testing.assert_allclose(found.sum(1), image.sum(1), atol=1e-5)
    frequencies = np.fft.rfftfreq(64)
    expected = np.fft.irfft(
        np.fft.rfft(image[10]) * np.where(frequencies == 0, 1, np.sin(8 * np.pi * frequencies))
        / np.where(frequencies == 0, 1, 8 * np.pi * frequencies), 64,
    )  # fmt: skip
    np.testing.assert_allclose(found[10], expected, atol=1e-6)
    assert abs((found[10] * np.arange(64)).sum() - 30.0) < 0.02
    np.testing.assert_allclose(found[10, 27:34].mean(), 1 / 8, atol=0.01)
    assert drifted(image, 1.5, (0.0, 0.0)) is image


def test_hot_pixels_are_as_many_and_as_high_as_asked() -> None:
    image = np.random.default_rng(0).normal(100.0, 10.0, (400, 500)).astype(np.float32)
    before = image.copy()
    add_hot_pixels(image, 1e-3, np.random.default_rng(1))
    changed = image != before
    assert 150 < changed.sum() < 250
    assert 178 < image[changed].min() < image[changed].max() < 502
    add_hot_pixels(before, 0.0, np.random.default_rng(1))
    assert before.max() < 160


def test_a_bare_microscope_has_neither_drift_nor_hot_pixels_and_the_rest_is_the_same() -> None:
    """Their draws take nothing from the others' generator."""
    bare = replace(
        SimulationConfig(), shape=(256, 256), drift_angstrom=(0.0, 0.0), hot_pixels=(0.0, 0.0),
        filtered_probability=0.0,
    )  # fmt: skip
    species = make_species(0)[0]
    plain = simulate_micrograph(bare, species, np.random.default_rng(5))
    hot = simulate_micrograph(replace(bare, hot_pixels=(1e-3, 1e-3)), species, np.random.default_rng(5))
    changed = plain.pixels != hot.pixels
    assert 30 < changed.sum() < 110
    np.testing.assert_array_equal(plain.coordinates, hot.coordinates)
    moved = simulate_micrograph(replace(bare, drift_angstrom=(40.0, 40.0)), species, np.random.default_rng(5))
    np.testing.assert_array_equal(plain.source_map, moved.source_map)
    assert np.abs(moved.pixels - plain.pixels).mean() > 0.01


@pytest.mark.parametrize("snr", [1.25, 0.093, 0.005])
def test_the_ratio_asked_for_is_the_ratio_got(snr: float) -> None:
    """Signal: the same draw almost without noise. Noise: what is added to it."""
    (species,) = real_species(("groel",))
    noisy, clean = (
        simulate_micrograph(replace(BARE, snr=(ratio,)), species, np.random.default_rng(6)) for ratio in (snr, 1e7)
    )
    assert noisy.snr == snr
    discs = clean.mask == MASK_CLASSES.index("particle")
    noise = noisy.pixels - clean.pixels
    assert np.var(clean.pixels[discs]) / np.var(noise) == pytest.approx(snr, rel=0.1)


def test_the_ratio_shows_in_the_finished_micrograph() -> None:
    """Where particles are the variance is that of signal and noise, elsewhere of noise alone."""
    (species,) = real_species(("ribosome_70s",))
    config = replace(BARE, shape=(768, 768), snr=(1.25,), occupancy=(0.2, 0.2))
    sim = simulate_micrograph(config, species, np.random.default_rng(7))
    discs = sim.mask == MASK_CLASSES.index("particle")
    signal_and_noise, noise = np.var(sim.pixels[discs]), np.var(sim.pixels[~discs])
    assert signal_and_noise / noise - 1.0 == pytest.approx(1.25, rel=0.12)


def test_structural_noise_passes_the_ctf_and_shot_noise_does_not() -> None:
    (species,) = real_species(("groel",))
    config = replace(BARE, shape=(512, 512), occupancy=(0.0, 0.0), pixel_size=2.0)
    noisy, clean = (
        simulate_micrograph(replace(config, snr=(ratio,)), species, np.random.default_rng(8)) for ratio in (0.01, 1e7)
    )
    noise = noisy.pixels - clean.pixels
    power = np.abs(np.fft.rfft2(noise)) ** 2
    transfer = ctf(squared_frequencies((512, 512), 2.0, half=True), noisy.optics) ** 2
    slope, intercept = np.polyfit(transfer.ravel(), power.ravel(), 1)
    assert slope / intercept == pytest.approx((88.0 / 51.0) ** 2, rel=0.1)


def test_a_micrograph_draws_one_ratio_of_the_ladder() -> None:
    species = make_species(0)[0]
    small = replace(BARE, shape=(64, 64), pixel_size=8.0, snr=DEEPEM_SNR)
    drawn = {simulate_micrograph(small, species, np.random.default_rng(i)).snr for i in range(20)}
    assert drawn <= set(DEEPEM_SNR)
    assert len(drawn) > 3


def test_presets_are_the_papers() -> None:
    assert PRESETS["default"] == SimulationConfig()
    assert set(PRESETS["cryolo"].snr or ()) == {1.25, 0.093, 0.041, 0.023, 0.014}
    assert max(CRYOLO_SNR) == 10
    assert set(PRESETS["deepem"].snr or ()) == {0.01, 0.008, 0.005, 0.003, 0.002, 0.001}
    assert PRESETS["cryolo"].structural_noise == pytest.approx(88 / 51)
    with pytest.raises(GeometryError, match="snr"):
        replace(BARE, snr=())


def test_voltage_is_drawn_and_recorded() -> None:
    species = make_species(0)[0]
    small = replace(BARE, shape=(64, 64), pixel_size=8.0, voltage_kv=(200.0, 300.0), astigmatism_um=(0.1, 0.2))
    seen = [simulate_micrograph(small, species, np.random.default_rng(i)).optics for i in range(8)]
    assert {optics.voltage_kv for optics in seen} == {200.0, 300.0}
    assert all(1000.0 <= optics.astigmatism_angstrom <= 2000.0 for optics in seen)
