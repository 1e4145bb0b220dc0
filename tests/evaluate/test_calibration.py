"""Calibration worked by hand, and scikit-learn's Brier score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from pickeropt.evaluate.metrics import calibration


def test_two_bins_by_hand():
    result = calibration(np.array([0.1, 0.3, 0.8, 1.0]), np.array([False, True, True, True]), bins=2)
    # bins: mean 0.2 against 1/2 true, mean 0.9 against 1
    assert result.counts == (2, 2)
    assert result.mean_probability == pytest.approx((0.2, 0.9))
    assert result.true_share == pytest.approx((0.5, 1.0))
    assert result.expected_calibration_error == pytest.approx((2 * 0.3 + 2 * 0.1) / 4)
    assert result.brier_score == pytest.approx((0.01 + 0.49 + 0.04 + 0) / 4)


def test_fifteen_bins_with_the_last_one_closed_and_empty_ones_none():
    result = calibration(np.array([0.0, 1.0]), np.array([False, True]))
    assert result.counts == (1, *[0] * 13, 1)
    assert result.true_share == (0.0, *[None] * 13, 1.0)
    assert result.expected_calibration_error == 0
    assert result.brier_score == 0


def test_a_bin_holds_its_lower_edge():
    assert calibration(np.array([0.0, 0.5, 0.75, 1.0]), np.full(4, True), bins=4).counts == (1, 0, 1, 2)


def test_sure_and_wrong_is_the_worst():
    result = calibration(np.array([1.0, 0.0]), np.array([False, True]))
    assert (result.expected_calibration_error, result.brier_score) == (1, 1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 20))
def test_against_a_loop_over_bins_and_scikit_learn(pairs, bins):
    probability = np.array([p for p, _ in pairs])
    is_true = np.array([flag for _, flag in pairs])
    result = calibration(probability, is_true, bins)
    error = 0.0
    for k in range(bins):
        inside = np.minimum(np.floor(probability * bins), bins - 1) == k
        if inside.any():
            error += inside.mean() * abs(probability[inside].mean() - is_true[inside].mean())
    assert result.expected_calibration_error == pytest.approx(error, abs=1e-12)
    expected = brier_score_loss(is_true, probability, pos_label=True)
    assert result.brier_score == pytest.approx(expected, abs=1e-12)
    assert sum(result.counts) == len(pairs)
