import numpy as np
import torch

from pickeropt.pickers.deeppicker_network import cleaned, extreme_counts, peaks, usual


def test_domains_more_than_four_times_the_average_are_cleaned():
    log_odds = np.full((12, 40), -3.0)
    log_odds[:6, :10] = 2.0  # 60 points
    log_odds[8, 1::2] = 1.0  # twenty domains of one: the average is 80 / 21
    kept = cleaned(log_odds, 4.0)
    assert np.isnan(kept[:6, :10]).all()
    assert np.isnan(kept).sum() == 60
    assert (kept[8, 1::2] == 1.0).all()
    assert not np.isnan(cleaned(log_odds, 0.0)).any()
    assert not np.isnan(cleaned(log_odds, 16.0)).any()  # 60 is 15.75 times the average


def test_peaks_are_more_than_half_a_peak_window_apart():
    log_odds = np.full((30, 40), -9.0) - np.random.default_rng(0).random((30, 40))
    log_odds[10, 10], log_odds[10, 16], log_odds[10, 27] = 5.0, 4.0, 3.0
    rows, columns, values = peaks(log_odds, 0.8)  # 0.4 windows are 6.4 steps of 4 px
    assert list(zip(rows[:2], columns[:2], values[:2], strict=True)) == [(10, 10, 5.0), (10, 27, 3.0)]
    rows, columns, values = peaks(log_odds, 0.7)
    assert columns[:3].tolist() == [10, 16, 27]
    assert (np.diff(values) <= 0).all()


def test_empty_pixels_give_no_thicket_of_peaks():
    log_odds = np.zeros((300, 300))
    log_odds[200, 200] = 1.0
    rows, columns, _ = peaks(log_odds, 0.8)
    assert (rows[0], columns[0]) == (200, 200)
    assert len(rows) < 120  # at most along two edges of the flat area


def test_extreme_pixels_are_counted_in_every_window():
    view = torch.randn(1, 1, 81, 94, generator=torch.Generator().manual_seed(0)) * 2
    counts = extreme_counts(view, 3.0)
    picture = np.abs(view[0, 0].numpy())
    expected = [[(picture[y : y + 64, x : x + 64] > 3).sum() for x in range(0, 31, 4)] for y in range(0, 18, 4)]
    assert counts.tolist() == np.array(expected).tolist()


def test_a_candidate_with_unusually_many_extreme_pixels_goes():
    counts = np.array([4] * 20 + [400] + [0])
    assert usual(counts, 3.0).tolist() == [True] * 20 + [False, True]
    assert usual(counts, 5.0).all()
    assert usual(counts[:0], 3.0).tolist() == []
