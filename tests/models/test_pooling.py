"""Window means against naive sums."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pickeropt.models.features import integral_image, window_means

MAPS = np.random.default_rng(0).standard_normal((3, 7, 9)).astype(np.float32)


def means(centres: list[tuple[float, float]], side: float) -> NDArray[np.float32]:
    table = integral_image(torch.from_numpy(MAPS))
    return window_means(table, torch.tensor(centres, dtype=torch.float64), side).numpy()


def naive(y: float, x: float, side: float) -> NDArray[np.float64]:
    """Each cell by the share of its area in the window; cell i spans i - 0.5 to i + 0.5."""
    _, height, width = MAPS.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    total, area = np.zeros(len(MAPS)), 0.0
    for row in range(height):
        for column in range(width):
            tall = min(row + 0.5, y + side / 2) - max(row - 0.5, y - side / 2)
            wide = min(column + 0.5, x + side / 2) - max(column - 0.5, x - side / 2)
            share = max(tall, 0.0) * max(wide, 0.0)
            total += share * MAPS[:, row, column]
            area += share
    return total / area


def test_the_integral_image() -> None:
    table = integral_image(torch.from_numpy(MAPS))
    assert table.shape == (8, 10, 3)
    assert table.dtype == torch.float32
    assert not table[0].any()
    assert not table[:, 0].any()
    np.testing.assert_allclose(table[3, 5].numpy(), MAPS[:, :3, :5].sum((1, 2)), atol=1e-5)
    np.testing.assert_allclose(table[7, 9].numpy(), MAPS.sum((1, 2)), atol=1e-5)


def test_odd_windows_on_cells_are_plain_means() -> None:
    out = means([(3, 4), (1, 1), (5, 7)], 3.0)
    assert out.dtype == np.float32
    for row, (y, x) in zip(out, [(3, 4), (1, 1), (5, 7)], strict=True):
        np.testing.assert_allclose(row, MAPS[:, y - 1 : y + 2, x - 1 : x + 2].mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(means([(2, 6)], 1.0)[0], MAPS[:, 2, 6], atol=1e-5)


def test_a_window_between_four_cells() -> None:
    np.testing.assert_allclose(means([(2.5, 3.5)], 2.0)[0], MAPS[:, 2:4, 3:5].mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(means([(2.5, 3.5)], 1.0)[0], MAPS[:, 2:4, 3:5].mean((1, 2)), atol=1e-5)


def test_windows_are_cut_at_the_edge() -> None:
    np.testing.assert_allclose(means([(0, 0)], 3.0)[0], MAPS[:, :2, :2].mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(means([(6, 8)], 5.0)[0], MAPS[:, 4:, 6:].mean((1, 2)), atol=1e-5)


@pytest.mark.parametrize("side", [18.0, 100.0])
def test_a_window_larger_than_the_map_is_the_map(side: float) -> None:
    np.testing.assert_allclose(means([(0, 0), (3, 4), (6, 8)], side), [MAPS.mean((1, 2))] * 3, atol=1e-5)


def test_centres_off_the_map_take_the_nearest_edge() -> None:
    off, at = means([(-50, 4), (99, -1), (3, 8.4)], 3.0), means([(0, 4), (6, 0), (3, 8)], 3.0)
    np.testing.assert_allclose(off, at, atol=1e-5)


@settings(max_examples=200, deadline=None)
@given(y=st.floats(-3, 10), x=st.floats(-3, 12), side=st.floats(0.5, 20))
def test_any_window_is_the_fractional_area_sum(y: float, x: float, side: float) -> None:
    np.testing.assert_allclose(means([(y, x)], side)[0], naive(y, x, side), atol=5e-5)


def test_no_centres() -> None:
    table = integral_image(torch.from_numpy(MAPS))
    assert window_means(table, torch.zeros(0, 2, dtype=torch.float64), 2.0).shape == (0, 3)


def test_a_far_corner_of_a_large_centred_map_is_not_drowned() -> None:
    maps = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 600, 600)).astype(np.float32))
    out = window_means(integral_image(maps), torch.tensor([[598.0, 598.0]]), 3.0)
    assert out.item() == pytest.approx(maps[0, 597:, 597:].mean().item(), abs=1e-3)


def test_gradients_take_another_way_to_the_same_sums() -> None:
    maps = torch.from_numpy(MAPS).requires_grad_()
    table = integral_image(maps)
    torch.testing.assert_close(table.detach(), integral_image(maps.detach()))
    table[3, 5].sum().backward()
    assert maps.grad is not None
    assert maps.grad.sum() == 3 * 3 * 5
