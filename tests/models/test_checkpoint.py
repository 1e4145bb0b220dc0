"""Model files: what goes in comes out, what is no model is refused and never run."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import model_world
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import pickeropt
from pickeropt.errors import CheckpointError, OutputError
from pickeropt.models.backbone import Backbone
from pickeropt.models.classifier import FORMAT, PickClassifier, load_checkpoint, save_checkpoint
from pickeropt.models.head import ModelSpec, joint_logits

SPEC = replace(model_world.SPEC, stages=("layer1",), channels=(64,), view_diameters=(60.0, 40.0), windows=(0.5, 1.2))
PROVENANCE = {"settings": {"recipe": "default", "seed": 7}, "shots": {"particle": 10, "ice": 8, "carbon": 6}}


def make_classifier(spec: ModelSpec = SPEC) -> PickClassifier:
    torch.manual_seed(0)
    classifier = PickClassifier(spec, Backbone(spec.backbone, spec.stages))
    classifier.head.standardise(torch.randn(20, spec.layout.width))
    classifier.temperature.fill_(1.7)
    return classifier.eval()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("model") / "m"
    save_checkpoint(path, make_classifier(), 150.0, PROVENANCE)
    return path.read_bytes()


@pytest.fixture
def model(tmp_path: Path, content: bytes) -> Path:
    (tmp_path / "model.safetensors").write_bytes(content)
    return tmp_path / "model.safetensors"


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(str(path), framework="pt") as file:
        return file.metadata()


def rewrite(path: Path, **changes: Any) -> None:
    """The file with other entries in its JSON; None takes one away."""
    metadata = metadata_of(path)
    described = {**json.loads(metadata["pickeropt"]), **changes}
    described = {name: value for name, value in described.items() if value is not None}
    save_file(load_file(str(path)), str(path), {**metadata, "pickeropt": json.dumps(described)})


@pytest.mark.parametrize("loss_weights", [(1.0, 0.3), (1.0, 0.5, 0.2)])
def test_what_goes_in_comes_out(tmp_path: Path, loss_weights: tuple[float, ...]) -> None:
    classifier = make_classifier(replace(SPEC, loss_weights=loss_weights))
    digest = save_checkpoint(tmp_path / "new" / "m.safetensors", classifier, 150.0, PROVENANCE)
    loaded = load_checkpoint(tmp_path / "new" / "m.safetensors")
    features, image = torch.randn(5, SPEC.layout.width), torch.randn(1, 1, 33, 33)
    with torch.inference_mode():
        assert torch.equal(loaded.classifier.probabilities(features), classifier.probabilities(features))
        assert torch.equal(loaded.classifier.backbone(image)[0], classifier.backbone(image)[0])
    assert loaded.classifier.spec == classifier.spec
    assert loaded.classifier.temperature == torch.tensor(1.7)
    assert not any(module.training for module in loaded.classifier.modules())
    assert loaded.diameter_angstrom == 150.0
    assert loaded.provenance["shots"] == PROVENANCE["shots"]
    content = (tmp_path / "new" / "m.safetensors").read_bytes()
    assert loaded.digest == digest == hashlib.sha256(content).hexdigest()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["m.safetensors"]


def test_probabilities_by_hand() -> None:
    classifier = make_classifier()
    features = torch.randn(4, SPEC.layout.width)
    with torch.no_grad():
        logits = joint_logits(classifier.head(features), (1.0, 0.3)).numpy().astype(np.float64) / 1.7
        found = classifier.probabilities(features).numpy()
    logits[:, SPEC.class_names.index("particle")] += np.log(len(SPEC.class_names) - 1)  # half are particles
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_same_model_is_the_same_bytes(tmp_path: Path) -> None:
    """safetensors writes its metadata in any order; eight of the same would betray it."""
    first, second = make_classifier(), make_classifier()
    digests = {save_checkpoint(tmp_path / f"{i}", first, 150.0, PROVENANCE) for i in range(7)}
    digests.add(save_checkpoint(tmp_path / "7", second, 150.0, PROVENANCE))
    assert len(digests) == 1
    assert digests != {save_checkpoint(tmp_path / "8", first, 151.0, PROVENANCE)}


def test_the_metadata_say_what_it_is(model: Path) -> None:
    metadata = metadata_of(model)
    assert metadata["format"] == FORMAT
    said = json.loads(metadata["pickeropt"])
    assert said["diameter_angstrom"] == 150.0
    assert said["view_angstrom_per_px"] == [2.5, 3.75]
    assert said["input_size_px"] is None
    assert said["spec"]["class_names"] == ["particle", "ice", "carbon"]
    assert set(said["spec"]) == set(SPEC.__dataclass_fields__)
    assert said["provenance"]["settings"] == {"recipe": "default", "seed": 7}
    assert said["provenance"]["shots"] == PROVENANCE["shots"]
    versions = said["provenance"]["versions"]
    assert versions["pickeropt"] == pickeropt.__version__
    assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
    assert versions["numpy"] == np.__version__


def test_a_box_model_says_the_size_of_its_boxes(tmp_path: Path) -> None:
    spec = replace(SPEC, dense=False, view_diameters=(60.0,), box_diameters=1.6)
    save_checkpoint(tmp_path / "m", make_classifier(spec), 150.0, PROVENANCE)
    assert json.loads(metadata_of(tmp_path / "m")["pickeropt"])["input_size_px"] == [97]


def test_other_programs_can_read_the_header(model: Path) -> None:
    """The layout of the file by hand: 8 bytes of length, JSON padded to 8 bytes, tensors back to back."""
    content = model.read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0
    header = json.loads(content[8 : 8 + size])
    assert list(header["__metadata__"]) == ["format", "pickeropt"]
    spans = sorted(v["data_offsets"] for k, v in header.items() if k != "__metadata__")
    assert spans[0][0] == 0
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert 8 + size + spans[-1][1] == len(content)
    start, end = header["temperature"]["data_offsets"]
    assert np.frombuffer(content[8 + size + start : 8 + size + end], "<f4").tolist() == [np.float32(1.7)]


def test_a_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "no.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="no such model file; make one with `pickeropt finetune`"):
            load_checkpoint(path)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_is_never_opened_as_one(tmp_path, monkeypatch, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Malicious(), protocol))
    said = "not a safetensors file" if protocol == 0 else "a pickle or torch.save file, which can run code"
    with pytest.raises(CheckpointError, match=said + r".*make a model with `pickeropt finetune`"):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()
    command = [sys.executable, "-c", f"import pickle; pickle.loads(open({str(path)!r}, 'rb').read())"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "ran").exists()  # it would have run


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file(tmp_path: Path, zipped: bool) -> None:
    torch.save(make_classifier().state_dict(), tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"m.pt: a pickle or torch.save file, .* refused; make a model"):
        load_checkpoint(tmp_path / "m.pt")


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.3, 0.999])
def test_a_truncated_file(model: Path, share: float) -> None:
    content = model.read_bytes()
    model.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"model.safetensors: not a safetensors file, or a truncated one; make"):
        load_checkpoint(model)


def test_backbone_weights_are_no_model(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(1)}, str(tmp_path / "b"), {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"not a 'pickeropt classifier 1': it says 'pt'; .*finetune --init`"):
        load_checkpoint(tmp_path / "b")
    save_file({"conv1.weight": torch.zeros(1)}, str(tmp_path / "b"))
    with pytest.raises(CheckpointError, match="it says None"):
        load_checkpoint(tmp_path / "b")


@pytest.mark.parametrize("name", ["temperature", "head.mean", "backbone.body.conv1.weight"])
def test_a_tensor_that_is_missing_foreign_or_of_another_shape(model: Path, name: str) -> None:
    metadata, state = metadata_of(model), load_file(str(model))
    for wrong in (
        {n: v for n, v in state.items() if n != name},
        {**state, "extra": torch.zeros(1)},
        {**state, name: torch.zeros(3, 2)},
    ):
        save_file(wrong, str(model), metadata)
        with pytest.raises(CheckpointError, match=r"(?s)a damaged pickeropt model .*; fine-tune again"):
            load_checkpoint(model)


SAID = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(SPEC).items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": {**SAID, "extra": 1}},
        {"spec": {n: v for n, v in SAID.items() if n != "windows"}},
        {"spec": {**SAID, "stages": ["layer9"]}},
        {"spec": {**SAID, "channels": [64, 128]}},
        {"spec": {**SAID, "class_names": ["particle", "ice"]}},
        {"spec": {**SAID, "loss_weights": [1, 1, 1, 1]}},
        {"spec": {**SAID, "backbone": "vgg16"}},
        {"spec": 3},
        {"spec": [1, 2]},
        {"spec": None},
        {"diameter_angstrom": None},
        {"diameter_angstrom": "wide"},
        {"diameter_angstrom": [1]},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_a_description_that_does_not_fit(model: Path, changes: dict[str, Any]) -> None:
    rewrite(model, **changes)
    with pytest.raises(CheckpointError, match=r"(?s)model.safetensors: a damaged pickeropt model .*; fine-tune again"):
        load_checkpoint(model)


def test_a_description_that_is_no_json(model: Path) -> None:
    state = load_file(str(model))
    for text in ("{", "[]", "3", "null"):
        save_file(state, str(model), {"format": FORMAT, "pickeropt": text})
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(model)
    save_file(state, str(model), {"format": FORMAT})
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(model)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written"):
        save_checkpoint(tmp_path / "file" / "m.safetensors", make_classifier(), 150.0, PROVENANCE)
    assert (tmp_path / "file").read_text() == "mine"
