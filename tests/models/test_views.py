"""Micrograph to view: where pixels come to lie, what they are worth, what cannot be seen."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pickeropt.errors import GeometryError
from pickeropt.models.views import CLIP, GRID, ViewFrame, make_view, normalised
from pickeropt.records import FloatArray


def noise(height: int, width: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)


def by_hand(pixels: FloatArray) -> FloatArray:
    """Median and median absolute deviation of every third pixel each way, sorted out with numpy."""
    sample = np.sort(pixels[::3, ::3].ravel())
    level = sample[(len(sample) - 1) // 2]
    away = np.sort(np.abs(sample - level))
    return np.clip((pixels - level) / (1.4826 * away[(len(away) - 1) // 2]), -CLIP, CLIP)


def test_a_coordinate_by_hand() -> None:
    frame = ViewFrame(scale_y=0.5, scale_x=0.25, top=3, left=7)
    at = frame.to_view(np.array([[10.0, 21.0], [-0.5, -0.5]]))
    assert at.dtype == torch.float64
    assert at.tolist() == [[21.5 * 0.5 - 0.5 + 3, 10.5 * 0.25 - 0.5 + 7], [2.5, 6.5]]


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(60, 150),
    width=st.integers(60, 150),
    diameter=st.floats(12, 40),
    scale=st.sampled_from([0.3, 0.5, 0.77, 1.0, 1.4, 2.5]),
    where=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
)
def test_a_bright_dot_is_where_the_frame_says(height, width, diameter, scale, where) -> None:
    x, y = int(where[0] * width), int(where[1] * height)
    pixels = noise(height, width) / 10
    pixels[y, x] = 100.0
    view, frame = make_view(pixels, diameter, diameter * scale)
    bright = (view[0, 0] > 0.7 * view.max()).nonzero().to(torch.float64)
    found = bright.mean(0)
    expected = frame.to_view(np.array([[x, y]], dtype=np.float64))[0]
    assert (found - expected).abs().max() <= 1.0


def test_height_and_width_are_not_mixed_up() -> None:
    pixels = noise(80, 200) / 10
    pixels[10, 150] = 100.0
    view, frame = make_view(pixels, 20.0, 20.0)
    assert view.shape[-1] > view.shape[-2]
    row, column = divmod(int(view.argmax()), view.shape[-1])
    assert (row, column) == (10 + frame.top, 150 + frame.left)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(50, 120), width=st.integers(50, 120), view_diameter=st.floats(5, 60))
def test_sides_and_margins(height: int, width: int, view_diameter: float) -> None:
    view, frame = make_view(noise(height, width), 30.0, view_diameter)
    factor = view_diameter / 30.0
    for side, pixels, scale, before in (
        (view.shape[2], height, frame.scale_y, frame.top),
        (view.shape[3], width, frame.scale_x, frame.left),
    ):
        inner = round(scale * pixels)
        after = side - inner - before
        assert side % GRID == 1
        assert inner == round(pixels * factor)
        assert scale == inner / pixels  # what was done, not what was wished for
        assert min(before, after) >= round(view_diameter / 2)
        assert before + after < 2 * round(view_diameter / 2) + GRID
        assert 0 <= after - before <= 1


def test_at_scale_one_pixels_are_kept_and_margins_repeat_the_edge() -> None:
    pixels = noise(50, 70)
    view, frame = make_view(pixels, 21.0, 21.0)
    inner = by_hand(pixels)
    after = view.shape[2] - 50 - frame.top, view.shape[3] - 70 - frame.left
    expected = np.pad(inner, ((frame.top, after[0]), (frame.left, after[1])), mode="edge")
    np.testing.assert_allclose(view[0, 0].numpy(), expected, atol=1e-5)
    assert view.shape == (1, 1, 81, 97)  # 50 + 2 x 10 and 70 + 2 x 10, up to 16 k + 1
    assert (frame.top, frame.left) == (15, 13)


def test_halving_averages_as_a_triangle_does() -> None:
    """Output i lies at 2 i + 0.5; the triangle of twice the width weighs its neighbours 1 3 3 1."""
    pixels = noise(64, 48)
    rows = sum(w * pixels[k : 60 + k : 2] for k, w in enumerate((1, 3, 3, 1), 1)) / 8  # cells 1 to 30
    both = sum(w * rows[:, k : 44 + k : 2] for k, w in enumerate((1, 3, 3, 1), 1)) / 8
    view, frame = make_view(pixels, 24.0, 12.0)
    inner = view[0, 0, frame.top + 1 : frame.top + 31, frame.left + 1 : frame.left + 23].numpy()
    assert frame.scale_y == frame.scale_x == 0.5
    slope, offset = np.polyfit(both.ravel(), inner.ravel(), 1)
    np.testing.assert_allclose(inner, slope * both + offset, atol=1e-4)
    assert slope > 1  # averaging makes less noise, and noise is 1 again


def test_normalised_by_hand() -> None:
    pixels = noise(41, 30) * 7 + 300
    pixels[3, 4] = 1e6
    out = normalised(torch.from_numpy(pixels)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(out, by_hand(pixels), atol=1e-4)
    assert out[3, 4] == CLIP


def test_a_corner_of_carbon_does_not_set_grey_level_and_noise() -> None:
    plain = noise(200, 200)
    carbon = plain.copy()
    carbon[:80, :80] = 40 + 6 * carbon[:80, :80]  # 16 % of the area
    ice = normalised(torch.from_numpy(carbon)[None, None])[0, 0, 80:, 80:]
    assert abs(float(ice.mean())) < 0.4
    assert 0.7 < float(ice.std()) < 1.1
    with_carbon_as_scale = (carbon - carbon.mean()) / carbon.std()
    assert with_carbon_as_scale[80:, 80:].std() < 0.1  # what a mean and a deviation would leave


@settings(max_examples=20, deadline=None)
@given(gain=st.floats(0.01, 1000), level=st.floats(-1000, 1000))
def test_units_of_the_camera_do_not_matter(gain: float, level: float) -> None:
    pixels = noise(60, 60)
    scaled = (pixels.astype(np.float64) * gain + level * gain).astype(np.float32)
    a, b = (make_view(p, 20.0, 15.0)[0] for p in (pixels, scaled))
    assert (a - b).abs().max() < 0.01


def test_particle_and_micrograph_of_one_size_fit() -> None:
    view, _ = make_view(noise(60, 90), 60.0, 62.0)
    assert view.shape == (1, 1, 129, 161)


def test_a_particle_larger_than_the_micrograph() -> None:
    with pytest.raises(GeometryError, match=r"particle of 61 px does not fit .* 90 x 60 px; check --diameter"):
        make_view(noise(60, 90), 60.6, 62.0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1000.1, -3.3, 7.7e4])
@pytest.mark.parametrize(("diameter", "view_diameter"), [(20.0, 62.0), (33.3, 41.0), (50.0, 31.0)])
def test_constant_pixels_are_no_noise(value: float, diameter: float, view_diameter: float) -> None:
    """Resampling a flat area leaves rounding, which must not be blown up to noise."""
    flat = np.full((200, 230), value, np.float32)
    with pytest.raises(GeometryError, match="noise cannot be measured"):
        make_view(flat, diameter, view_diameter)
    flat[:40] += noise(40, 230) * (abs(value) + 1)
    with pytest.raises(GeometryError, match="noise cannot be measured"):
        make_view(flat, diameter, view_diameter)


def test_little_noise_on_a_high_level_is_noise() -> None:
    pixels = 30000 + noise(100, 100)
    view, _ = make_view(pixels, 20.0, 20.0)
    assert 0.9 < float(view.std()) < 1.1
