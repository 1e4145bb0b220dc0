import numpy as np
import pytest

from pickeropt.pickers.deepem_training import best_threshold, match_picks


def test_each_pick_takes_the_nearest_particle_that_no_better_one_took() -> None:
    particles = np.array([[0.0, 0.0], [10.0, 0.0], [50.0, 0.0]])
    picks = np.array([[4.0, 0.0], [1.0, 0.0], [50.0, 5.1], [2.0, 0.0]])
    true, was_found = match_picks(picks, particles, 6.0)
    # the first takes 0; the second has only 0 within 6 px; the third lies within; the last has nothing left
    assert true.tolist() == [True, False, True, False]
    assert was_found.tolist() == [True, False, True]


def test_nothing_to_match() -> None:
    assert [x.tolist() for x in match_picks(np.empty((0, 2)), np.zeros((2, 2)), 1.0)] == [[], [False, False]]
    assert [x.tolist() for x in match_picks(np.zeros((2, 2)), np.empty((0, 2)), 1.0)] == [[False, False], []]


def test_the_threshold_of_the_highest_f2() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.2])
    true = np.array([True, False, True, False, False])
    # precision and recall of 3 particles at 0.9: 1, 1/3; 0.8: 1/2, 1/3; 0.7: 2/3, 2/3; 0.6: 1/2, 2/3
    # F2 = 5 p r / (4 p + r): 0.385, 0.357, 0.667, 0.625
    threshold, f2 = best_threshold(scores, true, 3)
    assert threshold == 0.7
    assert f2 == pytest.approx(5 * (2 / 3) ** 2 / (5 * 2 / 3))


def test_equal_scores_stand_or_fall_together() -> None:
    threshold, f2 = best_threshold(np.array([0.5, 0.5]), np.array([False, True]), 1)
    assert (threshold, f2) == (0.5, pytest.approx(5 * 0.5 * 1 / (4 * 0.5 + 1)))


def test_without_a_true_candidate() -> None:
    assert best_threshold(np.array([0.9]), np.array([False]), 3) == (0.5, 0.0)
