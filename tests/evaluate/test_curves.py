"""Curves worked by hand, and scikit-learn as the independent reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pickeropt.evaluate.metrics import (
    average_precision,
    best_f1,
    false_removed_at_recall,
    point_at_recall,
    precision_recall,
)

scored = st.lists(st.tuples(st.integers(0, 8).map(lambda k: k / 8), st.booleans()), min_size=1, max_size=40)


def arrays_of(pairs):
    scores, flags = zip(*pairs, strict=True)
    return np.array(scores), np.array(flags, dtype=bool)


def test_three_picks_two_truths():
    # by score: true, false, true
    curve = precision_recall(np.array([0.9, 0.2, 0.6]), np.array([True, True, False]), 2)
    assert curve.thresholds.tolist() == [0.9, 0.6, 0.2]
    assert curve.kept.tolist() == [1, 2, 3]
    assert curve.precision == pytest.approx([1, 1 / 2, 2 / 3])
    assert curve.recall == pytest.approx([1 / 2, 1 / 2, 1])
    assert curve.f1 == pytest.approx([2 / 3, 1 / 2, 4 / 5])
    assert average_precision(curve) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert best_f1(curve) == (pytest.approx(4 / 5), 0.2)


def test_equal_scores_are_one_point():
    curve = precision_recall(np.array([0.5, 0.5, 0.5, 0.1]), np.array([True, False, True, False]), 4)
    assert curve.thresholds.tolist() == [0.5, 0.1]
    assert curve.precision == pytest.approx([2 / 3, 1 / 2])
    assert curve.recall == pytest.approx([1 / 2, 1 / 2])


def test_no_true_pick_gives_zeros():
    curve = precision_recall(np.array([0.5, 0.4]), np.array([False, False]), 3)
    assert curve.f1.tolist() == [0, 0]
    assert average_precision(curve) == 0
    assert best_f1(curve) == (0, 0.5)


def test_best_f1_takes_the_highest_threshold_of_a_tie():
    # F1: 2/3 at 0.9, 1/2 at 0.8, 2/5 at 0.7, 2 * 2 / (4 + 2) = 2/3 at 0.6
    curve = precision_recall(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, False, True]), 2)
    assert best_f1(curve) == (pytest.approx(2 / 3), 0.9)


def test_point_at_recall():
    curve = precision_recall(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 4)
    assert point_at_recall(curve, 0.25) == 0
    assert point_at_recall(curve, 0.26) == 2
    assert point_at_recall(curve, 0.5) == 2
    assert point_at_recall(curve, 0.51) is None


def test_false_removed_at_recall():
    # 20 true picks at 1..20; 95 % of them are 19, so the threshold is 2
    true_scores = np.arange(1, 21) / 20
    false_scores = np.array([0.5, 1.5, 1.9, 2.0, 7.0]) / 20
    scores = np.concatenate([false_scores, true_scores])
    is_true = np.arange(25) >= 5
    assert false_removed_at_recall(scores, is_true, 0.95) == pytest.approx(3 / 5)
    assert false_removed_at_recall(scores, is_true, 0.951) == pytest.approx(1 / 5)
    assert false_removed_at_recall(scores, is_true, 1.0) == pytest.approx(1 / 5)
    assert false_removed_at_recall(scores, is_true, 0.001) == 1


def test_share_of_true_kept_is_not_rounded_up_by_floating_point():
    # 55 of the true picks 1..100 are those from 46 on; 0.55 * 100 is 55.00000000000001
    scores = np.append(np.arange(1.0, 101.0), 45.5)
    assert false_removed_at_recall(scores, np.arange(101) < 100, 0.55) == 1


@pytest.mark.parametrize("flag", [True, False])
def test_false_removed_is_undefined_without_both_kinds(flag):
    assert false_removed_at_recall(np.array([0.1, 0.2]), np.array([flag, flag])) is None


@settings(deadline=None)
@given(scored, st.integers(0, 5))
def test_average_precision_is_scikit_learns_times_the_recall_of_all(pairs, missed):
    scores, is_true = arrays_of(pairs)
    if not is_true.any():
        return
    truths = int(is_true.sum()) + missed
    expected = average_precision_score(is_true, scores) * is_true.sum() / truths
    assert average_precision(precision_recall(scores, is_true, truths)) == pytest.approx(expected)


@settings(deadline=None)
@given(scored, st.integers(1, 5))
def test_curve_facts(pairs, missed):
    scores, is_true = arrays_of(pairs)
    truths = int(is_true.sum()) + missed
    curve = precision_recall(scores, is_true, truths)
    assert (np.diff(curve.thresholds) < 0).all()
    assert (np.diff(curve.recall) >= 0).all()
    assert curve.recall[-1] == is_true.sum() / truths
    assert curve.precision[-1] == is_true.mean()
    assert average_precision(curve) <= curve.recall[-1] + 1e-12
    for threshold, precision, recall in zip(curve.thresholds, curve.precision, curve.recall, strict=True):
        kept = scores >= threshold
        assert precision == is_true[kept].mean()
        assert recall == is_true[kept].sum() / truths


@settings(deadline=None)
@given(scored, st.floats(0.01, 1.0))
def test_false_removed_keeps_its_promise_and_is_the_most(pairs, fraction):
    scores, is_true = arrays_of(pairs)
    removed = false_removed_at_recall(scores, is_true, fraction)
    if removed is None:
        assert is_true.all() or not is_true.any()
        return
    good = [t for t in np.unique(scores) if (scores[is_true] >= t).mean() >= fraction - 1e-9]
    assert removed == max((scores[~is_true] < t).mean() for t in good)
