"""One-to-one matching against hand-worked cases and a naive loop."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pickeropt.evaluate.metrics import descending, match, match_micrographs


def points(*xy):
    return np.array(xy, dtype=np.float64).reshape(-1, 2)


def naive_match(picks_xy, truth_xy, order, radius):
    """The definition, pick by pick, O(nm)."""
    taken = set()
    is_true = np.zeros(len(picks_xy), dtype=bool)
    for pick in order:
        best = None
        for particle in range(len(truth_xy)):
            dx = picks_xy[pick][0] - truth_xy[particle][0]
            dy = picks_xy[pick][1] - truth_xy[particle][1]
            squared = dx * dx + dy * dy
            if particle not in taken and squared <= radius * radius and (best is None or squared < best[0]):
                best = (squared, particle)
        if best is not None:
            taken.add(best[1])
            is_true[pick] = True
    return is_true


def test_second_pick_on_a_particle_is_false():
    picks = points((10, 10), (11, 10), (50, 50))
    truth = points((10, 11), (51, 50))
    assert match(picks, truth, np.array([0, 1, 2]), 5.0).tolist() == [True, False, True]
    assert match(picks, truth, np.array([1, 2, 0]), 5.0).tolist() == [False, True, True]


def test_better_pick_takes_its_nearest_and_the_next_takes_the_other():
    picks = points((0, 0), (1, 0))
    truth = points((3, 0), (-4, 0))
    # pick 1 is nearer to (3, 0); ranked second it goes without, ranked first pick 0 takes (-4, 0)
    assert match(picks, truth, np.array([0, 1]), 4.0).tolist() == [True, False]
    assert match(picks, truth, np.array([1, 0]), 4.0).tolist() == [True, True]


def test_radius_is_inclusive():
    picks, truth = points((0, 0)), points((3, 4))
    assert match(picks, truth, np.array([0]), 5.0).tolist() == [True]
    assert match(picks, truth, np.array([0]), 4.999999).tolist() == [False]


def test_no_picks_or_no_truth():
    assert match(points(), points((1, 1)), np.array([], dtype=np.int64), 5.0).tolist() == []
    assert match(points((1, 1)), points(), np.array([0]), 5.0).tolist() == [False]


def test_pick_on_top_of_its_particle_at_distance_zero():
    assert match(points((7, 7)), points((7, 7)), np.array([0]), 1.0).tolist() == [True]


def test_descending_is_stable_and_puts_nan_last():
    assert descending(np.array([0.5, np.nan, 0.9, 0.5])).tolist() == [2, 0, 3, 1]


def test_micrographs_do_not_share_particles():
    picks = points((0, 0), (0, 0), (0, 0))
    truths = [points((0, 1)), points(), points((1, 0))]
    index = np.array([2, 1, 0])
    assert match_micrographs(picks, index, truths, np.array([0, 1, 2]), 2.0).tolist() == [True, False, True]


def test_micrographs_keep_the_order_of_all_picks():
    picks = points((0, 0), (9, 9), (1, 0))
    truths = [points((0, 0)), points((9, 9))]
    index = np.array([0, 1, 0])
    assert match_micrographs(picks, index, truths, np.array([2, 1, 0]), 2.0).tolist() == [False, True, True]


# small integers, so that ties of distance and distances equal to the radius are common
coordinates = st.integers(0, 12).flatmap(lambda n: arrays(np.float64, (n, 2), elements=st.integers(0, 9).map(float)))


@settings(deadline=None)
@given(coordinates, coordinates, st.randoms(use_true_random=False), st.sampled_from([1.0, 2.0, 2.5, 5.0]))
def test_equals_the_naive_loop(picks, truth, random, radius):
    order = np.array(random.sample(range(len(picks)), len(picks)), dtype=np.int64)
    is_true = match(picks, truth, order, radius)
    assert is_true.tolist() == naive_match(picks, truth, order, radius).tolist()
    assert is_true.sum() <= min(len(picks), len(truth))


@settings(deadline=None)
@given(coordinates, coordinates, st.randoms(use_true_random=False))
def test_adding_a_pick_never_lowers_the_matches(picks, truth, random):
    order = np.array(random.sample(range(len(picks)), len(picks)), dtype=np.int64)
    everything = match(picks, truth, order, 2.5).sum()
    for left_out in range(len(picks)):
        fewer = order[order != left_out]
        subset = match(picks[fewer], truth, np.arange(len(fewer)), 2.5)
        assert everything - 1 <= subset.sum() <= everything


@settings(deadline=None)
@given(coordinates, coordinates, st.integers(0, 12))
def test_the_first_picks_match_alike_without_the_rest(picks, truth, count):
    order = np.arange(len(picks))
    first = match(picks[:count], truth, order[:count], 2.5)
    assert match(picks, truth, order, 2.5)[:count].tolist() == first.tolist()
