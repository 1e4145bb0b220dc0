from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pickeropt.errors import CheckpointError, GeometryError
from pickeropt.pickers.yolo_network import YoloNetwork, YoloSettings, inference_network, weights_of
from pickeropt.pickers.yolo_training import FLOOR, assembled, detect, load, predicted
from pickeropt.pickers.yolo_view import patches_of
from pickeropt.records import Micrograph

CPU = torch.device("cpu")
SETTINGS = YoloSettings(width=0.05, input_size=128, low_pass=0.0).fixed(particle_px=24.0, anchor=0.75)


class Spots(nn.Module):
    """Says of each cell where its brightest pixel is, and is certain where that is above 5."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        b, _, h, w = x.shape
        tiles = x.reshape(b, h // 32, 32, w // 32, 32).permute(0, 1, 3, 2, 4).flatten(3)
        value, at = tiles.max(dim=3)
        column, row = (at % 32 + 0.5) / 32, (at // 32 + 0.5) / 32
        sure = torch.where(value > 5, value, torch.full_like(value, -20.0))
        zero = torch.zeros_like(sure)
        return torch.stack([column.logit(), row.logit(), zero, zero, sure, zero], dim=1)


def spotted(shape, seed, count=60, apart=30.0):
    """A micrograph with single bright pixels, no two nearer than `apart`, and their x and y."""
    rng = np.random.default_rng(seed)
    pixels = rng.standard_normal(shape).astype(np.float32)
    places = []
    for _ in range(4000):
        y, x = rng.integers(2, shape[0] - 2), rng.integers(2, shape[1] - 2)
        # one a grid cell whichever patch looks: the detector answers once a cell
        if all(max(abs(x - a), abs(y - b)) >= 33 + apart / 10 for a, b in places):
            places.append((x, y))
            pixels[y, x] = 7 + rng.random() * 2
        if len(places) == count:
            break
    return pixels, np.array(sorted(places), dtype=np.float64)


@pytest.mark.parametrize("seed", range(4))
def test_a_particle_is_found_once_wherever_the_patches_overlap(seed):
    pixels, places = spotted((420, 530), seed)
    found = detect(Spots(), pixels, 24.0, SETTINGS)
    assert len(patches_of(pixels.shape, 128, 24.0)) == 20
    assert np.array(sorted(found.coordinates.round(3).tolist())).tolist() == places.tolist()
    np.testing.assert_allclose(found.sizes, 24.0, rtol=1e-6)
    assert (np.diff(found.scores) <= 0).all()


def test_places_and_sizes_are_those_of_the_micrograph():
    """Downsized by 2: a 2 x 2 px spot is one px of the view."""
    small, places = spotted((200, 256), 5, count=15)
    pixels = np.kron(small, np.ones((2, 2), dtype=np.float32))
    found = detect(Spots(), pixels, 48.0, SETTINGS)
    np.testing.assert_allclose(
        sorted(found.coordinates.tolist()), places * 2 + 0.5, atol=1.01
    )  # antialiasing spreads a spot over its neighbours
    np.testing.assert_allclose(found.sizes, 48.0, rtol=1e-6)


def random_network():
    torch.manual_seed(0)
    network = YoloNetwork(0.05)
    with torch.no_grad():
        network.detection.weight.normal_()
    return network


def test_patches_in_one_batch_are_as_one_by_one():
    pixels = np.random.default_rng(0).standard_normal((300, 400)).astype(np.float32)
    patches = patches_of(pixels.shape, 128, 24.0)
    network = inference_network(random_network(), CPU, torch.float32)
    together = predicted(network, pixels, patches, 1.0)
    one_by_one = predicted(network, pixels, patches, 1.0, at_once=1)
    some = predicted(network, pixels, patches, 1.0, at_once=3 * 128 * 128)
    assert together.shape == (len(patches), 5, 4, 4)
    assert together.std(axis=0).min() > 1e-4  # patches differ
    np.testing.assert_allclose(together, one_by_one, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(together, some, rtol=1e-4, atol=1e-5)


def test_a_grid_is_the_network_s_answer_to_its_patch():
    pixels = np.random.default_rng(1).standard_normal((200, 200)).astype(np.float32)
    patches = patches_of(pixels.shape, 128, 24.0)
    network = random_network().eval()
    grids = predicted(inference_network(network, CPU, torch.float32), pixels, patches, 2.0)
    for grid, (top, left) in zip(grids, patches.corners(), strict=True):
        cut = pixels[top : top + 128, left : left + 128]
        with torch.no_grad():
            raw = network(torch.from_numpy(cut.copy())[None, None])[0]
        np.testing.assert_allclose(grid[0], raw[4].sigmoid(), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(grid[3], 2 * raw[2].exp(), rtol=1e-3, atol=1e-4)


def test_candidates_below_the_floor_are_left_out():
    patches = patches_of((32, 64), 1024, 10.0)
    grids = np.zeros((1, 5, 1, 2), dtype=np.float32)
    grids[0, 0] = [[FLOOR - 1e-3, FLOOR + 1e-4]]
    boxes, scores = assembled(grids, patches, 5.0)
    assert boxes.tolist() == [[32.0, 0.0, 0.0, 0.0]]
    assert scores.tolist() == pytest.approx([FLOOR + 1e-4])


def test_a_loaded_picker_detects():
    settings = vars(SETTINGS)
    picker = load(settings, weights_of(random_network()), 0.4, CPU)
    pixels = np.random.default_rng(0).standard_normal((300, 400)).astype(np.float32)
    found = picker.detect(Micrograph(Path("a.mrc"), pixels, None), 2.0, 48.0)
    assert (picker.kind, picker.threshold) == ("yolo", 0.4)
    assert len(found) > 0
    assert found.coordinates.min() >= 0
    assert (found.coordinates <= [399, 299]).all()
    assert found.scores.min() >= FLOOR
    assert found.scores.max() <= 1
    with pytest.raises(GeometryError, match="a particle of 400 px does not fit"):
        picker.detect(Micrograph(Path("a.mrc"), pixels, None), 2.0, 800.0)


def test_settings_of_another_picker_are_refused():
    with pytest.raises(CheckpointError, match="particle_px"):
        load({"width": 1.0}, {}, 0.5, CPU)
    with pytest.raises(CheckpointError, match="without the size of its particle"):
        load(vars(YoloSettings()), {}, 0.5, CPU)
