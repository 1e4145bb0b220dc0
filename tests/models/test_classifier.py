"""The classifier with an opinion beside its branches, the general one, and files with and without."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from model_world import PARENTS, source_head, source_spec
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pickeropt.errors import CheckpointError
from pickeropt.models.backbone import Backbone
from pickeropt.models.classifier import (
    PickClassifier,
    general_checkpoint,
    general_classifier,
    load_checkpoint,
    save_checkpoint,
)
from pickeropt.models.head import FORMER_FIELDS, ModelSpec
from pickeropt.records import DEFAULT_CLASSES

ALONE = source_spec(class_names=("particle", "ice", "carbon"), loss_weights=(1.0, 0.3))
LEANING = replace(ALONE, parents=PARENTS, prior_weight=0.25, limit=2.0)


def make_classifier(spec: ModelSpec) -> PickClassifier:
    """Of random weights; the opinion, where there is one, is `source_head`'s."""
    torch.manual_seed(0)
    classifier = PickClassifier(spec, Backbone(spec.backbone, spec.stages))
    classifier.head.standardise(torch.randn(20, spec.layout.width))
    classifier.temperature.fill_(1.7)
    if classifier.source_prior is not None:
        classifier.source_prior.load(source_head())
    return classifier.eval()


@pytest.fixture
def features() -> Tensor:
    return torch.randn(8, ALONE.layout.width, generator=torch.Generator().manual_seed(3))


def source_probabilities(features: Tensor) -> np.ndarray:
    """(n, s) softmax of `source_head`'s logits, by numpy."""
    head = source_head()
    logits = features.double().numpy() @ head.weight.double().numpy().T + head.bias.double().numpy()
    found: np.ndarray = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return found


def test_without_an_opinion_nothing_leans(features: Tensor) -> None:
    classifier = make_classifier(ALONE)
    assert classifier.source_prior is None
    assert torch.equal(classifier.prior_logits(features), torch.zeros(8, 3))
    assert not [name for name in classifier.state_dict() if name.startswith("opinion")]
    with torch.no_grad():
        first, second = classifier.head(features)
        torch.testing.assert_close(classifier.logits(features), (first + 0.3 * second) / 1.3)


@pytest.mark.parametrize("lean", [0.25, 1.0])
def test_the_opinion_stands_beside_the_branches(features: Tensor, lean: float) -> None:
    classifier = make_classifier(replace(LEANING, prior_weight=lean))
    each = source_probabilities(features)
    # sources are of particle, particle, background, contaminant, carbon, carbon; ice is what has no name
    by_class = np.column_stack([each[:, [0, 1]].sum(1), each[:, [2, 3]].sum(1), each[:, [4, 5]].sum(1)])
    with torch.no_grad():
        first, second = (branch.double().numpy() for branch in classifier.head(features))
        leaning, logits = classifier.prior_logits(features).numpy(), classifier.logits(features).numpy()
    np.testing.assert_allclose(leaning, lean * np.log(by_class), atol=1e-4)
    np.testing.assert_allclose(logits, (first + 0.3 * second) / 1.3 + lean * np.log(by_class), atol=1e-4)
    assert np.ptp(leaning) > 0.2


@pytest.mark.parametrize("most", [10.0, 3.5])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_evidence_for_carbon_by_hand(features: Tensor, share: float, most: float) -> None:
    """In full it tells the rejects apart, in part it speaks against the particle."""
    plain = make_classifier(LEANING)
    classifier = make_classifier(replace(LEANING, carbon_weight=0.5, carbon_limit=most, carbon_share=share))
    each = source_probabilities(features)
    carbon = each[:, [4, 5]].sum(1)
    evidence = 0.5 * np.clip(np.log(carbon / (1 - carbon)) + 4, 0, most)
    assert np.ptp(evidence) > 0.3
    with torch.no_grad():
        before = plain.logits(features).double().numpy()
        found = torch.softmax(classifier.logits(features), 1).numpy()
        leaning = (classifier.prior_logits(features) - plain.prior_logits(features)).numpy()
    np.testing.assert_allclose(leaning, evidence[:, None] * [0, 0, 1], atol=1e-4)
    heard, full = np.exp(before + leaning * share), np.exp(before + leaning)
    particle = heard[:, 0] / heard.sum(1)
    kinds = full[:, 1:] / full[:, 1:].sum(1, keepdims=True)
    np.testing.assert_allclose(found[:, 0], particle, atol=1e-5)
    np.testing.assert_allclose(found[:, 1:], (1 - particle)[:, None] * kinds, atol=1e-5)


def test_a_contaminant_has_a_part_of_the_evidence_for_carbon(features: Tensor) -> None:
    spec = replace(LEANING, class_names=("particle", "contaminant", "carbon"))
    plain, alike = make_classifier(spec), make_classifier(replace(spec, carbon_weight=1.5, contaminant_share=0.4))
    with torch.no_grad():
        found = alike.prior_logits(features) - plain.prior_logits(features)
    assert found[:, 2].max() > 1
    torch.testing.assert_close(found[:, 1], 0.4 * found[:, 2], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, 0], torch.zeros(8))


def test_evidence_for_carbon_needs_a_class_of_that_name(features: Tensor) -> None:
    spec = replace(LEANING, class_names=("particle", "ice", "edge"))
    plain, classifier = (make_classifier(replace(spec, carbon_weight=weight)) for weight in (0.0, 2.0))
    with torch.no_grad():
        assert torch.equal(plain.logits(features), classifier.logits(features))
        assert torch.equal(plain.prior_logits(features), classifier.prior_logits(features))


def test_the_limit_is_the_branches_and_not_the_opinions(features: Tensor) -> None:
    """Features a hundred spreads away say no more to the branches, and go on speaking to the opinion."""
    classifier = make_classifier(LEANING)
    near, far = 50 * features.sign(), 5000 * features.sign()
    with torch.no_grad():
        for a, b in zip(classifier.head(near), classifier.head(far), strict=True):
            assert torch.equal(a, b)
        assert (classifier.prior_logits(near) - classifier.prior_logits(far)).abs().max() > 1
        free = make_classifier(ALONE)
        assert (free.logits(near) - free.logits(far)).abs().max() > 1


def test_the_general_model_by_hand(features: Tensor) -> None:
    """The sum of the source classes' softmax by parent, at the prior that half of the picks are particles."""
    classifier = general_classifier(Backbone("resnet18", ("layer1",)), source_head())
    each = source_probabilities(features)
    by_parent = np.column_stack([each[:, [0, 1]].sum(1), each[:, 2], each[:, 3], each[:, [4, 5]].sum(1)]) * np.array(
        [3.0, 1.0, 1.0, 1.0]
    )
    expected = by_parent / by_parent.sum(1, keepdims=True)
    with torch.no_grad():
        found = classifier.probabilities(features).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert classifier.spec.class_names == DEFAULT_CLASSES == ("particle", "background", "contaminant", "carbon")
    assert (classifier.spec.parents, classifier.spec.prior_weight) == (PARENTS, 1.0)
    assert not classifier.training


def test_the_general_model_of_the_package() -> None:
    checkpoint = general_checkpoint()
    assert checkpoint.diameter_angstrom is None
    assert checkpoint.provenance == {"general": True}
    assert checkpoint.digest == general_checkpoint().digest
    assert len(checkpoint.digest) == 64
    spec = checkpoint.classifier.spec
    assert spec.class_names == DEFAULT_CLASSES
    assert set(spec.parents) == set(DEFAULT_CLASSES)
    assert spec.dense
    assert checkpoint.classifier.backbone.stages == spec.stages


def test_a_package_whose_weights_hold_no_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pickeropt.models.classifier.initial_head", lambda init: None)
    with pytest.raises(CheckpointError, match=r"hold no classifier; install pickeropt again"):
        general_checkpoint()


def test_an_opinion_survives_saving(tmp_path: Path, features: Tensor) -> None:
    classifier = make_classifier(LEANING)
    save_checkpoint(tmp_path / "m", classifier, 150.0, {})
    loaded = load_checkpoint(tmp_path / "m").classifier
    assert loaded.spec == LEANING
    with torch.no_grad():
        assert torch.equal(loaded.prior_logits(features), classifier.prior_logits(features))
        assert torch.equal(loaded.probabilities(features), classifier.probabilities(features))
        without = make_classifier(ALONE)
        assert (loaded.probabilities(features) - without.probabilities(features)).abs().max() > 0.01


def test_a_file_from_before_there_were_opinions(tmp_path: Path) -> None:
    """It has no parents, prior_weight or limit, and its probabilities are what they were."""
    classifier = make_classifier(ALONE)
    save_checkpoint(tmp_path / "m", classifier, 150.0, {})
    with safe_open(str(tmp_path / "m"), framework="pt") as file:
        metadata = file.metadata()
    described = json.loads(metadata["pickeropt"])
    for name in ("parents", "prior_weight", "limit"):
        del described["spec"][name]
    assert described["spec"].keys() < asdict(ALONE).keys()
    described = json.dumps(described)
    save_file(load_file(str(tmp_path / "m")), str(tmp_path / "old"), {**metadata, "pickeropt": described})
    loaded = load_checkpoint(tmp_path / "old").classifier
    assert loaded.spec == ALONE
    features = 9 * torch.randn(6, ALONE.layout.width)  # far out, where a limit would be felt
    with torch.no_grad():
        logits = [
            branch((features - classifier.head.mean) * classifier.head.scale) for branch in classifier.head.branches
        ]
        expected = (logits[0] + 0.3 * logits[1]) / 1.3
        torch.testing.assert_close(loaded.logits(features), expected)


def test_a_file_with_the_former_names(tmp_path: Path, features: Tensor) -> None:
    """Files of earlier versions name four fields and the weights of the prior otherwise."""
    classifier = make_classifier(
        replace(LEANING, class_names=DEFAULT_CLASSES, carbon_weight=1.0, contaminant_share=0.5)
    )
    save_checkpoint(tmp_path / "m", classifier, 150.0, {})
    with safe_open(str(tmp_path / "m"), framework="pt") as file:
        metadata = file.metadata()
    described = json.loads(metadata["pickeropt"])
    former = {new: old for old, new in FORMER_FIELDS.items()}
    described["spec"] = {former.get(name, name): value for name, value in described["spec"].items()}
    assert {"lean", "carbon_lean", "carbon_most", "carbon_alike"} <= described["spec"].keys()
    state = {n.replace("source_prior.", "opinion."): v for n, v in load_file(str(tmp_path / "m")).items()}
    assert any(name.startswith("opinion.") for name in state)
    save_file(state, str(tmp_path / "old"), {**metadata, "pickeropt": json.dumps(described)})
    loaded = load_checkpoint(tmp_path / "old").classifier
    assert loaded.spec == classifier.spec
    with torch.no_grad():
        assert torch.equal(loaded.logits(features), classifier.logits(features))
    described["spec"]["leaning"] = 1.0
    save_file(state, str(tmp_path / "old"), {**metadata, "pickeropt": json.dumps(described)})
    with pytest.raises(CheckpointError, match="leaning"):
        load_checkpoint(tmp_path / "old")


def test_an_opinion_whose_weights_are_gone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m", make_classifier(LEANING), 150.0, {})
    with safe_open(str(tmp_path / "m"), framework="pt") as file:
        metadata = file.metadata()
    state = {n: v for n, v in load_file(str(tmp_path / "m")).items() if not n.startswith("source_prior")}
    save_file(state, str(tmp_path / "m"), metadata)
    with pytest.raises(CheckpointError, match=r"(?s)damaged pickeropt model .*source_prior"):
        load_checkpoint(tmp_path / "m")
