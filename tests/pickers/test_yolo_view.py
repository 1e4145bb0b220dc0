import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pickeropt.errors import GeometryError, PickeroptError
from pickeropt.pickers.yolo_network import YoloSettings
from pickeropt.pickers.yolo_view import low_passed, make_view, particle_in_view, patches_of


def test_one_patch_downsizes_the_whole_micrograph():
    assert particle_in_view((4096, 4096), 108.0, YoloSettings(patches=1)) == pytest.approx(27.0)
    assert particle_in_view((2048, 4096), 108.0, YoloSettings(patches=1)) == pytest.approx(27.0)


def test_patches_overlap_by_a_particle():
    """2 x 1024 px of input for 4096 px and one overlap of 128: (4096 + 128) px share them."""
    found = particle_in_view((4096, 4096), 128.0, YoloSettings(patches=2))
    assert found == pytest.approx(128 * 2048 / (4096 + 128))


@pytest.mark.parametrize(("diameter", "patches"), [(200.0, 1), (108.0, 2), (64.0, 3)])
def test_small_particles_get_more_patches(diameter, patches):
    settings = YoloSettings()
    found = particle_in_view((4096, 4096), diameter, settings)
    assert found == particle_in_view((4096, 4096), diameter, YoloSettings(patches=patches))
    assert found >= 32 * math.sqrt(2)
    side = round(4096 * found / diameter)
    assert len(patches_of((side, side), 1024, found)) == patches**2


def test_a_small_micrograph_is_not_magnified():
    assert particle_in_view((512, 512), 100.0, YoloSettings()) == 100.0
    assert particle_in_view((512, 512), 30.0, YoloSettings()) == pytest.approx(32 * math.sqrt(2))


def test_a_particle_larger_than_the_micrograph():
    with pytest.raises(GeometryError, match="a particle of 600 px does not fit a micrograph of 1024 x 512 px"):
        particle_in_view((512, 1024), 600.0, YoloSettings())


@given(
    st.integers(33, 5000),
    st.integers(33, 5000),
    st.sampled_from([256, 512, 1024]),
    st.floats(5, 100),
)
def test_patches_cover_the_view(height, width, size, overlap):
    patches = patches_of((height, width), size, overlap)
    covered = np.zeros((height, width), dtype=bool)
    for top, left in patches.corners():
        assert top + patches.shape[0] <= max(height, patches.shape[0])
        covered[top : top + patches.shape[0], left : left + patches.shape[1]] = True
    assert covered.all()
    for starts, side in ((patches.tops, patches.shape[0]), (patches.lefts, patches.shape[1])):
        assert side % 32 == 0
        assert all(a + side - b >= overlap - 0.02 * side for a, b in pairwise(starts))


@given(st.integers(600, 2000), st.integers(0, 10**6))
def test_every_place_has_a_patch_and_the_margin_has_two(side, seed):
    patches = patches_of((side, side), 512, 50.0)
    at = np.random.default_rng(seed).uniform(0, side, (50, 2))
    boxes = np.column_stack([at, np.full((50, 2), 20.0)])
    exactly = np.sum([patches.own(boxes, corner, 0.0) for corner in patches.corners()], axis=0)
    assert (exactly == 1).all()
    with_margin = np.sum([patches.own(boxes, corner, 12.5) for corner in patches.corners()], axis=0)
    middles = [(a + b + 512) / 2 for a, b in pairwise(patches.lefts)]
    near = np.array([[min(abs(v - m) for m in middles) < 12.4 for v in row] for row in at])
    assert (with_margin >= 2 ** near.sum(axis=1)).all()


def test_a_cut_beyond_the_view_is_grey():
    patches = patches_of((40, 50), 1024, 10.0)
    assert patches.shape == (64, 64)
    part = patches.cut(np.ones((40, 50), dtype=np.float32), (0, 0))
    assert part.shape == (64, 64)
    assert part.sum() == 40 * 50


def test_places_go_to_the_view_and_back():
    pixels = np.random.default_rng(0).standard_normal((90, 60)).astype(np.float32)
    view = make_view(pixels, 1 / 3, 0.0)
    assert view.pixels.shape == (30, 20)
    # the middle of pixel 1 of three is the middle of the first pixel of the view
    np.testing.assert_allclose(view.to_view(np.array([[1.0, 4.0]])), [[0.5, 1.5]])
    xy = np.array([[12.3, 45.6], [0.0, 89.0]])
    np.testing.assert_allclose(view.to_micrograph(view.to_view(xy)), xy)


def test_a_dot_is_where_its_place_says():
    pixels = np.random.default_rng(0).standard_normal((400, 400)).astype(np.float32)
    pixels[300:304, 101:105] += 3  # middle x 102.5, y 301.5
    view = make_view(pixels, 0.5, 0.1)
    y, x = np.unravel_index(np.argmax(view.pixels), view.pixels.shape)
    place = view.to_view(np.array([[102.5, 301.5]]))[0]
    assert abs(x + 0.5 - place[0]) <= 0.5
    assert abs(y + 0.5 - place[1]) <= 0.5


def test_the_low_pass_falls_to_exp_of_minus_a_half_at_its_cut_off():
    wave = torch.sin(2 * math.pi * 0.1 * torch.arange(400.0))[None, None, None].expand(1, 1, 400, 400)
    passed = low_passed(wave, 1 / (2 * math.pi * 0.1))
    middle = slice(100, 300)
    ratio = float(passed[..., middle, middle].std() / wave[..., middle, middle].std())
    assert ratio == pytest.approx(math.exp(-0.5), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("input_size", 1000, "input_size is 1000; give a multiple of 32"),
        ("width", 0.0, "width is 0; give a number above 0"),
        ("augmented", 1.5, "augmented is 1.5; give a number between 0 and 1"),
        ("patches", -1, "patches is -1; give 1, 2 or 3"),
        ("overlap", -1.0, "overlap is -1; give a number of 0 or more"),
    ],
)
def test_settings_that_mean_nothing(name, value, message):
    with pytest.raises(PickeroptError, match=message):
        YoloSettings(**{name: value})
