"""Which boxes are suggested: on pools small enough to know the right answer."""

import numpy as np
import pytest
import torch

from pickeropt.label.suggestions import MERIT_BINS, PickPool, merit_fifths, suggest, uncertainty

FAR = 1000.0


def pool_of(features, coordinates=None, micrograph=None, merit=None):
    n = len(features)
    return PickPool(
        torch.tensor(np.asarray(features), dtype=torch.float32),
        np.arange(n)[:, None] * [FAR, 0.0] if coordinates is None else np.asarray(coordinates, dtype=float),
        np.zeros(n, dtype=np.int64) if micrograph is None else np.asarray(micrograph),
        np.full(n, np.nan) if merit is None else np.asarray(merit, dtype=float),
    )


def random_pool(n=200, k=4, seed=0):
    rng = np.random.default_rng(seed)
    pool = pool_of(rng.normal(size=(n, 12)), micrograph=rng.integers(0, 5, n), merit=rng.normal(size=n))
    return pool, rng.dirichlet(np.full(k, 0.5), n)


def nothing(n):
    return np.full(n, -1)


def test_uncertainty_is_one_less_the_margin():
    p = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.7, 0.1]])
    np.testing.assert_allclose(uncertainty(p), [1.0, 0.0, 0.5])


def test_merit_bins_are_fifths_and_a_sixth_for_none():
    merit = np.array([5.0, np.nan, 1.0, 3.0, 2.0, 4.0])
    np.testing.assert_array_equal(merit_fifths(merit), [4, MERIT_BINS, 0, 2, 1, 3])


def test_cold_start_gives_distinct_rows_and_the_same_again():
    pool, p = random_pool()
    rows = suggest(pool, p, nothing(200), 10.0, 20, seed=3)
    assert len(set(rows.tolist())) == 20
    np.testing.assert_array_equal(rows, suggest(pool, p, nothing(200), 10.0, 20, seed=3))


def test_labelled_and_skipped_are_never_suggested():
    pool, p = random_pool()
    labels = nothing(200)
    labels[:90], labels[90:180] = 0, -2
    rows = suggest(pool, p, labels, 10.0, 50)
    assert sorted(rows.tolist()) == list(range(180, 200))


def test_nothing_left_gives_nothing():
    pool, p = random_pool(4)
    assert suggest(pool, p, np.zeros(4, dtype=np.int64), 10.0).shape == (0,)
    empty = pool_of(np.zeros((0, 3)))
    assert suggest(empty, np.zeros((0, 4)), nothing(0), 10.0).shape == (0,)


def test_a_rare_class_comes_in_the_first_handful():
    """Three of 300 picks look like the third class, weakly; chance would show one in a hundred."""
    rng = np.random.default_rng(1)
    p = np.tile([0.6, 0.38, 0.02], (300, 1))
    rare = [17, 120, 250]
    p[rare] = [0.3, 0.3, 0.4]
    rows = suggest(pool_of(rng.normal(size=(300, 6))), p, nothing(300), 10.0, 6)
    assert set(rows.tolist()) & set(rare)


def test_the_class_without_labels_has_the_turn_though_others_are_more_uncertain():
    p = np.array([[0.5, 0.5, 0.0]] * 5 + [[0.05, 0.05, 0.9]])
    labels = np.array([0, 0, 1, 1, -1, -1])
    assert suggest(pool_of(np.eye(6)), p, labels, 10.0, 1).tolist() == [5]


def test_the_uncertain_pick_is_taken_among_equals():
    p = np.array([[0.5, 0.5]] * 12)
    p[[10, 11]] = [[0.99, 0.01], [0.55, 0.45]]
    labels = np.array([0] * 5 + [1] * 5 + [-1, -1])
    features = np.zeros((12, 2))
    features[10:] = [[0, 1], [1, 0]]
    assert suggest(pool_of(features), p, labels, 10.0, 1).tolist() == [11]


def test_copies_of_a_pick_are_not_suggested_before_every_kind_had_its_turn():
    """Four kinds of ten copies each: the first four suggestions are one of each kind."""
    features = np.repeat(np.eye(4), 10, axis=0)
    p = np.full((40, 2), 0.5)
    rows = suggest(pool_of(features), p, nothing(40), 10.0, 4)
    assert sorted((rows // 10).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(("radius", "others"), [(50.0, {2, 3}), (5.0, {1, 2, 3})])
def test_near_boxes_of_one_micrograph_are_left_out(radius, others):
    """Pick 0 is labelled; 1 is 30 px off on its micrograph, 2 as near on another, 3 is far."""
    places = [[0, 0], [30, 0], [0, 0], [900, 0]]
    pool = pool_of(np.eye(4), places, micrograph=[0, 0, 1, 0])
    labels = np.array([0, -1, -1, -1])
    assert set(suggest(pool, np.full((4, 2), 0.5), labels, radius).tolist()) == others


def test_two_near_suggestions_are_never_made():
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 300, (100, 2))
    pool = pool_of(rng.normal(size=(100, 5)), xy)
    rows = suggest(pool, np.full((100, 2), 0.5), nothing(100), 60.0)
    apart = np.linalg.norm(xy[rows][:, None] - xy[rows][None], axis=2)
    assert len(rows) > 5
    assert apart[np.triu_indices(len(rows), 1)].min() >= 60.0


def test_micrographs_and_picker_scores_share_the_turns():
    """Equal in all else, 20 of 300 picks are from all 10 micrographs and all fifths of the scores."""
    rng = np.random.default_rng(0)
    micrograph = np.repeat(np.arange(10), 30)
    merit = rng.normal(size=300)
    pool = pool_of(rng.normal(size=(300, 40)), micrograph=micrograph, merit=merit)
    rows = suggest(pool, np.full((300, 4), 0.25), nothing(300), 10.0)
    assert len(set(micrograph[rows].tolist())) == 10
    assert set(merit_fifths(merit)[rows].tolist()) == set(range(MERIT_BINS))


def test_one_class_labelled_and_features_that_never_vary():
    labels = np.array([0, 0, -1, -1, -1])
    p = np.tile([1.0, 0.0], (5, 1))
    rows = suggest(pool_of(np.ones((5, 3))), p, labels, 10.0)
    assert sorted(rows.tolist()) == [2, 3, 4]
