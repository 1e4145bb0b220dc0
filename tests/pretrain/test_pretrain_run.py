"""`pretrain` from end to end, its files, and what it refuses."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import timm
import torch
import typer
from PIL import Image
from pretrain_world import DIAMETER, make_folders, make_micrographs, make_weights, of_points, tiny
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from pickeropt.commands.pretrain import run_pretrain
from pickeropt.errors import CheckpointError, OutputError, PickeroptError
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.recipes import PRIOR_WEIGHT, fit_default, make_classifier
from pickeropt.models.backbone import initial_backbone
from pickeropt.models.classifier import general_classifier
from pickeropt.models.source_head import fits, read_source_head
from pickeropt.pretrain import learner as log
from pickeropt.pretrain.head_fit import RIDGES
from pickeropt.pretrain.pretrain_config import PretrainReport
from pickeropt.pretrain.pretraining import pretrain


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    make_weights(root / "w.safetensors")
    make_micrographs(root / "sim", 8)
    make_folders(root / "boxes")
    return root


@pytest.fixture(scope="module")
def trained(root: Path) -> PretrainReport:
    """The default recipe on micrographs, with some without labels; views show nearly all points."""
    changes = {
        "view_px": 145,
        "view_diameters": (16.0, 18.0),
        "head_steps": 200,
        "unlabelled": root / "sim/micrographs",
    }
    config = tiny(root / "w.safetensors", steps=3, save_every=2, **changes)
    return pretrain(root / "sim", root / "trained.safetensors", config)


def described(path: Path) -> dict[str, object]:
    with safe_open(str(path), framework="pt") as file:
        assert file.metadata()["format"] == "pickeropt backbone 1"
        found: dict[str, object] = json.loads(file.metadata()["pickeropt"])
    return found


def test_report_and_files(root: Path, trained: PretrainReport) -> None:
    assert (trained.classes, trained.samples, trained.held_back, trained.steps) == (4, 12, 4, 3)
    assert trained.resumed_at == 0
    assert trained.final["rotation"] > 0
    measured = ("rotation", "classes", "parents", "accuracy", "parent_accuracy", "head_f1", "head_auc")
    assert {f"held_back_{name}" for name in measured} <= trained.final.keys()
    assert trained.final["head_ridge"] in RIDGES
    left = {path.name for path in root.iterdir()} - {"w.safetensors", "sim", "boxes"}
    assert {"trained.safetensors", "trained.log.csv", "trained.curves.png"} <= left
    assert not [name for name in left if "partial" in name]
    with Image.open(trained.curves) as image:
        assert image.size == (1500, 675)
    lines = trained.log.read_text().splitlines()
    assert lines[0].startswith(
        "step,loss,rotation,classes,parents,accuracy,parent_accuracy,learning_rate,images_per_second,held"
    )
    last = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    assert float(last["held_back_head_auc"]) == pytest.approx(trained.final["held_back_head_auc"], rel=1e-5)
    assert [line.split(",")[0] for line in lines[1:]] == ["2", "3"]


def test_finetune_can_start_from_it(trained: PretrainReport) -> None:
    tensors = load_file(str(trained.out))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    backbone = initial_backbone("resnet18", str(trained.out), None, ("layer2", "layer3"))
    kept = backbone.body.state_dict()["layer3.1.conv2.weight"]
    assert torch.equal(kept.half(), tensors["layer3.1.conv2.weight"])
    assert initial_backbone("resnet18", str(trained.out), None, None).stages == ("layer3",)


def test_finetune_hears_the_head(root: Path, trained: PretrainReport) -> None:
    """The classifier of finetune's default recipe has the opinion of the file, and learns beside it."""
    assert described(trained.out)["parents"] == ["particle", "particle", "background", "carbon"]
    names = ("particle", "background", "contaminant", "carbon")
    classifier = make_classifier(FinetuneConfig(DIAMETER, init=str(trained.out)), names, None)
    head = read_source_head(trained.out)
    assert head is not None
    assert fits(head, classifier.spec)
    assert head.spec.class_names == ("big", "small", "empty_ice", "stripes")
    assert (classifier.spec.parents, classifier.spec.prior_weight) == (head.parents, PRIOR_WEIGHT)
    features, labels = of_points(root / "sim", classifier.backbone.eval(), classifier.spec)
    tensors = {n.removeprefix("head."): v.double() for n, v in load_file(str(trained.out)).items()}
    standardised = (features - tensors["mean"]) * tensors["scale"]
    source = standardised @ tensors["branches.0.linear.weight"].T + tensors["branches.0.linear.bias"]
    share = torch.softmax(source, 1)
    expected = torch.stack([share[:, :2].sum(1), share[:, 2], share[:, 3]], 1)
    with torch.no_grad():
        assert classifier.spec.carbon_weight > 0
        classifier.spec = replace(classifier.spec, carbon_weight=0.0)  # that is test_classifier's matter
        leaning = classifier.prior_logits(features)[:, [0, 1, 3]].double()
    torch.testing.assert_close(torch.softmax(leaning / PRIOR_WEIGHT, 1), expected, rtol=1e-3, atol=1e-3)
    fit_default(classifier, features, labels)
    with torch.no_grad():
        assert classifier.logits(features).argmax(1).tolist() == labels.tolist()


def test_the_head_is_a_general_model(root: Path, trained: PretrainReport) -> None:
    """Without a shot, on micrographs that were trained on."""
    head = read_source_head(trained.out)
    assert head is not None
    backbone = initial_backbone("resnet18", str(trained.out), None, head.spec.stages)
    classifier = general_classifier(backbone, head)
    features, labels = of_points(root / "sim", backbone.eval(), classifier.spec)
    with torch.no_grad():
        probabilities = classifier.probabilities(features)
    assert probabilities.shape == (len(labels), 4)
    assert probabilities.argmax(1).tolist() == labels.tolist()
    assert probabilities[:, 2].max() < 1e-4  # no source class is a contaminant


def test_provenance_names_no_path(root: Path, trained: PretrainReport) -> None:
    made = described(trained.out)["provenance"]
    assert isinstance(made, dict)
    assert (made["data"], made["recipe"], made["init"], made["steps"]) == ("sim", "default", "imagenet", 3)
    assert made["figures"]["rotation"] == pytest.approx(trained.final["rotation"], rel=1e-5)
    assert str(root).encode() not in trained.out.read_bytes()


def test_the_rotation_term_is_alone_at_first(root: Path) -> None:
    """Then the labels teach nothing; after that the loss is the weighted sum."""
    whole = {"view_px": 145, "view_diameters": (16.0, 18.0)}  # so that every view shows points
    weighted = {"distil_first": 0.5, "class_weight": 0.2, "parent_weight": 0.4}
    config = tiny(root / "w.safetensors", steps=4, **whole, **weighted)
    half = pretrain(root / "sim", root / "half.safetensors", config)
    first, last = log.read_log(half.log)
    assert first["loss"] == first["rotation"]
    assert not {"classes", "parents", "accuracy", "parent_accuracy"} & first.keys()
    expected = last["rotation"] + 0.2 * last["classes"] + 0.4 * last["parents"]
    assert last["loss"] == pytest.approx(expected, rel=1e-4)

    def trained_weights(share: float, class_weight: float) -> dict[str, torch.Tensor]:
        told = replace(config, steps=3, distil_first=share, class_weight=class_weight)
        out = pretrain(root / "sim", root / f"{share}-{class_weight}.safetensors", told).out
        return {n: tensor for n, tensor in load_file(str(out)).items() if not n.startswith("head.")}

    def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(one[name], other[name]) for name in one)

    assert same(trained_weights(1.0, 0.2), trained_weights(1.0, 9.0))
    assert not same(trained_weights(0.4, 0.2), trained_weights(0.4, 9.0))


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
    """Nor would the shipped weights do: they have the same teacher."""
    create = timm.create_model

    def offline(*arguments: object, pretrained: bool = False, **others: object) -> object:
        if pretrained:
            raise ConnectionError("no network")
        return create(*arguments, pretrained=False, **others)

    monkeypatch.setattr(timm, "create_model", offline)
    config = replace(tiny(root / "w.safetensors"), weights=None)
    for init in ("none", "imagenet"):
        with pytest.raises(CheckpointError, match=r"no network.*give a file with --weights$") as raised:
            pretrain(root / "sim", root / "x.safetensors", replace(config, init=init))
        assert ("has the ImageNet network for a teacher: " in str(raised.value)) == (init == "none")
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
    options = "--exclude EMPIAR-1 --ignore small --views 1 --distil-first 0.5 --seed 3 --device cpu --tensorboard"
    found = CliRunner().invoke(app, f"{words} {options}")
    assert isinstance(found.exception, PickeroptError)
    assert "empty_ice left to train on" in str(found.exception)
    options = options.replace("--exclude EMPIAR-1", "--exclude empty_ice")
    found = CliRunner().invoke(app, f"{words} {options}", catch_exceptions=False)
    assert re.match(r"2 source classes, 4 views\n2 steps in ", found.stdout), found.stdout
    assert f"next:  pickeropt finetune --init {out} ...\n" in found.stdout
    made = described(out)["provenance"]
    assert isinstance(made, dict)
    assert {name: made[name] for name in ("seed", "exclude", "ignore", "distil_first", "batch_size", "init")} == {
        "seed": 3,
        "exclude": ["empty_ice"],
        "ignore": ["small"],
        "distil_first": 0.5,
        "batch_size": 2,
        "init": "w.safetensors",
    }
    assert {name for name, _, _ in written} >= {
        "loss",
        "rotation",
        "classes",
        "parents",
        "learning_rate",
        "head_ridge",
    }
    assert {step for _, _, step in written} == {2}
