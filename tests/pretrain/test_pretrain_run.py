"""`pretrain` from end to end, its files, and what it refuses."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import typer
from PIL import Image
from pretrain_world import DIAMETER, PIXEL_SIZE, make_folders, make_micrographs, make_weights, tiny
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from pickeropt.classifier import PickClassifier
from pickeropt.cli_pretrain import run_pretrain
from pickeropt.datasets.views import make_view
from pickeropt.describe import describe_micrograph
from pickeropt.errors import CheckpointError, OutputError, PickeroptError
from pickeropt.io.micrographs import read_micrograph
from pickeropt.models.backbone import Backbone, load_backbone_weights
from pickeropt.models.initial import initial_backbone
from pickeropt.models.spec import ModelSpec
from pickeropt.pretrain import log, run
from pickeropt.pretrain.config import PretrainReport
from pickeropt.pretrain.distil import window_features
from pickeropt.pretrain.run import pretrain


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    make_weights(root / "w.safetensors")
    make_micrographs(root / "sim")
    make_folders(root / "boxes")
    return root


@pytest.fixture(scope="module")
def trained(root: Path) -> PretrainReport:
    """The default recipe on micrographs, with some without labels."""
    config = tiny(root / "w.safetensors", steps=3, save_every=2, unlabelled=root / "sim/micrographs")
    return pretrain(root / "sim", root / "trained.safetensors", config)


def described(path: Path) -> dict[str, object]:
    with safe_open(str(path), framework="pt") as file:
        assert file.metadata()["format"] == "pickeropt backbone 1"
        found: dict[str, object] = json.loads(file.metadata()["pickeropt"])
    return found


def test_report_and_files(root: Path, trained: PretrainReport) -> None:
    assert (trained.classes, trained.samples, trained.held_back, trained.steps) == (4, 6, 2, 3)
    assert trained.resumed_at == 0
    assert trained.final["rotation"] > 0
    assert {"held_back_rotation", "held_back_classes", "held_back_accuracy"} <= trained.final.keys()
    left = {path.name for path in root.iterdir()} - {"w.safetensors", "sim", "boxes"}
    assert {"trained.safetensors", "trained.log.csv", "trained.curves.png"} <= left
    assert not [name for name in left if "partial" in name]
    with Image.open(trained.curves) as image:
        assert image.size == (1500, 675)
    lines = trained.log.read_text().splitlines()
    assert lines[0].startswith(
        "step,loss,rotation,classes,accuracy,learning_rate,images_per_second,held_back"
    )
    assert [line.split(",")[0] for line in lines[1:]] == ["2", "3"]


def test_finetune_can_start_from_it(trained: PretrainReport) -> None:
    tensors = load_file(str(trained.out))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    backbone = initial_backbone("resnet18", str(trained.out), None, ("layer2", "layer3"))
    kept = backbone.body.state_dict()["layer3.1.conv2.weight"]
    assert torch.equal(kept.half(), tensors["layer3.1.conv2.weight"])
    assert initial_backbone("resnet18", str(trained.out), None, None).stages == ("layer3",)


def test_the_head_is_a_classifier_of_the_source_classes(root: Path, trained: PretrainReport) -> None:
    about = described(trained.out)
    assert about["parents"] == ["particle", "particle", "background", "carbon"]
    values = {n: tuple(v) if isinstance(v, list) else v for n, v in about["spec"].items()}  # type: ignore[attr-defined]
    spec = ModelSpec(**values)
    assert spec.class_names == ("big", "small", "empty_ice", "stripes")
    classifier = PickClassifier(spec, Backbone(spec.backbone, spec.stages)).eval()
    load_backbone_weights(classifier.backbone, trained.out)
    tensors = load_file(str(trained.out))
    head = {n.removeprefix("head."): v.float() for n, v in tensors.items() if n.startswith("head.")}
    classifier.head.load_state_dict(head)
    micrograph = read_micrograph(root / "sim/micrographs/m0.mrc")
    points = torch.tensor([[28.0, 28.0], [84.0, 28.0]]).double().numpy()
    diameter_px = DIAMETER / PIXEL_SIZE
    with torch.inference_mode():
        features = describe_micrograph(classifier.backbone, spec, micrograph.pixels, diameter_px, points)
        view, frame = make_view(micrograph.pixels, diameter_px, spec.view_diameters[0])
        centres, stride = frame.to_view(points) / 16, classifier.backbone.strides[-1]
        feature_map = classifier.backbone(view)[0][0]
        trained_on = window_features(feature_map, centres, spec.view_diameters[0] / stride, centred=True)
        torch.testing.assert_close(features, trained_on, rtol=1e-3, atol=1e-3)
        assert classifier.logits(features).shape == (2, 4)


def test_provenance_names_no_path(root: Path, trained: PretrainReport) -> None:
    made = described(trained.out)["provenance"]
    assert isinstance(made, dict)
    assert (made["data"], made["recipe"], made["init"], made["steps"]) == ("sim", "default", "imagenet", 3)
    assert made["figures"]["rotation"] == pytest.approx(trained.final["rotation"], rel=1e-5)
    assert str(root).encode() not in trained.out.read_bytes()


def test_what_is_there_is_not_replaced_unasked(root: Path, trained: PretrainReport) -> None:
    config = tiny(root / "w.safetensors")
    before = trained.out.read_bytes()
    with pytest.raises(OutputError, match=r"trained.safetensors: exists already; .* --overwrite"):
        pretrain(root / "sim", trained.out, config)
    assert trained.out.read_bytes() == before


class StopError(Exception):
    """What a test throws into a run."""


def stop_at(wanted: str, number: int) -> object:
    def on_progress(what: str, done: int, total: int) -> None:
        if (what, done) == (wanted, number):
            raise StopError

    return on_progress


def test_an_unfinished_run_of_other_settings_is_in_the_way(root: Path) -> None:
    config, out = tiny(root / "w.safetensors", "paper", steps=3, save_every=2), root / "other.safetensors"
    with pytest.raises(StopError):
        pretrain(root / "boxes", out, config, on_progress=stop_at("training", 3))  # type: ignore[arg-type]
    changed = replace(config, seed=1, exclude=("small",))
    with pytest.raises(OutputError, match=r"other settings \(data, exclude, seed\); give its command again"):
        pretrain(root / "boxes", out, changed)
    assert not out.exists()
    assert pretrain(root / "boxes", out, config).resumed_at == 2
    with pytest.raises(StopError):
        pretrain(root / "boxes", out, config, overwrite=True, on_progress=stop_at("training", 3))  # type: ignore[arg-type]
    assert pretrain(root / "boxes", out, changed, overwrite=True).resumed_at == 0
    about = described(out)
    assert about["spec"]["class_names"] == ["big", "empty_ice", "stripes"]  # type: ignore[index]
    assert (about["spec"]["windows"], about["spec"]["normalise"]) == ([], "micrograph")  # type: ignore[index]


def test_the_paper_needs_boxes(root: Path) -> None:
    with pytest.raises(PickeroptError, match=r"trains on boxes, these are micrographs; .*dataset build"):
        pretrain(root / "sim", root / "x.safetensors", tiny(root / "w.safetensors", "paper"))


def test_a_teacher_that_cannot_be_had(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_weights(name: str, init: str, weights: Path | None, stages: tuple[str, ...] | None) -> Backbone:
        if init == "imagenet":
            raise CheckpointError("no network")
        return initial_backbone(name, init, weights, stages)

    monkeypatch.setattr(run, "initial_backbone", first_weights)
    config = replace(tiny(root / "w.safetensors"), init="none", weights=None)
    with pytest.raises(CheckpointError, match="has the ImageNet network for a teacher: no network"):
        pretrain(root / "sim", root / "x.safetensors", config)
    assert not (root / "x.safetensors.partial").exists()


def test_tensorboard_that_is_not_installed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "find_spec", lambda name: None)
    config = tiny(root / "w.safetensors", tensorboard=True)
    with pytest.raises(PickeroptError, match=r"not installed; pip install 'pickeropt\[tensorboard\]'"):
        pretrain(root / "sim", root / "x.safetensors", config)


def test_the_command(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All options arrive; and the rows of the log go to TensorBoard."""
    written: list[tuple[str, float, int]] = []

    class Writer(SimpleNamespace):
        def __enter__(self) -> "Writer":
            return self

        def __exit__(self, *fault: object) -> None: ...

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def flush(self) -> None: ...

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = lambda folder, purge_step: Writer(folder=folder)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(log, "find_spec", lambda name: object())
    app = typer.Typer()
    app.command()(run_pretrain)
    out = root / "cli.safetensors"
    boxes, weights = make_folders(root / "few", 2), root / "w.safetensors"
    words = f"{boxes} --out {out} --weights {weights} --init {weights} --steps 2 --batch-size 2"
    options = "--exclude EMPIAR-1 --exclude small --seed 3 --device cpu --tensorboard"
    found = CliRunner().invoke(app, f"{words} {options}")
    assert isinstance(found.exception, PickeroptError)
    assert "empty_ice left to train on" in str(found.exception)
    options = options.replace("--exclude small", "").replace("EMPIAR-1", "small")
    found = CliRunner().invoke(app, f"{words} {options}", catch_exceptions=False)
    assert re.match(r"3 source classes, \d+ views\n2 steps in ", found.stdout), found.stdout
    assert f"next:  pickeropt finetune --init {out} ...\n" in found.stdout
    made = described(out)["provenance"]
    assert isinstance(made, dict)
    assert (made["seed"], made["exclude"], made["batch_size"], made["init"]) == (
        3,
        ["small"],
        2,
        "w.safetensors",
    )
    assert {name for name, _, _ in written} >= {"loss", "rotation", "classes", "accuracy", "learning_rate"}
    assert {step for _, _, step in written} == {2}
