"""What is under the picks: small maps by hand, sums against loops."""

from dataclasses import replace

import numpy as np
import pytest
from frame_world import DIAMETER, draw

from pickeropt.frame.evidence import GRID, Evidence, collect_evidence, contrast, shift_sums, tally, tally_scores, total
from pickeropt.frame.frame_config import FRAMES, IDENTITY, Frame

RANKS = np.arange(24, dtype=np.float32).reshape(4, 6) / 23 * 2 - 1
PICKS = np.array([[5.0, 5.0], [55.0, 35.0], [25.0, 15.0], [-4.0, 20.0], [-6.0, 20.0], [12.0, 13.0]])
"""On 40 x 60 px in cells of 10: the fourth touches the micrograph, the fifth does not."""


def evidence() -> Evidence:
    return Evidence(RANKS, 10, (40, 60), 10.0, PICKS)


def rank(row: int, column: int) -> float:
    return float(RANKS[row, column])


def test_ranks_are_summed_where_the_picks_are() -> None:
    found = tally(evidence(), [IDENTITY, Frame(flip_y=True), Frame(scale=0.5)])
    given = [rank(0, 0), rank(3, 5), rank(1, 2), rank(2, 0), rank(1, 1)]
    flipped = [rank(3, 0), rank(0, 5), rank(2, 2), rank(2, 0), rank(2, 1)]
    halved = [rank(0, 0), rank(1, 2), rank(0, 1), rank(1, 0), rank(1, 0), rank(0, 0)]
    np.testing.assert_allclose(found.ranks, [sum(given), sum(flipped), sum(halved)], rtol=1e-6)
    assert found.inside.tolist() == [5, 5, 6]
    assert found.outside.tolist() == [1, 1, 0]
    assert found.places.tolist() == [5 + 1, 5 + 1, 4]  # two pairs share a square when halved
    np.testing.assert_allclose(found.evidence(1)[0], (sum(given) - 1) / 6, rtol=1e-6)
    np.testing.assert_allclose(found.evidence(-1)[0], (-sum(given) - 1) / 6, rtol=1e-6)
    np.testing.assert_allclose(found.error()[0], np.sqrt(1 / 18))


def test_sums_of_micrographs_add_up() -> None:
    one = tally(evidence(), FRAMES)
    both = total([one, one])
    np.testing.assert_allclose(both.ranks, 2 * one.ranks)
    np.testing.assert_allclose(both.evidence(1), one.evidence(1))
    np.testing.assert_allclose(both.error(), one.error() / np.sqrt(2))


def test_shift_sums_are_those_of_a_loop() -> None:
    frames = [IDENTITY, Frame(flip_x=True)]
    found = shift_sums(evidence(), frames, 2)
    assert found.shape == (2, 5, 5)
    for i, frame in enumerate(frames):
        cells, _ = evidence().cells(frame)
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                moved = [(y + dy, x + dx) for x, y in cells]
                inside = [rank(y, x) for y, x in moved if 0 <= y < 4 and 0 <= x < 6]
                assert found[i, dy + 2, dx + 2] == pytest.approx(sum(inside), abs=1e-5)


def test_a_dark_disc_stands_out_at_its_centre() -> None:
    y, x = np.mgrid[:80, :80]
    disc = np.where(np.hypot(x - 30, y - 50) < 6, -1.0, 0.0).astype(np.float32)
    found = contrast(disc, 12.0)
    assert np.unravel_index(found.argmax(), found.shape) == (50, 30)
    np.testing.assert_allclose(contrast(-disc, 12.0), -found, atol=1e-6)
    np.testing.assert_allclose(contrast(disc + 100, 12.0), found, atol=1e-4)


def test_a_micrograph_is_binned_to_the_particle() -> None:
    pixels = np.random.default_rng(0).standard_normal((103, 205)).astype(np.float32)
    narrow, wide = collect_evidence(pixels, 24.0, PICKS, 12)
    assert narrow.cell == wide.cell == 2
    assert narrow.ranks.shape == wide.ranks.shape == (51, 102)
    assert narrow.ranks.min() == -1
    assert narrow.ranks.max() == 1
    assert np.unique(narrow.ranks).size == narrow.ranks.size
    assert collect_evidence(pixels, 5.0, PICKS, 12)[0].cell == 1


def test_chance_is_zero_and_particles_are_not() -> None:
    pixels, xy = draw(1)
    narrow, _ = collect_evidence(pixels, DIAMETER, xy, 12)
    anywhere = np.random.default_rng(101).uniform([20, 20], [480, 400], size=(60, 2))
    sums = tally(replace(narrow, coordinates=anywhere), [IDENTITY])
    assert abs(sums.evidence(1)[0]) < 4 * sums.error()[0]
    assert tally(narrow, [IDENTITY]).evidence(1)[0] > 0.8


def test_a_classifier_is_ranked_among_places_everywhere() -> None:
    """P is x / width: a pick in the middle is at rank 0, at the right edge at 1, outside counts -1."""
    xy = np.array([[30.0, 20.0], [60.0, 10.0], [0.0, 39.0], [300.0, 20.0]])
    asked: list[int] = []

    def score(places: np.ndarray) -> np.ndarray:
        asked.append(len(places))
        return places[:, 0] / 60

    seen = replace(evidence(), coordinates=xy)
    found = tally_scores(seen, [IDENTITY, Frame(flip_x=True)], score, 10)
    assert asked == [GRID**2 + 3 + 3]
    np.testing.assert_allclose(found.ranks, [0 + 1 - 1, 0 - 1 + 1], atol=1e-9)
    assert found.outside.tolist() == [1, 1]
    assert tally_scores(seen, [IDENTITY], score, 2).inside.tolist() == [2]
