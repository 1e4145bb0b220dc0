"""The prior of the source head: sums by parent worked by hand, and the head read from a file."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from model_world import PARENTS, source_head, source_metadata, source_spec, source_tensors, write_source
from safetensors.torch import load_file, save_file

from pickeropt.errors import CheckpointError
from pickeropt.models.source_head import (
    ABSENT,
    CARBON_ONSET,
    SourceHead,
    SourcePrior,
    carbon_evidence,
    fits,
    read_source_head,
)
from pickeropt.records import DEFAULT_CLASSES

ODDS = np.array([2.0, 3.0, 1.0, 4.0, 6.0, 4.0])
"""Of the source classes, of 20 in all: particle 5, background 1, contaminant 4, carbon 10."""


def said(
    class_names: tuple[str, ...],
    parents: tuple[str, ...] = PARENTS,
    odds: np.ndarray = ODDS,
    offset: float = 0.0,
) -> np.ndarray:
    """exp of the prior of one pick of the one feature 2: half of the logits come from it."""
    half = torch.from_numpy(np.log(odds)).float() / 2
    prior = SourcePrior(1, parents, class_names)
    prior.load(SourceHead(parents, half[:, None] / 2, half + offset, source_spec()))
    with torch.no_grad():
        found = prior(torch.tensor([[2.0]]))
    assert found.shape == (1, len(class_names))
    return found[0].double().exp().numpy()


def test_the_softmax_is_summed_by_parent() -> None:
    assert DEFAULT_CLASSES == ("particle", "background", "contaminant", "carbon")
    np.testing.assert_allclose(said(DEFAULT_CLASSES), np.array([5, 1, 4, 10]) / 20, rtol=1e-5)
    np.testing.assert_allclose(said(DEFAULT_CLASSES[::-1]), np.array([10, 4, 1, 5]) / 20, rtol=1e-5)


def test_of_many_picks_it_is_the_softmax_summed() -> None:
    head = source_head()
    prior = SourcePrior(head.weight.shape[1], head.parents, DEFAULT_CLASSES)
    prior.load(head)
    features = torch.randn(40, head.weight.shape[1], generator=torch.Generator().manual_seed(3))
    logits = features.double().numpy() @ head.weight.double().numpy().T + head.bias.double().numpy()
    each = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    of = np.array(head.parents)
    expected = np.column_stack([each[:, of == name].sum(1) for name in DEFAULT_CLASSES])
    with torch.no_grad():
        found = torch.softmax(prior(features), 1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found, axis=0).min() > 0.05


@pytest.mark.parametrize(
    ("class_names", "expected"),
    [
        (("particle", "background"), (5, 1)),
        (("ice", "particle"), (15, 5)),  # everything that is no particle
        (("particle", "ice", "edge"), (5, 15, 15)),  # nothing tells the two apart
        (("particle", "carbon", "ice"), (5, 10, 1 + 4)),
        (("particle", "contaminant", "ice", "carbon"), (5, 4, 1, 10)),
        ((*DEFAULT_CLASSES, "aggregate"), (5, 1, 4, 10, 15)),  # none is left: all but particles
    ],
)
def test_classes_with_names_of_the_user(class_names: tuple[str, ...], expected: tuple[float, ...]) -> None:
    np.testing.assert_allclose(said(class_names), np.array(expected) / 20, rtol=1e-5)


@pytest.mark.parametrize("offset", [0.0, -40.0, 40.0])
def test_a_parent_that_the_pretraining_never_saw(offset: float) -> None:
    """However high or low its logits lie, which a softmax does not see."""
    never = (math.exp(ABSENT), math.exp(ABSENT))
    found = said(DEFAULT_CLASSES, ("particle", "carbon"), np.array([1.0, 3.0]), offset)
    np.testing.assert_allclose(found, [0.25, *never, 0.75], rtol=1e-4)
    found = said(("particle", "carbon", "dirt"), ("particle", "carbon"), np.array([1.0, 3.0]), offset)
    np.testing.assert_allclose(found, [0.25, 0.75, never[0]], rtol=1e-4)


def test_shots_do_not_change_it() -> None:
    prior = SourcePrior(3, PARENTS, DEFAULT_CLASSES)
    assert not any(parameter.requires_grad for parameter in prior.parameters())


def test_mean_and_scale_are_folded_into_the_head(tmp_path: Path) -> None:
    tensors = source_tensors()
    head = read_source_head(write_source(tmp_path / "w", tensors, source_metadata()))
    assert head is not None
    assert (head.parents, head.spec) == (PARENTS, source_spec())
    mean, scale, weight, bias = (tensor.double().numpy() for tensor in tensors.values())
    features = np.random.default_rng(0).standard_normal((9, len(mean)))
    expected = ((features - mean) * scale) @ weight.T + bias
    found = features @ head.weight.double().numpy().T + head.bias.double().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert head.weight.dtype == head.bias.dtype == torch.float32
    assert np.abs(expected - (features @ weight.T + bias)).max() > 0.5


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"pickeropt": '{"stages": ["layer1"]}'}])
def test_a_file_without_a_head(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"conv1.weight": torch.zeros(1)}, str(tmp_path / "w"), metadata)
    assert read_source_head(tmp_path / "w") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"parents": list(PARENTS[:5])},
        {"parents": [*PARENTS, "carbon"]},
        {"parents": ["particle"] * 5 + ["dust"]},
        {"parents": "carbon"},
        {"parents": 3},
        {"parents": None},
        {"spec": [1, 2]},
        {"spec": None},
        {"spec": {}},
        {"spec": {**source_metadata()["spec"], "colour": "red"}},  # type: ignore[dict-item]
        {"spec": {**source_metadata()["spec"], "windows": None}},  # type: ignore[dict-item]
        {"spec": {**source_metadata()["spec"], "channels": [128]}},  # type: ignore[dict-item]
    ],
    ids=lambda changes: ",".join(changes),
)
def test_a_description_that_does_not_fit(tmp_path: Path, changes: dict[str, object]) -> None:
    path = write_source(tmp_path / "w.safetensors", source_tensors(), {**source_metadata(), **changes})
    with pytest.raises(CheckpointError, match=r"w.safetensors: its head cannot be read .*; pretrain again"):
        read_source_head(path)


@pytest.mark.parametrize("name", source_tensors())
def test_a_tensor_that_is_missing_or_of_another_shape(tmp_path: Path, name: str) -> None:
    tensors = source_tensors()
    for wrong in (
        {n: v for n, v in tensors.items() if n != name},
        {**tensors, name: torch.zeros(2, 5)},
        {**tensors, name: torch.zeros(1)},
    ):
        path = write_source(tmp_path / "w.safetensors", wrong, source_metadata())
        with pytest.raises(CheckpointError, match=r"w.safetensors: its head cannot be read"):
            read_source_head(path)


def test_a_file_that_is_none_or_cut_off(tmp_path: Path) -> None:
    path = write_source(tmp_path / "w.safetensors", source_tensors(), source_metadata())
    assert load_file(str(path))
    for content in (path.read_bytes()[:-7], b"PK\x03\x04 a pickle", b""):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"w.safetensors: its head cannot be read"):
            read_source_head(path)
    for text in ("{", "3", "null"):
        save_file({"conv1.weight": torch.zeros(1)}, str(path), {"pickeropt": text})
        with pytest.raises(CheckpointError, match=r"w.safetensors: its head cannot be read"):
            read_source_head(path)
    with pytest.raises(CheckpointError, match=r"away: its head cannot be read"):
        read_source_head(tmp_path / "away")


def test_who_sees_the_same() -> None:
    head = source_head()
    own = replace(source_spec(), class_names=("particle", "ice"), loss_weights=(1.0, 0.3), limit=2.0)
    assert fits(head, own)
    assert fits(head, replace(own, view_diameters=(30.0,)))  # the same network at another scale
    for change in (
        {"stages": ("layer2",)},
        {"channels": (128,)},
        {"windows": (0.5, 1.2)},
        {"windows": ()},
        {"dense": False},
        {"centred": False},
        {"normalise": "box"},
        {"view_diameters": (24.0, 16.0)},
    ):
        assert not fits(head, replace(own, **change)), change


def test_evidence_for_carbon_begins_at_doubt_and_has_an_end() -> None:
    shares = torch.tensor([[0.2, 0.3, 0.5], [0.3, 0.65, 0.05], [0.6, 0.399, 0.001], [1e-9, 1e-9, 1 - 2e-9]])
    found = carbon_evidence(shares.double().log(), 2, 10.0).numpy()
    expected = [CARBON_ONSET, CARBON_ONSET + math.log(0.05 / 0.95), 0.0, 10.0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    others = shares[:, [2, 0, 1]].double().log()
    np.testing.assert_allclose(carbon_evidence(others, 0, 10.0).numpy(), expected, atol=1e-6)
    less = carbon_evidence(others, 0, 2.0).numpy()
    np.testing.assert_allclose(less, np.minimum(expected, 2.0), atol=1e-6)
