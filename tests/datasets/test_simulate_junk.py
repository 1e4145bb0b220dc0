"""Painters of junk and support, and the textures they use, against values reckoned by hand."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from pickeropt.datasets.simulate import CARBON_KINDS, CONTAMINANT_KINDS, SOURCE_NAMES, Species, make_species
from pickeropt.datasets.simulate.canvas import Canvas, add_grain, cells, polygon, smoothstep, waves
from pickeropt.datasets.simulate.carbon import DISTANCES, paint_carbon
from pickeropt.datasets.simulate.contaminants import PAINTERS, paint_contaminant
from pickeropt.datasets.simulate.ice import ice_crystal
from pickeropt.datasets.simulate.optics import Optics, ctf, intensity

WHOLE = (slice(None), slice(None))


@pytest.fixture(scope="module")
def molecule() -> Species:
    return make_species(0)[6].scaled(150.0)


def blank(molecule: Species, side: int = 320, pixel_size: float = 5.0) -> Canvas:
    return Canvas(
        phase=np.zeros((side, side), dtype=np.float32),
        absorption=np.zeros((side, side), dtype=np.float32),
        source=np.zeros((side, side), dtype=np.uint8),
        species=molecule,
        pixel_size=pixel_size,
        radian=6.5e-4,
        amplitude_contrast=0.08,
        pad=30,
    )


def paint(molecule: Species, kind: str, seed: int, place: tuple[float, float] = (160.0, 160.0)) -> Canvas:
    canvas, rng = blank(molecule), np.random.default_rng(seed)
    if kind in CARBON_KINDS:
        paint_carbon(canvas, kind, rng)
    else:
        paint_contaminant(canvas, kind, *place, rng)
    canvas.render_spots()
    return canvas


@pytest.mark.parametrize("kind", ["hole_edge", "straight_edge", "gold_edge"])
def test_one_film_is_alike_on_all_micrographs_and_lies_elsewhere(molecule: Species, kind: str) -> None:
    """With one look the phase, so the thickness, varies little from draw to draw; the place as ever."""
    shared, own, places = [], [], []
    for seed in range(8):
        for found, look in ((shared, np.random.default_rng(5)), (own, None)):
            canvas = blank(molecule)
            paint_carbon(canvas, kind, np.random.default_rng(seed), look)
            found.append(np.median(canvas.phase[canvas.source > 0]))
        places.append((canvas.source > 0).mean())
    assert np.std(np.log(shared)) < 0.5 * np.std(np.log(own))
    assert np.std(places) > 0.02


def test_every_kind_has_a_painter() -> None:
    assert set(PAINTERS) == set(CONTAMINANT_KINDS)
    assert set(DISTANCES) == set(CARBON_KINDS)


@pytest.mark.parametrize("kind", CONTAMINANT_KINDS + CARBON_KINDS)
def test_paint_is_finite_marked_repeatable_and_varied(molecule: Species, kind: str) -> None:
    """Several draws, at the middle and in a corner, where windows are cut or empty."""
    values, sizes = set(), []
    for seed, place in enumerate([(160.0, 160.0)] * 6 + [(0.0, 0.0), (319.0, 5.0)]):
        canvas = paint(molecule, kind, seed, place)
        assert canvas.phase.dtype == canvas.absorption.dtype == np.float32
        assert np.isfinite(canvas.phase).all()
        assert np.isfinite(canvas.absorption).all()
        marked = canvas.source == SOURCE_NAMES.index(kind)
        assert set(np.unique(canvas.source)) <= {0, SOURCE_NAMES.index(kind)}
        values.add(float(canvas.phase.sum()))
        sizes.append(int(marked.sum()))
        again = paint(molecule, kind, seed, place)
        np.testing.assert_array_equal(again.phase, canvas.phase)
        np.testing.assert_array_equal(again.source, canvas.source)
    assert len(values) == 8
    assert min(sizes[:6]) > 0 or kind in CARBON_KINDS
    assert sum(sizes) > 0


@pytest.mark.parametrize("kind", CONTAMINANT_KINDS)
def test_matter_lies_under_the_mark(molecule: Species, kind: str) -> None:
    """What is added is stronger inside the mark than outside, over several draws."""
    inside, outside = [], []
    for seed in range(6):
        canvas = paint(molecule, kind, seed)
        strength, marked = np.abs(canvas.phase) + np.abs(canvas.absorption), canvas.source > 0
        inside.append(strength[marked].mean())
        outside.append(strength[~marked].mean())
    assert np.mean(inside) > 4.0 * np.mean(outside)


def damping(molecule: Species, kind: str) -> float:
    """Median over draws of what is absorbed in the mark: the wave falls by exp(-damping)."""
    result = []
    for seed in range(8):
        canvas = paint(molecule, kind, seed)
        lost = canvas.absorption + np.float32(0.08) * canvas.phase
        if (canvas.source > 0).any():
            result.append(float(lost[canvas.source > 0].mean()))
    return float(np.median(result))


def test_gold_is_blacker_than_carbon_and_carbon_darker_than_ice(molecule: Species) -> None:
    assert damping(molecule, "gold_edge") > 0.3 > damping(molecule, "hole_edge") > 0.003
    assert damping(molecule, "gold_bead") > damping(molecule, "ice_ball") > 0.01


def test_grain_has_the_deviation_asked_for(molecule: Species) -> None:
    """0.06 rad in a 4 Å pixel is 0.06 · 4/5 rad in one of 5 Å."""
    canvas = blank(molecule)
    add_grain(canvas, WHOLE, np.full(canvas.shape, 0.06, dtype=np.float32), np.random.default_rng(0))
    assert canvas.phase.std() == pytest.approx(0.048, rel=0.02)


def test_carbon_grain_shows_thon_rings(molecule: Species) -> None:
    """The power of an imaged grain follows the squared CTF, reckoned by the linear formula."""
    canvas = blank(molecule, side=512, pixel_size=4.0)
    add_grain(canvas, WHOLE, np.full(canvas.shape, 0.05, dtype=np.float32), np.random.default_rng(1))
    optics = Optics(300.0, 2.7, 20000.0, 0.08, 100.0)
    power = np.abs(np.fft.fft2(intensity(canvas.phase, canvas.absorption, 4.0, optics))) ** 2
    k = np.hypot(np.fft.fftfreq(512, 4.0)[:, None], np.fft.fftfreq(512, 4.0)[None, :])
    rings = (k * 2000.0).astype(int)
    measured = np.array([power[rings == ring].mean() for ring in range(6, 160)])
    centres = (np.arange(6, 160) + 0.5) / 2000.0
    expected = ctf((centres**2).astype(np.float32), optics) ** 2
    assert np.corrcoef(measured, expected)[0, 1] > 0.95


def test_polygon_is_the_distance_from_the_nearest_side() -> None:
    x = np.array([[0.0, 4.0, 12.0]], dtype=np.float32)
    y = np.array([[0.0], [7.0]], dtype=np.float32)
    depth = polygon(x, y, np.arange(4) * np.pi / 2, np.full(4, 10.0))
    np.testing.assert_allclose(depth, [[10.0, 6.0, -2.0], [3.0, 3.0, -2.0]], atol=1e-5)


def test_fringes_have_the_period_asked_for() -> None:
    axis = (np.arange(256, dtype=np.float32) * 2.0)[None, :]
    spectrum = np.abs(np.fft.fft2(waves(axis, axis.T, 16.0, np.random.default_rng(3))))
    row, column = np.unravel_index(int(np.argmax(spectrum)), spectrum.shape)
    frequency = np.hypot(np.fft.fftfreq(256, 2.0)[row], np.fft.fftfreq(256, 2.0)[column])
    assert frequency == pytest.approx(1 / 16.0, rel=0.05)


def test_smoothstep_by_hand() -> None:
    values = smoothstep(np.array([[-1.0, 0.0, 0.25, 0.5, 1.0, 3.0]], dtype=np.float32))
    np.testing.assert_allclose(values, [[0.0, 0.0, 0.15625, 0.5, 1.0, 1.0]], atol=1e-6)


def test_cells_have_one_tone_each_and_walls_between() -> None:
    """Where the gap is wide the tone is flat; it changes only on walls; cells have the size asked for."""
    axis = (np.arange(400, dtype=np.float32) * 2.0)[None, :]
    gap, tone = cells(axis, axis.T, 100.0, np.random.default_rng(5))
    assert gap.min() >= -1e-3
    change = np.hypot(*np.gradient(tone))
    assert np.percentile(change[gap > 45.0], 97) < 0.02
    assert change[gap < 5.0].mean() > 20 * change[gap > 30.0].mean()
    tones = np.unique(np.round(tone[gap > 45.0], 2))
    assert 25 < len(tones) < 100


def test_crystals_have_straight_sides(molecule: Species) -> None:
    """A crystal fills its convex hull; those of several grains do not count."""
    fills = []
    for seed in range(12):
        canvas = blank(molecule)
        ice_crystal(canvas, 160.0, 160.0, np.random.default_rng(seed))
        points = np.argwhere(canvas.source > 0)
        fills.append(len(points) / ConvexHull(points).volume)
    assert np.median(fills) > 0.95


def test_an_ice_ball_in_underfocus_has_a_bright_rim(molecule: Species) -> None:
    """The Fresnel fringe outside the edge is brighter than the field, the inside darker."""
    optics = Optics(300.0, 2.7, 15000.0, 0.08, 100.0)
    rims, middles = [], []
    for seed in range(6):
        canvas = paint(molecule, "ice_ball", seed)
        image = intensity(canvas.phase, canvas.absorption, 5.0, optics)
        marked = canvas.source > 0
        grown = np.zeros_like(marked)
        for axis in (0, 1):
            for step in (-2, -1, 1, 2):
                grown |= np.roll(marked, step, axis)
        rims.append(image[grown & ~marked].mean())
        middles.append(image[marked].mean())
    assert np.mean(rims) > 1.02
    assert np.mean(middles) < 0.97
