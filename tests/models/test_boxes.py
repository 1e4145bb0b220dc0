"""Boxes cut from views, and boxes that came alone."""

import numpy as np
import pytest
import torch

from pickeropt.errors import GeometryError
from pickeropt.models.views import CLIP, ViewFrame, cut_boxes, cut_normalised_boxes, fit_box, make_view, normalised
from pickeropt.records import FloatArray

PLAIN = ViewFrame(1.0, 1.0, 0, 0)


def naive_box(view: FloatArray, y: int, x: int, size: int) -> FloatArray:
    """The pick in pixel size // 2, edges replicated: by padding and slicing."""
    far = 3 * max(view.shape) + size
    padded = np.pad(view, far, mode="edge")
    top, left = y - size // 2 + far, x - size // 2 + far
    return padded[top : top + size, left : left + size]


@pytest.mark.parametrize("size", [1, 4, 5, 33])
def test_boxes_against_padding_and_slicing(size: int) -> None:
    view = np.arange(20 * 30, dtype=np.float32).reshape(20, 30)
    xy = np.array([[15, 10], [0, 0], [29, 19], [-8, 5], [40, 60]], dtype=np.float64)
    boxes = cut_boxes(torch.from_numpy(view)[None, None], PLAIN, xy, size)
    assert boxes.shape == (5, 1, size, size)
    for box, (x, y) in zip(boxes, xy.astype(int), strict=True):
        np.testing.assert_array_equal(box[0].numpy(), naive_box(view, y, x, size))
        if 0 <= x < 30 and 0 <= y < 20:
            assert box[0, size // 2, size // 2] == view[y, x]


def test_a_box_goes_through_the_frame_to_the_nearest_pixel() -> None:
    view = torch.arange(600, dtype=torch.float32).reshape(1, 1, 20, 30)
    frame = ViewFrame(0.5, 0.5, 2, 4)
    # x: 20.4 -> 20.9 / 2 - 0.5 + 4 = 13.95 -> 14; y: 9.2 -> 9.7 / 2 - 0.5 + 2 = 6.35 -> 6
    box = cut_boxes(view, frame, np.array([[20.4, 9.2]]), 3)
    assert box[0, 0].tolist() == [[163, 164, 165], [193, 194, 195], [223, 224, 225]]


def test_no_picks_no_boxes() -> None:
    view = torch.zeros(1, 1, 20, 20)
    boxes = cut_boxes(view, PLAIN, np.zeros((0, 2)), 5)
    assert boxes.shape == (0, 1, 5, 5)
    assert cut_normalised_boxes(view, PLAIN, np.zeros((0, 2)), 5, (20, 20)).shape == (0, 1, 5, 5)


def test_each_box_by_its_own_grey_level_and_noise() -> None:
    pixels = np.random.default_rng(0).standard_normal((50, 60)).astype(np.float32)
    pixels[:, 30:] = 3 * pixels[:, :30] + 4
    view = torch.from_numpy(pixels)[None, None]
    out = cut_normalised_boxes(view, PLAIN, np.array([[15.0, 25.0], [45.0, 25.0]]), 17, (50, 60))
    torch.testing.assert_close(out[0], out[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(out[:1], normalised(view[:, :, 17:34, 7:24]))


def test_replicated_edges_have_no_say_in_grey_level_and_noise() -> None:
    """A pick off a corner has nearly one value all over: the nearest whole box is its scale."""
    pixels = 2 * np.random.default_rng(0).standard_normal((50, 60)).astype(np.float32) + 1
    view, frame = make_view(pixels, 20.0, 20.0)
    picks = np.array([[-9.0, 57.0], [8.0, 41.0], [59, 0], [51, 8], [30, -5], [30, 8]])
    out = cut_normalised_boxes(view, frame, picks, 17, (50, 60))
    raw = cut_boxes(view, frame, picks, 17)
    for at_edge, inside in ((0, 1), (2, 3), (4, 5)):
        sample = np.sort(raw[inside, 0, ::3, ::3].numpy().ravel())
        middle = (len(sample) - 1) // 2
        level = sample[middle]
        noise = 1.4826 * np.sort(np.abs(sample - level))[middle]
        for row in (at_edge, inside):
            expected = ((raw[row] - level) / noise).clamp(-CLIP, CLIP)
            torch.testing.assert_close(out[row], expected, atol=1e-5, rtol=1e-5)


def test_a_box_wider_than_the_micrograph_and_one_without_noise() -> None:
    pixels = np.random.default_rng(0).standard_normal((40, 90)).astype(np.float32)
    pixels[:, 70:] = 2.5
    view, frame = make_view(pixels, 20.0, 20.0)
    picks = np.array([[0.0, 0.0], [20, 20], [80, 20]])
    wide = cut_normalised_boxes(view, frame, picks, 65, (40, 90))
    assert torch.isfinite(wide).all()
    narrow = cut_normalised_boxes(view, frame, picks, 17, (40, 90))
    assert torch.equal(narrow[2], cut_boxes(view, frame, picks[2:], 17)[0])  # as the micrograph has it


@pytest.mark.parametrize(("side", "size"), [(40, 33), (41, 33), (40, 65), (33, 33)])
def test_a_box_at_scale_one_is_cropped_or_extended_about_its_middle(side: int, size: int) -> None:
    box = np.random.default_rng(side).standard_normal((side, side)).astype(np.float32)
    out = fit_box(box, pixel_size=2.0, diameter_angstrom=60.0, view_diameter=30.0, size=size)
    expected = torch.from_numpy(naive_box(box, side // 2, side // 2, size).copy())[None, None]
    torch.testing.assert_close(out, normalised(expected))


@pytest.mark.parametrize("view_diameter", [15.0, 41.0, 62.0])
@pytest.mark.parametrize("side", [64, 65])
def test_the_middle_stays_in_the_middle_at_any_scale(side: int, view_diameter: float) -> None:
    rows, columns = np.mgrid[:side, :side] - side // 2
    box = (20 * np.exp(-(rows**2 + columns**2) / 8.0)).astype(np.float32)
    box += np.random.default_rng(0).standard_normal((side, side)).astype(np.float32)
    out = fit_box(box, 1.0, 30.0, view_diameter, 33)[0, 0]
    middle = (out > 0.7 * out.max()).nonzero().float().mean(0)
    assert (middle - 16).abs().max() <= 1.0


def test_boxes_that_cannot_be_used() -> None:
    small = np.random.default_rng(0).standard_normal((20, 24)).astype(np.float32)
    with pytest.raises(GeometryError, match=r"box of 24 x 20 px cannot hold a particle of 25 px; .*--pixel"):
        fit_box(small, 2.0, 50.0, 41.0, 33)
    with pytest.raises(GeometryError, match="noise cannot be measured"):
        fit_box(np.full((30, 30), 7.3, np.float32), 2.0, 50.0, 41.0, 33)
