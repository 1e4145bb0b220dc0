"""Pictures of micrographs and boxes, against values worked out by hand."""

import io

import numpy as np
import pytest
from PIL import Image

from pickeropt.display import (
    Filter,
    GreyScale,
    as_jpeg,
    as_png,
    binned,
    display_box,
    display_micrograph,
    grey,
    grey_scale_of,
    low_passed,
    micrograph_grey_scale,
    window,
)


def noise(shape=(400, 500), seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_grey_is_linear_about_the_median_and_clipped():
    pixels = np.array([[10, 4, 16, 7], [13, 3, 400, np.nan]], dtype=np.float32)
    found = grey(pixels, GreyScale(10.0, 2.0), contrast=3.0)
    assert found.dtype == np.uint8
    assert found.tolist() == [[128, 0, 255, 64], [191, 0, 255, 128]]


def test_the_grey_scale_is_median_and_robust_noise():
    values = 50 + 4 * noise((300, 300))
    values[:90] = 9_000  # ice on a third
    values[:2, :2] = np.nan
    scale = grey_scale_of(values)
    assert scale.median == pytest.approx(50 + 4 * 0.566, abs=0.2)  # of ordinary pixels, the 0.5 / 0.7 quantile
    assert scale.noise < 10
    assert grey_scale_of(np.full((5, 5), 3.0)) == GreyScale(3.0, 1.0)
    assert grey_scale_of(np.array([0.0] * 9 + [10.0])) == GreyScale(0.0, 3.0)  # most alike: the deviation
    assert grey_scale_of(np.array([np.nan])) == GreyScale(0.0, 1.0)


def test_a_micrograph_is_measured_after_its_filter():
    pixels, shown = noise((800, 900)), Filter(2.0, 24.0)
    assert shown.length == 12
    whole = low_passed(pixels, shown.length)
    scale = micrograph_grey_scale(pixels, shown)
    assert scale.median == pytest.approx(float(np.median(whole)), abs=0.02)
    assert scale.noise == pytest.approx(float(whole.std()), rel=0.15)
    assert scale.noise < 0.2  # that of the pixels is 1


def test_a_window_has_its_centre_in_the_middle_and_edges_replicated():
    pixels = np.arange(30).reshape(5, 6)
    assert window(pixels, (3.9, 2.2), 3).tolist() == [[8, 9, 10], [14, 15, 16], [20, 21, 22]]
    assert window(pixels, (0.0, 0.0), 4).tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [6, 6, 6, 7]]
    assert window(pixels, (40.0, 40.0), 2).tolist() == [[29, 29], [29, 29]]
    assert window(pixels, (0.0, 0.0), 1).dtype == np.float32


def test_binning_takes_means_and_drops_what_is_left_over():
    pixels = np.array([[1, 3, 5, 7, 99], [5, 7, 1, 3, 99], [99, 99, 99, 99, 99]], dtype=np.int16)
    assert binned(pixels, 2).tolist() == [[4, 4]]
    assert binned(pixels, 1).tolist() == pixels.tolist()
    tall = noise((1200, 7))
    assert np.allclose(binned(tall, 3), tall[:, :6].reshape(400, 3, 2, 3).mean((1, 3)), atol=1e-6)


def test_the_filter_halves_its_own_length():
    wave = np.cos(2 * np.pi * np.arange(64) / 8).astype(np.float32)
    found = low_passed(np.tile(wave, (64, 1)), 8.0)
    assert np.allclose(found, wave / 2, atol=1e-5)
    assert np.allclose(low_passed(np.tile(wave, (64, 1)).T, 8.0), wave[:, None] / 2, atol=1e-5)
    assert np.allclose(low_passed(np.full((8, 8), 5, np.float32), 4.0), 5)


@pytest.mark.parametrize("lowpass", [0.0, 8.0, 40.0])
def test_row_0_is_at_the_bottom_of_a_box(lowpass):
    pixels = np.zeros((200, 200), dtype=np.float32)
    pixels[120:125, 80:85] = 100.0  # above and left of the pick at x 100, y 100
    found = display_box(pixels, (100.0, 100.0), (64, 96), Filter(2.0, lowpass), GreyScale(0.0, 10.0))
    assert found.shape == (96, 96)
    rows, columns = np.nonzero(found == found.max())
    # 22 px up and 18 px left of the middle, at 1.5 px of the picture to one of the micrograph
    assert rows.mean() == pytest.approx(48 - 22 * 1.5, abs=4)
    assert columns.mean() == pytest.approx(48 - 18 * 1.5, abs=4)


def test_the_filter_of_a_box_is_that_of_the_micrograph():
    """A box out of the middle is what the whole micrograph shows there."""
    pixels, shown = noise((256, 256)), Filter(2.0, 8.0)
    scale = micrograph_grey_scale(pixels, shown)
    box = display_box(pixels, (128.0, 128.0), (64, 64), shown, scale)
    whole = grey(low_passed(pixels, 4.0), scale)[96:160, 96:160][::-1]
    assert np.abs(box.astype(int) - whole).max() <= 2


def test_a_box_at_the_edge_and_one_larger_than_the_micrograph():
    pixels = noise((40, 50))
    for centre in ((0.0, 0.0), (49.0, 39.0), (-30.0, 70.0)):
        assert display_box(pixels, centre, (30, 32), Filter(2.0), GreyScale(0, 1)).shape == (32, 32)
    assert display_box(pixels, (20.0, 20.0), (90, 32), Filter(2.0), GreyScale(0, 1)).shape == (32, 32)
    assert micrograph_grey_scale(pixels, Filter(2.0)).noise > 0


@pytest.mark.parametrize(("width", "shape"), [(250, (200, 250)), (125, (100, 125)), (2000, (400, 500))])
def test_row_0_is_at_the_bottom_of_a_micrograph(width, shape):
    pixels = noise()
    pixels[300:340, 100:140] += 30
    found = display_micrograph(pixels, width, 2.0)
    assert found.shape == shape
    scale = found.shape[1] / 500
    bright = found >= 250
    bright[: int(50 * scale)] = bright[int(110 * scale) :] = False
    rows, columns = np.nonzero(bright)
    assert rows.mean() / scale == pytest.approx(400 - 320, abs=5)
    assert columns.mean() / scale == pytest.approx(120, abs=5)


def test_integers_on_disk_are_shown_as_well(tmp_path):
    stored = (noise((64, 64)) * 100).astype(np.int16)
    stored.tofile(tmp_path / "pixels")
    mapped = np.memmap(tmp_path / "pixels", dtype=np.int16, mode="r", shape=(64, 64))
    assert np.array_equal(display_micrograph(mapped, 32, 5.0), display_micrograph(stored, 32, 5.0))


def test_pictures_are_files_that_can_be_read():
    picture = np.arange(0, 200, 2, dtype=np.uint8).reshape(10, 10)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(as_png(picture)))), picture)
    coloured = np.asarray(Image.open(io.BytesIO(as_jpeg(np.full((16, 16, 3), (200, 30, 90), np.uint8), 90))))
    assert np.abs(coloured.astype(int) - (200, 30, 90)).max() <= 4
