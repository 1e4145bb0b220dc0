"""`pick train` and `pick run` around a picker that needs no training."""

import json
import shutil
from pathlib import Path

import model_world
import numpy as np
import picker_world
import pytest
import torch
from picker_world import FakePicker, make_coordinates, make_micrograph
from typer.testing import CliRunner

from pickeropt.cli import app
from pickeropt.errors import PickeroptError
from pickeropt.io.picks import read_picks
from pickeropt.pickers.picker_config import PickRunConfig, PickTrainConfig
from pickeropt.pickers.picker_records import make_settings, read_picker
from pickeropt.pickers.picking import pick, read_unlabelled, train_picker
from pickeropt.records import Micrograph

pytestmark = pytest.mark.usefixtures("fake_picker")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three micrographs, two of them with coordinates, and a trained picker."""
    make_micrograph(tmp_path / "mics" / "a.mrc", [(10, 20, 9), (70, 50, 8), (40, 30, 6)])
    make_micrograph(tmp_path / "mics" / "b.mrc", [(30, 40, 7.5)])
    make_micrograph(tmp_path / "mics" / "empty.mrc", [])
    make_coordinates(tmp_path / "coords" / "a_autopick.star", [(10, 20), (70, 50)])
    make_coordinates(tmp_path / "coords" / "b_autopick.star", [(30, 40)])
    trained(tmp_path)
    return tmp_path


def trained(folder: Path, **more: object) -> Path:
    config = PickTrainConfig("deepem", diameter_angstrom=picker_world.DIAMETER, **more)  # type: ignore[arg-type]
    train_picker([folder / "coords"], [folder / "mics"], folder / "picker.safetensors", config, overwrite=True)
    return folder / "picker.safetensors"


def run(folder: Path, **more: object) -> PickRunConfig:
    return PickRunConfig(folder / "picker.safetensors", folder / "picks", **more)  # type: ignore[arg-type]


def command(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


def test_the_file_says_what_it_is(folder: Path) -> None:
    file = read_picker(folder / "picker.safetensors")
    assert (file.kind, file.threshold, file.diameter_angstrom) == ("deepem", 0.7, 24.0)
    assert file.settings["weights"] == [1.0, 2.0]
    assert file.provenance["micrographs"] == file.provenance["held_back"] == 1
    assert not (folder / "picker.safetensors.partial").exists()
    before = (folder / "picker.safetensors").read_bytes()
    assert trained(folder).read_bytes() == before


def test_every_micrograph_has_a_file_and_the_threshold_counts_as_above(folder: Path) -> None:
    report = pick([folder / "mics"], run(folder))
    assert (report.micrographs, report.picks, report.empty) == (3, 3, 1)
    a = read_picks(folder / "picks" / "a_autopick.star").picks
    assert a.coordinates.tolist() == [[10, 20], [70, 50]]
    np.testing.assert_allclose(a.figure_of_merit, [0.9, 0.8], atol=1e-6)
    assert (folder / "picks" / "empty_autopick.star").is_file()
    said = json.loads((folder / "picks" / "summary.json").read_text())
    assert said["picks"] == 3
    assert not (folder / "picks.partial").exists()


@pytest.mark.parametrize("out", [".", "/", "", ".."])
def test_a_folder_without_a_name_is_refused(folder: Path, out: str) -> None:
    code, said = command("pick", "run", folder / "mics", "--picker", folder / "picker.safetensors", "--out", out)
    assert code == 2
    assert "is no name of a folder to write" in " ".join(said.split())


def test_a_folder_where_the_picker_belongs_is_told_before_the_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pickeropt.pickers.picking.seed_everything", lambda seed: pytest.fail("it trained"))
    config = PickTrainConfig("deepem", diameter_angstrom=picker_world.DIAMETER)
    for out in (folder / "coords", Path()):
        with pytest.raises(PickeroptError, match="is a folder; give the name of a file with --out"):
            train_picker([folder / "coords"], [folder / "mics"], out, config, overwrite=True)


@pytest.mark.parametrize("kind", ["box", "cbox"])
def test_boxes_have_the_particle_in_their_middle(folder: Path, kind: str) -> None:
    pick([folder / "mics"], run(folder, format=kind, threshold=0.85))
    file = read_picks(folder / "picks" / f"a.{kind}")
    assert file.picks.coordinates.tolist() == [[10, 20]]
    assert file.box_sizes is not None
    assert file.box_sizes.tolist() == [[12, 12]]
    assert len(read_picks(folder / "picks" / f"empty.{kind}").picks) == 0


def test_a_stopped_run_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    whole = FakePicker.detect

    def detect(self: FakePicker, micrograph: Micrograph, pixel_size: float, diameter: float) -> object:
        seen.append(micrograph.path.name)
        if micrograph.path.name == "b.mrc" and len(seen) == 2:
            raise KeyboardInterrupt
        return whole(self, micrograph, pixel_size, diameter)

    monkeypatch.setattr(FakePicker, "detect", detect)
    with pytest.raises(KeyboardInterrupt):
        pick([folder / "mics"], run(folder))
    assert not (folder / "picks").exists()
    report = pick([folder / "mics"], run(folder, format="box"))
    assert seen == ["a.mrc", "b.mrc", "b.mrc", "empty.mrc"]
    assert (report.resumed, report.picks) == (1, 3)


def test_what_is_there_stays_without_overwrite(folder: Path) -> None:
    pick([folder / "mics"], run(folder))
    with pytest.raises(PickeroptError, match="exists already"):
        pick([folder / "mics"], run(folder))
    report = pick([folder / "mics"], run(folder, overwrite=True, threshold=0.0))
    assert report.picks == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"format": "png"}, "--format is 'png'"),
        ({"threshold": 2.0}, "--threshold is 2"),
        ({"diameter_angstrom": 1000.0}, "500 px across"),
        ({"diameter_angstrom": -3.0}, "--diameter is -3"),
    ],
)
def test_settings_that_mean_nothing(folder: Path, more: dict[str, object], message: str) -> None:
    with pytest.raises(PickeroptError, match=message):
        pick([folder / "mics"], run(folder, **more))
    assert not (folder / "picks").exists()


def test_faults_of_the_micrographs(folder: Path) -> None:
    with pytest.raises(PickeroptError, match="no micrograph in it"):
        pick([folder / "coords"], run(folder))
    with pytest.raises(PickeroptError, match=r"nothing\.mrc"):
        pick([folder / "nothing.mrc"], run(folder))
    shutil.copytree(folder / "mics", folder / "mics" / "again")
    with pytest.raises(PickeroptError, match="have the same name"):
        pick([folder / "mics"], run(folder))
    with pytest.raises(PickeroptError, match="lies in the input folder"):
        pick(
            [folder / "mics" / "again"],
            PickRunConfig(folder / "picker.safetensors", folder / "mics" / "again" / "x"),
        )


def test_pickers_that_are_none(folder: Path) -> None:
    (folder / "text.safetensors").write_text("no")
    for name, message in (("gone.safetensors", "no such picker"), ("text.safetensors", "not a safetensors")):
        with pytest.raises(PickeroptError, match=message):
            pick([folder / "mics"], PickRunConfig(folder / name, folder / "picks"))


def test_an_unfinished_training_with_other_settings_is_not_touched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pickeropt.pickers.picker_records.train", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(folder, seed=1)
    (folder / "picker.safetensors").unlink()
    monkeypatch.undo()
    config = PickTrainConfig("deepem", diameter_angstrom=24.0, seed=2)
    with pytest.raises(PickeroptError, match="unfinished run with other settings"):
        train_picker([folder / "coords"], [folder / "mics"], folder / "picker.safetensors", config)


def test_settings_from_text() -> None:
    made = make_settings("deepem", {"epochs": "7", "turns": "false", "weights": "3,4", "limit": "0.5"})
    assert made == picker_world.FakeSettings(epochs=7, turns=False, weights=(3.0, 4.0), limit=0.5)
    with pytest.raises(PickeroptError, match=r"no setting 'epoch'; it has epochs=3"):
        make_settings("deepem", {"epoch": "7"})
    with pytest.raises(PickeroptError, match="'many' cannot stand for 3"):
        make_settings("deepem", {"epochs": "many"})


def test_a_start_brings_its_settings(folder: Path) -> None:
    first = trained(folder, settings={"epochs": "8", "weights": "5,6"})
    config = PickTrainConfig("deepem", diameter_angstrom=24.0, init=first, settings={"epochs": "9"})
    train_picker([folder / "coords"], [folder / "mics"], folder / "second.safetensors", config)
    settings = read_picker(folder / "second.safetensors").settings
    assert (settings["epochs"], settings["weights"]) == (9, [5.0, 6.0])


def test_the_commands(folder: Path) -> None:
    picker = folder / "new.safetensors"
    code, text = command(
        "pick", "train", "--picker", "deepem", "--coords", folder / "coords", "--diameter", 24,
        "--micrographs", folder / "mics", "--set", "epochs=5", "--out", picker,
    )  # fmt: skip
    assert code == 0
    assert f"deepem: {read_picker(picker).provenance['particles']} particles on 1 micrographs, 1 more held" in text
    assert read_picker(picker).settings["epochs"] == 5
    code, text = command("pick", "run", folder / "mics", "--picker", picker, "--out", folder / "out")
    assert (code, "3 picks of 0.700 or more on 3 micrographs" in text) == (0, True)
    code, text = command("pick", "settings", "--picker", "deepem")
    assert (code, text.splitlines()[4]) == (0, "weights=1.0,2.0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "--picker", "cryolo", "--coords", "x"), "--picker is 'cryolo'"),
        (("train", "--picker", "deepem", "--coords", "x", "--set", "epochs"), "not NAME=VALUE"),
        (("run", "x", "--pruned", "y"), "--prune MODEL"),
        (("run", "x", "--threshold", "high"), "neither auto nor a number"),
        (("settings", "--picker", "none"), "--picker is 'none'"),
        (("train", "--picker", "deepem"), "no coordinates to learn from"),
        (("run", "x", "--picker", "gone"), "no such picker file"),
    ],
)
def test_a_wrong_command_is_told_in_a_line(words: tuple[str, ...], message: str) -> None:
    code, text = command("pick", *words)
    assert code == 2
    assert message in " ".join(text.replace("│", " ").split())


def test_picks_go_straight_on_to_the_pruner(folder: Path) -> None:
    model = model_world.random_model(folder / "model.safetensors", model_world.SPEC, picker_world.DIAMETER)
    code, text = command(
        "pick", "run", folder / "mics", "--picker", folder / "picker.safetensors", "--out", folder / "picks",
        "--prune", model,
    )  # fmt: skip
    assert code == 0, text
    picks = read_picks(folder / "picks" / "a_autopick.star").picks.coordinates
    both = [
        read_picks(folder / "picks_pruned" / part / "a_autopick.star").picks.coordinates
        for part in ("kept", "rejected")
        if (folder / "picks_pruned" / part / "a_autopick.star").is_file()
        and b"_rlnCoordinateX" in (folder / "picks_pruned" / part / "a_autopick.star").read_bytes()
    ]
    assert sorted(np.concatenate(both).tolist()) == sorted(picks.tolist())
    assert (folder / "picks_pruned" / "scores.csv").is_file()


def test_a_model_that_is_none_is_told_before_the_first_pick(folder: Path) -> None:
    words = (
        "pick",
        "run",
        folder / "mics",
        "--picker",
        folder / "picker.safetensors",
        "--out",
        folder / "picks",
    )
    code, text = command(*words, "--prune", folder / "gone.safetensors")
    assert (code, "no such model file" in text) == (2, True)
    assert not (folder / "picks").exists()
    (folder / "picks_pruned").mkdir()
    model = model_world.random_model(folder / "model.safetensors", model_world.SPEC, picker_world.DIAMETER)
    code, text = command(*words, "--prune", model)
    assert (code, "exists already" in text) == (2, True)
    assert not (folder / "picks").exists()


def test_a_picker_of_another_kind_is_no_start(folder: Path) -> None:
    config = PickTrainConfig("yolo", init=folder / "picker.safetensors", diameter_angstrom=24.0)
    with pytest.raises(PickeroptError, match="a deepem picker, where --picker is yolo"):
        train_picker([folder / "coords"], [folder / "mics"], folder / "y.safetensors", config)


def test_only_a_picker_that_can_goes_on_from_its_own_picks(folder: Path) -> None:
    start = PickTrainConfig("deepem", init=folder / "picker.safetensors")
    with pytest.raises(PickeroptError, match="give --coords, or with --picker deeppicker"):
        train_picker([], [folder / "mics"], folder / "again.safetensors", start)


def test_micrographs_without_coordinates(folder: Path) -> None:
    material = read_unlabelled([folder / "mics"], PickTrainConfig("deeppicker"), 30.0)
    assert [one.path.name for one in material.training] == ["a.mrc", "b.mrc", "empty.mrc"]
    assert {(len(one.known), one.diameter_px) for one in material.training} == {(0, 15.0)}
    with pytest.raises(PickeroptError, match="no coordinates and no micrographs"):
        read_unlabelled([], PickTrainConfig("deeppicker"), 30.0)
    with pytest.raises(PickeroptError, match="no micrograph in it"):
        read_unlabelled([folder / "coords"], PickTrainConfig("deeppicker"), 30.0)


def test_a_damaged_picker_is_told(folder: Path) -> None:
    file = read_picker(folder / "picker.safetensors")
    from pickeropt.pickers.picker_records import TrainedPicker, picker_bytes

    path = folder / "damaged.safetensors"
    path.write_bytes(
        picker_bytes("deepem", TrainedPicker(dict(file.settings), {"w": torch.zeros(1)}, 0.5, {}), 24.0, {})
    )
    with pytest.raises(PickeroptError, match="damaged picker"):
        pick([folder / "mics"], PickRunConfig(path, folder / "picks"))
