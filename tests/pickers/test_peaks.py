import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pickeropt.pickers.picker_records import local_maxima


def test_the_best_of_two_close_peaks_stays():
    scores = np.zeros((7, 9))
    scores[1, 1], scores[1, 3], scores[5, 7] = 0.6, 0.9, 0.4
    rows, columns, values = local_maxima(scores, radius=2, floor=0.1)
    assert list(zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True)) == [
        (1, 3, 0.9),
        (5, 7, 0.4),
    ]


def test_the_floor_counts_as_found_and_nan_is_no_peak():
    scores = np.array([[0.5, np.nan, 0.4, 0.0, 0.49]])
    assert local_maxima(scores, 1, floor=0.5)[1].tolist() == [0]
    assert local_maxima(scores, 1, floor=0.1)[1].tolist() == [0, 4, 2]


def test_a_plateau_has_one_peak_within_the_radius():
    rows, columns, _ = local_maxima(np.full((1, 7), 0.5), radius=2)
    assert columns.tolist() == [0, 3, 6]
    assert rows.tolist() == [0, 0, 0]


@given(st.integers(0, 2**32 - 1), st.floats(1, 4))
def test_peaks_are_apart_and_highest_around(seed: int, radius: float) -> None:
    scores = np.random.default_rng(seed).integers(0, 6, (12, 14)) / 5
    rows, columns, values = local_maxima(scores, radius)
    assert (np.diff(values) <= 0).all()
    down, across = np.mgrid[:12, :14]
    for row, column, value in zip(rows, columns, values, strict=True):
        near = (down - row) ** 2 + (across - column) ** 2 <= radius**2
        assert value == scores[near].max()
        assert sum(bool(near[r, c]) for r, c in zip(rows, columns, strict=True)) == 1
