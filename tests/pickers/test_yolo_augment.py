import numpy as np
import pytest

from pickeropt.pickers import yolo_view as augment
from pickeropt.pickers.yolo_view import augmented, contrasted, dropped, flipped, noisy

IMAGE = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)
BOX = np.array([[0.5, 0.5, 1.0, 2.0]])


@pytest.mark.parametrize(
    ("axes", "image", "place"),
    [
        (1, [[3, 2, 1], [6, 5, 4]], (2.5, 0.5)),
        (2, [[4, 5, 6], [1, 2, 3]], (0.5, 1.5)),
        (3, [[6, 5, 4], [3, 2, 1]], (2.5, 1.5)),
    ],
)
def test_flips_take_the_boxes_with_them(axes, image, place):
    before = BOX.copy()
    turned, boxes = flipped(IMAGE, BOX, axes)
    assert turned.tolist() == image
    assert boxes.tolist() == [[*place, 1.0, 2.0]]
    assert (before == BOX).all()


def test_contrast_by_hand():
    assert contrasted(np.array([[1, 2, 6]], dtype=np.float32), 2.0).tolist() == [[0, 2, 10]]


def test_noise_is_a_share_of_the_standard_deviation():
    rng = np.random.default_rng(0)
    image = np.repeat(np.float32([0.0, 4.0]), 20000).reshape(200, 200)  # standard deviation 2
    added = noisy(image, 0.1, rng) - image
    assert added.std() == pytest.approx(0.2, rel=0.02)
    assert added.mean() == pytest.approx(0.0, abs=0.01)


def test_dropped_pixels_have_the_mean():
    image = np.repeat(np.float32([0.0, 4.0]), 20000).reshape(200, 200)
    changed = dropped(image, 0.1, np.random.default_rng(0))
    assert (changed == 2.0).mean() == pytest.approx(0.1, rel=0.1)
    assert set(np.unique(changed)) == {0.0, 2.0, 4.0}


def test_nothing_is_done_by_chance_0_and_all_six_by_chance_1(monkeypatch):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((64, 64)).astype(np.float32)
    same, boxes = augmented(image, BOX, 0.0, np.random.default_rng(0))
    assert (same == image).all()
    assert (boxes == BOX).all()
    done = []
    for name in ("flipped", "noisy", "dropped", "contrasted"):
        monkeypatch.setattr(augment, name, _noted(done, name, getattr(augment, name)))
    for name in ("gaussian_filter", "uniform_filter"):
        monkeypatch.setattr(augment.ndimage, name, _noted(done, name, getattr(augment.ndimage, name)))
    changed, _ = augmented(image, BOX, 1.0, np.random.default_rng(0))
    assert done == ["flipped", "gaussian_filter", "uniform_filter", "noisy", "dropped", "contrasted"]
    assert changed.dtype == np.float32
    assert changed.shape == image.shape


def _noted(done, name, function):
    def wrapped(*args, **kwargs):
        done.append(name)
        return function(*args, **kwargs)

    return wrapped


def test_draws_stay_within_the_papers_bounds(monkeypatch):
    """Blur 0 to 3 px, masks of 2 to 7 px, 1 to 10 % of the pixels."""
    blurs, masks, shares = [], [], []
    image = np.zeros((4, 4), dtype=np.float32)
    monkeypatch.setattr(augment.ndimage, "gaussian_filter", lambda i, s, mode: (blurs.append(s), i)[1])
    monkeypatch.setattr(augment.ndimage, "uniform_filter", lambda i, s, mode: (masks.append(s), i)[1])
    monkeypatch.setattr(augment, "dropped", lambda i, s, rng: (shares.append(s), i)[1])
    for seed in range(300):
        augmented(image, BOX, 1.0, np.random.default_rng(seed))
    assert 0 <= min(blurs) < 0.1
    assert 2.9 < max(blurs) <= 3
    assert set(masks) == set(range(2, 8))
    assert 0.01 <= min(shares) < 0.012
    assert 0.098 < max(shares) <= 0.1
