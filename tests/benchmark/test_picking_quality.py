import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from picking_quality import Picked, picking_quality


def picked(candidates: list[tuple[float, float, float]], truth: list[tuple[float, float]]) -> Picked:
    table = np.array(candidates, dtype=np.float64).reshape(-1, 3)
    return Picked(table[:, :2], table[:, 2], np.array(truth, dtype=np.float64).reshape(-1, 2))


def test_a_hand_worked_case():
    # two particles; a hit 3 px off, a second pick on the same particle, a miss, and a low hit
    one = picked(
        [(10, 13, 0.9), (10, 10, 0.8), (50, 50, 0.7), (30, 34, 0.2)],
        [(10, 10), (30, 30)],
    )
    got = picking_quality([one], threshold=0.5, radius=5)
    assert (got.picks, got.truths) == (3, 2)
    assert got.precision == pytest.approx(1 / 3)
    assert got.recall == pytest.approx(1 / 2)
    assert got.f1 == pytest.approx(2 / 5)
    assert got.centre_error == pytest.approx(3)
    # ranked: hit (1/1), false, false, hit (2/4): 0.5 * 1 + 0.5 * 0.5
    assert got.average_precision == pytest.approx(0.75)
    everything = picking_quality([one], threshold=0.0, radius=5)
    assert everything.centre_error == pytest.approx((3 + 4) / 2)
    assert everything.average_precision == pytest.approx(0.75)


def test_micrographs_are_matched_apart_and_counted_together():
    here, there = picked([(10, 10, 0.9)], [(50, 50)]), picked([(50, 50, 0.8)], [(10, 10)])
    assert picking_quality([here, there], 0.5, 5).precision == 0
    assert picking_quality([here, picked([], [(10, 10)])], 0.5, 5).truths == 2


def test_nothing_found_is_no_error():
    got = picking_quality([picked([], [(1, 1)])], 0.5, 5)
    assert (got.picks, got.precision, got.recall, got.f1, got.average_precision) == (0, 0, 0, 0, 0)
    assert math.isnan(got.centre_error)


def test_margins_count_neither_picks_nor_particles():
    one = picked([(4, 50, 0.9), (5, 5, 0.8), (94, 44, 0.7), (95, 44, 0.6)], [(5, 45), (50, 44.5)])
    inside = one.inside((50, 100), 5)
    assert inside.scores.tolist() == [0.8, 0.7]
    assert picked([], [(5, 44), (5, 45)]).inside((50, 100), 5).truth.tolist() == [[5, 44]]
