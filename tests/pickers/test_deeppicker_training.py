from dataclasses import replace

import numpy as np
import pytest
import torch

from pickeropt.errors import CheckpointError, PickeroptError, ShotsError
from pickeropt.io.micrographs import read_micrograph
from pickeropt.models.features import EIGHT, turn
from pickeropt.pickers import deeppicker_training as training
from pickeropt.pickers.deeppicker_network import (
    UNCALIBRATED,
    DeepPickerNetwork,
    DeepPickerSettings,
    Samples,
    calibrated,
    log_odds_of,
    score_of,
)
from pickeropt.pickers.deeppicker_training import (
    DeepPickerMatches,
    best_picks,
    best_threshold,
    calibration,
    fit_network,
    gather,
    iterate,
    load,
    match_candidates,
    parted,
    train,
    validate,
)
from pickeropt.pickers.picker_records import Detections, Material
from tests.pickers.deeppicker_world import SETTINGS, job, micrograph


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return [micrograph(folder, seed) for seed in range(8)]


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    material = Material(tuple(world[:6]), (world[6],))
    return train(material, SETTINGS, job(tmp_path_factory.mktemp("training")), None)


def detect(trained, one):
    picker = load(trained.settings, trained.state, trained.threshold, torch.device("cpu"))
    return picker, picker.detect(read_micrograph(one.path), one.pixel_size, one.diameter_angstrom)


def test_it_learns_to_find_particles_it_never_saw(trained, world):
    picker, found = detect(trained, world[7])
    picks = found.above(trained.threshold)
    truth = world[7].coordinates
    distance = np.hypot(*(picks.coordinates[:, None] - truth[None]).transpose(2, 0, 1))
    assert (distance.min(0) < 0.2 * 64).mean() >= 0.9
    assert (distance.min(1) < 0.2 * 64).mean() >= 0.9
    assert distance.min(1).mean() < 0.1 * 64
    assert picker.kind == "deeppicker"
    assert (found.scores[:-1] >= found.scores[1:]).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert trained.figures["f1"] > 0.9
    assert trained.figures["validation_accuracy"] > 0.9


def test_the_same_seed_gives_the_same_weights_and_another_does_not(world, tmp_path):
    short = replace(SETTINGS, epochs=1)
    material = Material(tuple(world[:2]), ())
    first, again, other = (
        train(material, short, job(tmp_path / name, seed), None) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert all(torch.equal(first.state[name], again.state[name]) for name in first.state)
    assert first.threshold == again.threshold
    assert not all(torch.equal(first.state[name], other.state[name]) for name in first.state)


def test_a_killed_training_goes_on_to_the_identical_result(world, tmp_path):
    short = replace(SETTINGS, epochs=3)
    material = Material(tuple(world[:2]), (world[6],))

    class KilledError(Exception):
        pass

    def kill(what, done, total):
        if what == "epoch002" and done == 2:
            raise KilledError

    whole = train(material, short, job(tmp_path / "whole"), None)
    with pytest.raises(KilledError):
        train(material, short, job(tmp_path / "killed", on_progress=kill), None)
    steps = []
    resumed = train(
        material,
        short,
        job(tmp_path / "killed", on_progress=lambda what, done, total: steps.append(what)),
        None,
    )
    assert "epoch001" not in steps
    assert "epoch003" in steps
    assert all(torch.equal(whole.state[name], resumed.state[name]) for name in whole.state)
    assert whole.figures == resumed.figures


def test_a_training_starts_from_a_picker_trained_before(trained, world, tmp_path):
    material = Material((world[0],), (world[6],))
    none = replace(SETTINGS, epochs=1, learning_rate=1e-12)
    started = train(material, none, job(tmp_path), trained.state)
    for name, value in trained.state.items():
        torch.testing.assert_close(started.state[name], value, rtol=0, atol=1e-6)
    assert started.figures["f1"] == pytest.approx(trained.figures["f1"], abs=0.05)


def test_weights_and_settings_of_another_picker_are_refused(trained, world, tmp_path):
    material, wrong = Material((world[0],), ()), {"layer.weight": torch.zeros(2)}
    with pytest.raises(CheckpointError, match="not the weights of a DeepPicker"):
        train(material, SETTINGS, job(tmp_path), wrong)
    with pytest.raises(CheckpointError, match="not the settings of a DeepPicker"):
        load({"anchors": 3}, trained.state, 0.5, torch.device("cpu"))


def test_too_few_particles_are_refused(world, tmp_path):
    few = replace(world[0], coordinates=world[0].coordinates[5:7])
    with pytest.raises(ShotsError, match=r"2 particles .* needs 10"):
        train(Material((few,), ()), SETTINGS, job(tmp_path), None)


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch_size": -1}, {"box_diameters": float("nan")}, {"dropout": 1.0}, {"momentum": 1.5}],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(PickeroptError, match=f"{next(iter(wrong))} of DeepPicker is"):
        DeepPickerSettings(**wrong)


def test_steps_can_be_left_out():
    DeepPickerSettings(large_domain=0, extreme=0, turns=False, momentum=0)


def test_a_training_that_diverges_is_told(world, tmp_path):
    wild = replace(SETTINGS, learning_rate=1e30, epochs=2)
    with pytest.raises(PickeroptError, match=r"no number in 2 epochs; lower learning_rate, now 1e[+]30"):
        train(Material((world[0],), ()), wild, job(tmp_path), None)


def test_the_iteration_learns_from_its_own_picks_only(trained, world, tmp_path):
    unmarked = [replace(one, coordinates=np.empty((0, 2))) for one in world[:3]]
    own = replace(SETTINGS, epochs=2, particles=30, box_diameters=1.6)
    again = iterate(trained, unmarked, own, job(tmp_path))
    assert again.settings["box_diameters"] == 1.4  # what the network was trained for
    assert not all(torch.equal(again.state[name], trained.state[name]) for name in trained.state)
    assert again.threshold == trained.threshold
    _, found = detect(again, world[7])
    best = found.coordinates[: len(world[7].coordinates)]
    distance = np.hypot(*(best[:, None] - world[7].coordinates[None]).transpose(2, 0, 1))
    assert (distance.min(1) < 0.2 * 64).mean() >= 0.9


def test_the_weights_are_those_of_the_best_epoch(world, tmp_path):
    """Learnt against its will: the validation error rises, and the first epoch is the best."""
    samples, validation = gather(Material(tuple(world[:4]), ()), SETTINGS, job(tmp_path))
    contrary = Samples(validation.patches, 1 - validation.labels)
    torch.manual_seed(0)
    network = DeepPickerNetwork()
    settings = replace(SETTINGS, epochs=8, patience=2)
    figures = fit_network(network, samples, contrary, settings, job(tmp_path / "fit"), "epoch")
    loss, accuracy = validate(network, contrary, torch.device("cpu"))
    assert loss == pytest.approx(figures["validation_loss"], rel=1e-4)
    assert accuracy == figures["validation_accuracy"]
    last = max(path.stem for path in (tmp_path / "fit").iterdir())
    assert last == f"epoch{int(figures['epochs']) + 2:03d}"  # two epochs without a better one, then no more


def test_an_epoch_sees_every_particle_and_other_negatives_in_eight_orientations(tmp_path):
    patches = torch.randn(120, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    samples, seen = Samples(patches, (torch.arange(120) < 40).long()), []
    network = DeepPickerNetwork()
    network.convolutions[0].register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    settings = replace(SETTINGS, epochs=2, batch_size=2)
    fit_network(network, samples, samples, settings, job(tmp_path), "epoch")
    turned = [turn(patches, orientation).flatten(1) for orientation in EIGHT]
    epochs, orientations = [], set()
    for first in (0, 41):  # 40 steps and one pass of the validation
        numbers = []
        for patch in torch.cat(seen[first : first + 40]):
            found = [(n, (those == patch.flatten()).all(1).nonzero()) for n, those in enumerate(turned)]
            ((orientation, place),) = [(n, where) for n, where in found if len(where)]
            numbers.append(int(place))
            orientations.add(orientation)
        epochs.append(sorted(numbers))
    for numbers in epochs:
        assert numbers[:40] == list(range(40))
        assert len(set(numbers)) == 80
    assert epochs[0] != epochs[1]
    assert orientations == set(range(8))


def test_negatives_are_as_many_as_asked_for_or_as_memory_takes(world, tmp_path, monkeypatch):
    material = Material(tuple(world[:2]), (world[6],))
    samples, validation = gather(material, replace(SETTINGS, negatives=3), job(tmp_path))
    assert torch.bincount(samples.labels).tolist() == [96, 32]
    assert torch.bincount(validation.labels).tolist() == [16, 16]
    monkeypatch.setattr(training, "MOST_NEGATIVES", 70)
    samples, _ = gather(material, replace(SETTINGS, negatives=3), job(tmp_path))
    assert torch.bincount(samples.labels).tolist() == [64, 32]


class Fixed:
    """A picker whose picks are known."""

    settings = DeepPickerSettings()

    def __init__(self, *found, scale=UNCALIBRATED):
        self.found, self.scale = list(found), scale

    def detect(self, micrograph, pixel_size, diameter_angstrom):
        return self.found.pop(0)


def test_the_best_picks_are_chosen_over_all_micrographs(world, tmp_path):
    xy = np.arange(10.0).reshape(5, 2)
    first = Detections(xy[:3], np.array([0.9, 0.6, 0.2]))
    second = Detections(xy[3:], np.array([0.8, 0.7]))
    own = best_picks(Fixed(first, second), world[:2], 2, job(tmp_path))
    assert [one.coordinates.tolist() for one in own] == [[[0, 1]], [[6, 7]]]
    assert [one.others.tolist() for one in own] == [[[2, 3]], [[8, 9]]]


def test_the_best_picks_are_sure_of_themselves_whatever_their_scale(world, tmp_path):
    scale = (0.5, -2.0)
    own = np.array([0.9, 0.51, 0.49, 0.1])
    picks = Detections(np.arange(8.0).reshape(4, 2), score_of(log_odds_of(own), scale))
    assert picks.scores.max() < 0.5
    best = best_picks(Fixed(picks, scale=scale), world[:1], 10, job(tmp_path))
    assert best[0].coordinates.tolist() == [[0, 1], [2, 3]]


def test_the_threshold_is_that_of_the_greatest_f1(world, tmp_path):
    one = replace(world[0], coordinates=np.array([[100.0, 100], [200, 200], [300, 300], [100, 300]]))
    # agreeing is 12.8 px: true, false, true, true, false
    xy = np.array([[100, 112.0], [250, 250], [200, 201], [308, 308], [300, 100]])
    picks = Detections(xy, np.array([0.9, 0.8, 0.7, 0.6, 0.5]))
    matches = match_candidates(Fixed(picks), [one], job(tmp_path))
    assert matches.true.tolist() == [True, False, True, True, False]
    threshold, figures = best_threshold(matches)
    assert threshold == 0.6
    assert figures == pytest.approx({"precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4})
    far = Detections(xy + 40, picks.scores)
    nothing = match_candidates(Fixed(far), [one], job(tmp_path))
    assert best_threshold(nothing)[0] == 0.5
    assert calibration(nothing) == UNCALIBRATED


def test_scores_become_the_share_of_true_candidates():
    random = np.random.default_rng(0)
    odds = random.normal(0, 3, 20_000)
    true = random.random(20_000) < 1 / (1 + np.exp(-(0.5 * odds - 2)))
    slope, offset = calibration(DeepPickerMatches(score_of(odds, UNCALIBRATED), true, int(true.sum())))
    assert slope == pytest.approx(0.5, abs=0.03)
    assert offset == pytest.approx(-2, abs=0.1)
    scores = score_of(odds, (slope, offset))
    high = (scores > 0.4) & (scores < 0.6)
    assert true[high].mean() == pytest.approx(scores[high].mean(), abs=0.05)
    # the order stays, and a threshold stays where it was among the candidates
    assert (np.argsort(scores) == np.argsort(odds)).all()
    at = float(np.sort(score_of(odds, UNCALIBRATED))[-100])
    assert (scores >= calibrated(at, (slope, offset))).sum() == 100


def test_better_candidates_that_are_false_calibrate_nothing():
    scores = np.array([0.9, 0.8, 0.2, 0.1])
    assert calibration(DeepPickerMatches(scores, scores < 0.5, 2)) == UNCALIBRATED


def test_scores_at_the_ends_stay_finite():
    odds = log_odds_of(np.array([0.0, 1.0]))
    assert np.isfinite(odds).all()
    assert score_of(np.array([-1e9, 1e9]), UNCALIBRATED) == pytest.approx([0, 1], abs=1e-12)


def test_every_tenth_sample_is_held_back():
    samples = Samples(torch.arange(40.0).reshape(40, 1, 1, 1), (torch.arange(40) < 20).long())
    rest, held = parted(samples)
    assert held.patches.flatten().tolist() == [0, 10, 20, 30]
    assert held.labels.tolist() == [1, 1, 0, 0]
    assert len(rest) == 36
