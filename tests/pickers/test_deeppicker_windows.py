from dataclasses import replace

import numpy as np
import pytest
import torch

from pickeropt.errors import GeometryError, ShotsError
from pickeropt.io.micrographs import read_micrograph
from pickeropt.models.views import ViewFrame, cut_boxes
from pickeropt.pickers.deeppicker_network import choose, cut_samples, equal_shares, window_centres, window_view
from tests.pickers.deeppicker_world import DIAMETER, micrograph


def quiet(what, done, total):
    pass


def test_shares_are_as_equal_as_what_there_is_allows():
    assert equal_shares(np.array([100, 100, 100]), 30) == [10, 10, 10]
    assert equal_shares(np.array([100, 4, 100]), 30) == [13, 4, 13]
    assert equal_shares(np.array([5, 4, 3]), 30) == [5, 4, 3]
    assert equal_shares(np.array([0, 7]), 6) == [0, 6]


def test_the_window_fills_64_px_at_any_magnification(tmp_path):
    plain, large = (micrograph(tmp_path, 1, zoom=zoom) for zoom in (1.0, 2.0))
    view, frame = window_view(read_micrograph(plain.path).pixels, plain.diameter_px, 1.4)
    assert view.shape[-2:] == (400, 400)
    zoomed, its_frame = window_view(read_micrograph(large.path).pixels, large.diameter_px, 1.4)
    assert zoomed.shape == view.shape
    assert its_frame.scale_x == pytest.approx(0.5)
    ours = cut_boxes(view, frame, plain.coordinates[5:6], 64)
    theirs = cut_boxes(zoomed, its_frame, large.coordinates[5:6], 64)
    assert np.corrcoef(ours.numpy().ravel(), theirs.numpy().ravel())[0, 1] > 0.9


def test_a_window_that_does_not_fit_is_refused():
    pixels = np.random.default_rng(0).normal(size=(100, 300)).astype(np.float32)
    with pytest.raises(GeometryError, match=r"112 px \(1.4 particle diameters\).*300 x 100.*--diameter"):
        window_view(pixels, 80.0, 1.4)


def test_scored_windows_are_boxes_around_their_centres(tmp_path):
    one = micrograph(tmp_path, 2, zoom=2.0)
    view, frame = window_view(read_micrograph(one.path).pixels, one.diameter_px, 1.4)
    rows, columns = np.array([0, 3, 84]), np.array([0, 50, 7])
    boxes = cut_boxes(view, frame, window_centres(frame, rows, columns), 64)
    for box, i, j in zip(boxes, rows * 4, columns * 4, strict=True):
        assert torch.equal(box, view[0, :, i : i + 64, j : j + 64])


def test_centres_are_the_middles_of_pixel_32():
    frame = ViewFrame(0.5, 0.25, 0, 0)  # px [0, 0] of the view covers x 0 to 3 and y 0 and 1
    centres = window_centres(frame, np.array([0, 2]), np.array([0, 1]))
    assert centres.tolist() == [[4 * 32 + 1.5, 2 * 32 + 0.5], [4 * 36 + 1.5, 2 * 40 + 0.5]]


def test_negatives_stay_away_from_every_known_particle(tmp_path):
    one = micrograph(tmp_path, 3)
    half = replace(one, coordinates=one.coordinates[::2], others=one.coordinates[1::2])
    samples = cut_samples([half], 1.4, 0.6, 1, 0, quiet)
    assert samples.labels.tolist() == [1] * 8 + [0] * 8
    view, frame = window_view(read_micrograph(one.path).pixels, one.diameter_px, 1.4)
    assert torch.equal(samples.patches[:8], cut_boxes(view, frame, one.coordinates[::2], 64))
    windows = view.unfold(2, 64, 4).unfold(3, 64, 4)[0, 0]
    for patch in samples.patches[8:, 0]:
        place = (windows == patch).all(3).all(2).nonzero()
        assert len(place) == 1
        centre = place[0].flip(0).numpy() * 4 + 32
        assert np.hypot(*(one.coordinates - centre).T).min() >= 0.6 * 64 - 1e-6


def test_no_room_for_a_negative_is_said(tmp_path):
    with pytest.raises(ShotsError, match=r"m4_1.mrc: no place is 3 windows away from all of its 16"):
        cut_samples([micrograph(tmp_path, 4)], 1.4, 3.0, 1, 0, quiet)


def test_species_give_equal_numbers_and_the_rest_stays_known(tmp_path):
    few, many, other = (micrograph(tmp_path, s, per_side=n) for s, n in ((5, 3), (6, 5), (7, 5)))
    other = replace(other, diameter_angstrom=1.02 * other.diameter_angstrom)
    picked = choose([few, many, other], 1.4, 20, 0)
    counts = [len(one.coordinates) for one in picked]
    assert counts[0] + counts[1] == 10
    assert counts[2] == 10
    assert [len(one.known) for one in picked] == [9, 25, 25]
    again = choose([few, many, other], 1.4, 20, 0)
    assert all(np.array_equal(a.coordinates, b.coordinates) for a, b in zip(picked, again, strict=True))


def test_particles_whose_window_is_cut_off_are_not_learnt_from(tmp_path):
    one = micrograph(tmp_path, 8)
    edge = replace(one, coordinates=np.array([[31.9, 100], [100, 367.1], [32, 32], [367, 367]]))
    (picked,) = choose([edge], 1.4, 10, 0)
    assert picked.coordinates.tolist() == [[32, 32], [367, 367]]
    assert len(picked.others) == 2
    assert DIAMETER * 1.4 == 64
