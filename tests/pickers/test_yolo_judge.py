import numpy as np
import pytest

from pickeropt.pickers.yolo_training import UNKNOWN, area, best_threshold


def test_the_threshold_by_hand():
    """Precision x recall is largest after the fourth: hits²/picks is 1, 4/2, 4/3, 9/4, 9/5."""
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    assert best_threshold(scores, np.array([True, True, False, True, False])) == 0.6
    assert best_threshold(scores, np.zeros(5, dtype=bool)) == UNKNOWN


def test_equal_scores_stand_or_fall_together():
    """The threshold 0.8 takes both; alone the first would be best."""
    scores = np.array([0.9, 0.8, 0.8])
    assert best_threshold(scores, np.array([False, True, False])) == 0.8
    assert best_threshold(scores, np.array([True, False, True])) == 0.8


def test_missing_labels_do_not_move_the_threshold():
    """All labels, and one of ten: the best score is the same but for chance; that of F1 is far higher."""
    rng = np.random.default_rng(0)
    true = rng.random(20000) < 0.5
    scores = np.clip(np.where(true, 0.65, 0.35) + 0.15 * rng.standard_normal(20000), 0, 1)
    complete = best_threshold(scores, true)
    labelled = true & (rng.random(20000) < 0.1)
    assert best_threshold(scores, labelled) == pytest.approx(complete, abs=0.05)
    order = np.argsort(-scores)
    f1 = 2 * np.cumsum(labelled[order]) / (np.arange(1, 20001) + labelled.sum())
    assert scores[order][np.argmax(f1)] > complete + 0.1


def test_area_by_hand():
    """Of three particles two are found, at precisions 1 and 2/3."""
    scores = np.array([0.5, 0.9, 0.7])
    assert area(scores, np.array([True, True, False]), 3) == pytest.approx((1 + 2 / 3) / 3)
    assert area(np.empty(0), np.empty(0, dtype=bool), 0) == 0.0
