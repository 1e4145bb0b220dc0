from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from pickeropt.errors import CheckpointError, GeometryError, ShotsError
from pickeropt.io.micrographs import write_mrc
from pickeropt.pickers.picker_records import Material, PickedMicrograph, PickerTrainingJob
from pickeropt.pickers.yolo_network import YoloSettings
from pickeropt.pickers.yolo_training import batch, particle_size, rate, sampled, train

DIAMETER = 24
SETTINGS = YoloSettings(width=0.0625, input_size=256, epochs=8, batch_size=2, learning_rate=3e-3)


def labelled(path, seed, side=224, count=15):
    """Dark discs of 24 px on noise, 2 Å/px; and brighter ones of 12 px, which are no particles."""
    rng = np.random.default_rng(seed)
    pixels = rng.standard_normal((side, side)).astype(np.float32)
    y, x = np.mgrid[:side, :side]
    places = []
    while len(places) < 2 * count:
        at = rng.uniform(DIAMETER, side - DIAMETER, 2)
        if all(np.hypot(*(at - other)) > 1.2 * DIAMETER for other in places):
            places.append(at)
            particle = len(places) <= count
            disc = np.hypot(x - at[0], y - at[1]) < DIAMETER / (2 if particle else 4)
            pixels[disc] -= 1.5 if particle else -1.5
    write_mrc(path, pixels, 2.0)
    return PickedMicrograph(path, np.array(places[:count]), 2.0, 2.0 * DIAMETER)


@pytest.fixture(scope="module")
def micrographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("discs")
    return [labelled(folder / f"{i}.mrc", i) for i in range(5)]


def job(folder, seed=0, on_progress=lambda what, done, total: None):
    folder.mkdir(parents=True, exist_ok=True)
    return PickerTrainingJob(seed, torch.device("cpu"), folder, on_progress)


def test_it_learns_particles_and_tells_them_from_the_rest(micrographs, tmp_path):
    made = train(Material(tuple(micrographs[:4]), (micrographs[4],)), SETTINGS, job(tmp_path / "a"), None)
    assert made.figures["f1"] > 0.9
    assert made.figures["mean_iou"] > 0.75
    assert made.figures["auc"] > 0.8
    assert made.settings["particle_px"] == pytest.approx(32 * 2**0.5)
    assert made.settings["anchor"] == pytest.approx(2**0.5)


def test_it_learns_from_a_fifth_of_the_labels(micrographs, tmp_path):
    sparse = tuple(replace(one, coordinates=one.coordinates[:3]) for one in micrographs[:4])
    settings = replace(SETTINGS, epochs=12)
    made = train(Material(sparse, (micrographs[4],)), settings, job(tmp_path / "a"), None)
    assert made.figures["recall"] > 0.75
    assert made.figures["precision"] > 0.75


def tiny(**changes):
    return replace(SETTINGS, width=0.05, input_size=128, epochs=1, **changes)


def test_the_same_seed_gives_the_same_weights_and_goes_on_after_a_kill(micrographs, tmp_path):
    material = Material(tuple(micrographs[:1]), ())
    whole = train(material, tiny(), job(tmp_path / "whole"), None)
    other = train(material, tiny(), job(tmp_path / "other", seed=1), None)

    def kill(what, done, total):
        if what == "training" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(material, tiny(), job(tmp_path / "killed", on_progress=kill), None)
    resumed = train(material, tiny(), job(tmp_path / "killed"), None)
    assert resumed.state.keys() == whole.state.keys()
    assert all(torch.equal(resumed.state[name], value) for name, value in whole.state.items())
    assert not all(torch.equal(other.state[name], value) for name, value in whole.state.items())
    assert resumed.threshold == whole.threshold


def test_it_starts_from_the_weights_given(micrographs, tmp_path):
    material = Material(tuple(micrographs[:1]), ())
    first = train(material, tiny(), job(tmp_path / "first"), None)
    still = tiny(learning_rate=1e-12)
    again = train(material, still, job(tmp_path / "again"), first.state)
    name = "layers.20.0.weight"
    assert torch.allclose(again.state[name], first.state[name], atol=1e-9)
    with pytest.raises(CheckpointError, match="set width to theirs"):
        train(material, replace(still, width=0.1), job(tmp_path / "wide"), first.state)


def test_a_batch_is_of_the_step_and_nothing_else(micrographs):
    settings = replace(tiny(), epochs=3)
    particle = particle_size(micrographs[:1], settings)
    settings = settings.fixed(particle, particle / 32)
    samples = [sampled(one, settings) for one in micrographs[:2]]
    first, again, next_one = (batch(samples, settings, 0, step) for step in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], next_one[0])
    assert first[0].shape == (2, 1, 128, 128)
    assert first[1].shape == (2, 5, 4, 4)


def test_boxes_lie_on_the_discs(micrographs):
    """Where the grid has a particle, the image is dark; elsewhere it is not."""
    settings = replace(tiny(), augmented=0.0, batch_size=1)
    particle = particle_size(micrographs[:1], settings)
    settings = settings.fixed(particle, particle / 32)
    samples = [sampled(micrographs[0], settings)]
    inside, outside = [], []
    for step in range(1, 9):
        (image,), (grid,) = batch(samples, settings, 0, step)
        middle = np.zeros((128, 128), dtype=bool)
        for row, column in np.argwhere(grid[0].numpy() == 1):
            x, y = ((grid[1:3, row, column].numpy() + np.array([column, row])) * 32).astype(int)
            middle[max(0, y - 3) : y + 3, max(0, x - 3) : x + 3] = True
        inside.append(image[0].numpy()[middle])
        outside.append(image[0].numpy()[~middle])
    assert np.concatenate(inside).mean() < -3
    assert abs(np.concatenate(outside).mean()) < 1


def test_the_learning_rate_rises_and_falls():
    rates = [rate(step, 100) for step in range(1, 101)]
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0], abs=1e-3)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert all(a >= b for a, b in pairwise(rates[5:]))


def test_what_cannot_be_learnt_from(micrographs, tmp_path):
    empty = replace(micrographs[0], coordinates=np.empty((0, 2)))
    with pytest.raises(ShotsError, match="no labelled particle"):
        train(Material((empty,), ()), tiny(), job(tmp_path / "a"), None)
    large = replace(micrographs[0], diameter_angstrom=1000.0)
    with pytest.raises(GeometryError, match="does not fit a micrograph of 224 x 224 px"):
        train(Material((large,), ()), tiny(), job(tmp_path / "a"), None)
