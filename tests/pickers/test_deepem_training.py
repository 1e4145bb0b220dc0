"""On micrographs of noise with dark discs: it learns, it repeats itself, a kill changes nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pickeropt.errors import CheckpointError, GeometryError, ShotsError
from pickeropt.io.micrographs import read_micrograph, write_mrc
from pickeropt.pickers.deepem_network import DeepEMSettings
from pickeropt.pickers.deepem_training import (
    STD_WINDOW,
    DeepEMMatches,
    away,
    learning_error,
    load,
    match_picks,
    read_resampled,
    train,
    windows_of,
)
from pickeropt.pickers.picker_records import Detections, Material, PickedMicrograph, PickerTrainingJob, TrainedPicker

SIDE, RADIUS = 320, 15
SETTINGS = DeepEMSettings(box=48, least_steps=60, epochs=1, batch=32, rounds=1, target_error=0.0)
CPU = torch.device("cpu")


class KilledError(Exception):
    pass


def micrograph(folder: Path, number: int) -> PickedMicrograph:
    """320 x 320 px of noise with about 16 discs of 30 px, at 2 Å/px."""
    rng = np.random.default_rng(number)
    pixels = rng.normal(100.0, 2.0, (SIDE, SIDE))
    grid = np.stack(np.meshgrid(*[np.arange(40, SIDE - 39, 80)] * 2), axis=-1).reshape(-1, 2)
    centres = (grid + rng.uniform(-12, 12, grid.shape)).astype(np.float64)
    y, x = np.mgrid[:SIDE, :SIDE]
    for cx, cy in centres:
        pixels[(x - cx) ** 2 + (y - cy) ** 2 < RADIUS**2] -= 1.5
    path = folder / f"{number}.mrc"
    write_mrc(path, pixels.astype(np.float32), 2.0)
    return PickedMicrograph(path, centres, 2.0, 60.0)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("micrographs")
    made = [micrograph(folder, number) for number in range(4)]
    return Material(tuple(made[:3]), tuple(made[3:]))


def learnt(
    material: Material, folder: Path, settings: DeepEMSettings = SETTINGS, killed_at: int | None = None
) -> TrainedPicker:
    seen = []

    def progress(what: str, done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == killed_at:
            raise KilledError

    return train(material, settings, PickerTrainingJob(3, CPU, folder, progress), None)


@pytest.fixture(scope="module")
def trained(material: Material, tmp_path_factory: pytest.TempPathFactory) -> TrainedPicker:
    return learnt(material, tmp_path_factory.mktemp("job"))


def detected(trained: TrainedPicker, one: PickedMicrograph, **changes: object) -> Detections:
    picker = load(trained.settings | changes, trained.state, trained.threshold, CPU)
    return picker.detect(read_micrograph(one.path), one.pixel_size, one.diameter_angstrom)


def test_it_learns(material: Material, trained: TrainedPicker, tmp_path: Path) -> None:
    new = micrograph(tmp_path, 9)
    picks = detected(trained, new).above(trained.threshold)
    true, was_found = match_picks(picks.coordinates, new.coordinates, 0.5 * new.diameter_px)
    inside = read_resampled(new, SETTINGS).inside(new.coordinates, 48)
    assert was_found[inside].mean() >= 0.9
    assert true.mean() >= 0.8
    assert trained.figures["F2"] > 0.6


def test_centres_are_those_of_the_particles(trained: TrainedPicker, tmp_path: Path) -> None:
    new = micrograph(tmp_path, 10)
    picks = detected(trained, new, step=1).above(trained.threshold).coordinates
    offsets = new.coordinates[:, None] - picks[None]
    nearest = np.linalg.norm(offsets, axis=2).argmin(axis=0)
    errors = offsets[nearest, np.arange(len(picks))]
    true = np.linalg.norm(errors, axis=1) < RADIUS
    assert true.sum() > 5
    assert np.abs(errors[true].mean(axis=0)).max() < 1.5  # px: no shift of half a step or of half a box


def test_the_same_seed_gives_the_same_weights_and_a_kill_changes_nothing(
    material: Material, trained: TrainedPicker, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        learnt(material, tmp_path, killed_at=97)  # in the second round
    resumed = learnt(material, tmp_path)
    assert resumed.threshold == trained.threshold
    assert resumed.figures == trained.figures
    torch.testing.assert_close(resumed.state, trained.state, rtol=0, atol=0)


@pytest.mark.parametrize(("bias", "grows", "stays"), [(30, 0, 1), (-30, 1, 0)])
def test_the_cycle_adds_what_was_wrong(
    material: Material, trained: TrainedPicker, tmp_path: Path, bias: float, grows: int, stays: int
) -> None:
    """What says particle everywhere gives false picks, what says it nowhere missed particles."""
    output = trained.state["output.bias"] + bias
    job = PickerTrainingJob(3, CPU, tmp_path, lambda what, done, total: None)
    settings = replace(SETTINGS, least_steps=1, batch=256, learning_rate=1e-9, std_range=0.0)
    sets = ("other windows", "particles")
    counts = []
    for target in (2.0, 0.0):
        state = trained.state | {"output.bias": output}
        chosen = replace(settings, target_error=target)
        figures = train(material, chosen, replace(job, folder=tmp_path / str(target)), state).figures
        counts.append([figures[name] for name in (sets[stays], sets[grows])])
    (before_s, before_g), (after_s, after_g) = counts
    assert (after_s, after_g > before_g) == (before_s, True)


def test_all_candidates_lie_apart_and_inside_best_first(trained: TrainedPicker, material: Material) -> None:
    found_here = detected(trained, material.testing[0])
    assert len(found_here) > 10
    assert (np.diff(found_here.scores) <= 0).all()
    apart = np.linalg.norm(found_here.coordinates[:, None] - found_here.coordinates[None], axis=2)
    assert apart[~np.eye(len(apart), dtype=bool)].min() > 0.5 * 30
    half = 0.5 * 48 / (48 / 45)  # px of the micrograph: 1.5 diameters of 30 px are the box
    assert found_here.coordinates.min() > half - 1
    assert found_here.coordinates.max() < SIDE - half + 1


def test_picks_whose_pixels_deviate_otherwise_are_none(trained: TrainedPicker, material: Material) -> None:
    low, high = trained.state[STD_WINDOW].tolist()
    assert 0.8 < low < 1.08 < high < 1.4  # noise of 1, and a disc 0.75 deep on a fifth of it
    none = TrainedPicker(trained.settings, trained.state | {STD_WINDOW: torch.tensor([9.0, 10.0])}, 0.5, {})
    assert len(detected(none, material.testing[0])) == 0


def test_negatives_lie_away_from_all_known_particles(material: Material) -> None:
    one = material.training[0]
    one = replace(one, coordinates=one.coordinates[:9], others=one.coordinates[9:])
    resampled = read_resampled(one, SETTINGS)
    places = away(resampled, one.known, 25.0, 48, 40, np.random.default_rng(0))
    assert len(places) == 40
    distances = np.linalg.norm(places[:, None] - one.known[None], axis=2)
    assert distances.min() >= 25.0
    assert resampled.inside(places, 48).all()
    windows = windows_of(one, SETTINGS, np.random.default_rng(0))
    assert len(windows.particles) == len(windows.others) == resampled.inside(one.coordinates, 48).sum()


def test_the_learning_error_by_hand() -> None:
    # picks at 0.5: one true, one false; of 3 particles 2 are missed: 3 wrong of 4
    scores, true = np.array([0.9, 0.5, 0.4]), np.array([True, False, True])
    assert learning_error([DeepEMMatches(scores, true, 3)]) == pytest.approx(3 / 4)


def test_weights_to_start_from(material: Material, trained: TrainedPicker, tmp_path: Path) -> None:
    job = PickerTrainingJob(3, CPU, tmp_path, lambda what, done, total: None)
    settings = replace(SETTINGS, least_steps=1, batch=256, rounds=0, learning_rate=1e-9)
    again = train(material, replace(settings, epochs=1), job, trained.state)
    torch.testing.assert_close(again.state["output.weight"], trained.state["output.weight"], rtol=0, atol=1e-5)
    with pytest.raises(CheckpointError, match="box, kernels and pools"):
        train(material, replace(settings, box=64), job, trained.state)


def test_material_that_cannot_be_learnt_from(material: Material, tmp_path: Path) -> None:
    at_the_edge = replace(material.training[0], coordinates=np.array([[2.0, 2.0]]))
    job = PickerTrainingJob(0, CPU, tmp_path, lambda what, done, total: None)
    with pytest.raises(ShotsError, match="0 particles"):
        train(Material((at_the_edge,), ()), SETTINGS, job, None)
    too_large = replace(material.training[0], diameter_angstrom=500.0)
    with pytest.raises(GeometryError, match="does not fit a micrograph of 320 x 320 px"):
        train(Material((too_large,), ()), SETTINGS, job, None)
