"""Windows, levels and pictures of micrographs, against arrays worked out by hand."""

import io

import numpy as np
import pytest
from label_world import make_world
from PIL import Image

from pickeropt.display import cut
from pickeropt.io.micrographs import write_mrc
from pickeropt.io.picks import read_picks
from pickeropt.label.label_store import Box
from pickeropt.label.pictures import ArrayCache, DisplaySettings, MicrographPixels, Pictures, halved
from pickeropt.sites import Micrographs

COUNT = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize(
    ("top", "left", "shape", "expected"),
    [
        (1, 1, (2, 2), [[5, 6], [9, 10]]),
        (-1, -2, (2, 4), [[0, 0, 0, 1], [0, 0, 0, 1]]),
        (2, 3, (2, 3), [[11, 11, 11], [11, 11, 11]]),
        (-9, 1, (2, 1), [[1], [1]]),
        (7, 1, (2, 1), [[9], [9]]),
        (-1, -1, (5, 6), np.pad(COUNT, 1, mode="edge")),
    ],
)
def test_windows_repeat_the_edge(top, left, shape, expected):
    assert cut(COUNT, top, left, shape).tolist() == np.array(expected).tolist()


def test_halves_are_means_of_four():
    assert halved(COUNT).tolist() == [[2.5, 4.5], [8.5, 10.5]]
    assert halved(COUNT[:1, :3]).tolist() == [[0.5, 2.0]]


def test_the_least_used_arrays_go_first():
    kept, made = ArrayCache(20), []

    def get(name):
        return kept.get(name, lambda: made.append(name) or np.zeros(8, dtype=np.uint8))

    for name in "abacab":
        get(name)
    assert made == ["a", "b", "c", "b"]


def one(folder, pixels):
    """`Micrographs` of one micrograph, 1.5 Å/px."""
    write_mrc(folder / "m.mrc", pixels, 1.5)
    return of_file(folder)


def of_file(folder):
    star = folder / "p.star"
    star.write_text("data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\nm.mrc 1 1\n")
    found = Micrographs((folder,), None, labels=folder / "labels.star")
    found.add(read_picks(star))
    return found


def test_levels_halve_until_one_tile_holds_all(tmp_path):
    pixels = np.random.default_rng(0).standard_normal((515, 1030)).astype(np.float32)
    store = MicrographPixels(one(tmp_path, pixels))
    assert store.levels(0) == 4  # 1030, 515, 258, 129
    flipped = np.pad(pixels[::-1], ((0, 5), (0, 2)), mode="edge")
    means = flipped.reshape(130, 4, 258, 4).mean((1, 3))
    np.testing.assert_allclose(store.level(0, 2)[:128, :257], means[:128, :257], atol=1e-5)
    assert store.level(0, 2).shape == (129, 258)
    part = store.picture(0, 2, (3, 5), (7, 9))  # read and binned, not from the level
    np.testing.assert_allclose(part, means[3:10, 5:14], atol=1e-5)


def picture(data):
    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


def test_a_box_shows_the_last_row_on_top_and_the_pick_in_the_middle(tmp_path):
    pixels = np.random.default_rng(1).standard_normal((120, 160)).astype(np.float32)
    pixels[70, 50] = 100  # the pick
    pixels[90, 50] = 100  # a higher row is nearer to the top
    pictures = Pictures(one(tmp_path, pixels), 45.0)  # 30 px
    shown = picture(pictures.box(Box(0, 50, 70), 60, 2.0, DisplaySettings(0.0, 40.0)))
    assert sorted(zip(*np.nonzero(shown > 200), strict=True)) == [(9, 30), (29, 30)]


def test_a_box_may_hang_over_the_edge(tmp_path):
    pixels = np.random.default_rng(1).standard_normal((120, 160)).astype(np.float32)
    pictures = Pictures(one(tmp_path, pixels), 45.0)
    for x, y in ((0, 0), (159, 119), (0, 119), (-500, 1000)):
        assert picture(pictures.box(Box(0, x, y), 64, 2.0, DisplaySettings())).shape == (64, 64)


def test_contrast_is_in_units_of_the_noise_that_is_left_by_the_filter(tmp_path):
    """Grey 128 is the median, and 15.9 % of Gaussian pixels lie below minus one sigma."""
    pixels = (5 + 7 * np.random.default_rng(2).standard_normal((256, 256))).astype(np.float32)
    pictures = Pictures(one(tmp_path, pixels), 45.0)
    for lowpass in (0.0, 12.0):
        shown = picture(pictures.tile(0, (0, 0, 0), DisplaySettings(lowpass, 1.0)))
        assert abs(np.median(shown) - 128) < 6
        assert abs((shown == 0).mean() - 0.159) < 0.03
        assert abs((shown == 255).mean() - 0.159) < 0.03


def test_tiles_make_up_the_picture(tmp_path):
    """The same low-passed pixels whether in one tile of a level or across the border of two."""
    pixels = np.random.default_rng(3).standard_normal((300, 512)).astype(np.float32)
    pictures = Pictures(one(tmp_path, pixels), 45.0)
    tiles = [pictures.tile(0, (0, column, 0), DisplaySettings(9.0, 3.0)) for column in (0, 1)]
    both = np.concatenate([picture(tile) for tile in tiles], axis=1)
    assert both.shape == (256, 512)
    steps = np.abs(np.diff(both, axis=1)).mean(0)
    assert steps[255] < 1.5 * np.median(steps)


def test_flat_and_broken_pixels_are_shown(tmp_path):
    pictures = Pictures(one(tmp_path, np.zeros((64, 64), dtype=np.float32)), 30.0)
    assert set(picture(pictures.box(Box(0, 30, 30), 32, 1.5, DisplaySettings())).ravel().tolist()) == {128}
    pixels = np.random.default_rng(4).standard_normal((64, 64)).astype(np.float32)
    before = picture(Pictures(one(tmp_path, pixels), 30.0).tile(0, (0, 0, 0), DisplaySettings(9.0)))
    file = tmp_path / "m.mrc"
    data = bytearray(file.read_bytes())
    start = 1024 + 4 * (64 * 3 + 4)
    data[start : start + 4] = np.float32(np.nan).tobytes()
    file.write_bytes(data)
    after = picture(Pictures(of_file(tmp_path), 30.0).tile(0, (0, 0, 0), DisplaySettings(9.0)))
    far = np.s_[:40, 20:]  # row 3 is near the lower edge
    assert np.abs(after - before)[far].max() < 20


def test_the_pixel_size_is_of_the_header_or_of_the_user(tmp_path):
    make_world(tmp_path, 1, pixel_size=2.0)
    star = tmp_path / "picks.star"
    for said, expected in ((None, 2.0), (3.5, 3.5)):
        micrographs = Micrographs((tmp_path / "micrographs",), said, labels=tmp_path / "labels.star")
        micrographs.add(read_picks(star))
        assert micrographs.pixel_size(0) == expected
