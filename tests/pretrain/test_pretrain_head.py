"""The head: parents of source classes, its fit to features that stand still, and its figures."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pretrain_world import tiny
from safetensors.torch import load_file

from pickeropt.models.backbone import Backbone
from pickeropt.models.features import EIGHT, turn, turn_back
from pickeropt.pretrain import head_fit
from pickeropt.pretrain import head_fit as frozen
from pickeropt.pretrain.head_fit import (
    ORIENTATIONS,
    PointFeatures,
    feature_path,
    fit_linear,
    held_back_figures,
    read_points,
    standardisation,
    write_features,
)
from pickeropt.pretrain.learner import Learner, LinearHead
from pickeropt.pretrain.pretrain_recipes import point_features
from pickeropt.pretrain.training_loop import ProcessGroup
from pickeropt.pretrain.training_set import Parents, even_weights
from pickeropt.pretrain.training_views import TrainingView, open_store, write_piece

THREE = Parents(("particle", "carbon"), (2, 1))
"""Of source classes 0 and 1, and of 2."""


def test_parents_of_source_classes() -> None:
    found = Parents.of(("particle", "particle", "background", "carbon", "carbon", "carbon"))
    assert found == Parents(("particle", "background", "carbon"), (2, 1, 3))
    assert found.labels(torch.tensor([5, 0, 1, 2, 3])).tolist() == [2, 0, 0, 1, 2]


def test_the_probability_of_a_parent_is_the_sum_over_its_source_classes() -> None:
    shares = torch.tensor([[0.2, 0.5, 0.3], [0.05, 0.05, 0.9]])
    source = shares.log() + torch.tensor([[1.0], [-2.0]])
    torch.testing.assert_close(torch.softmax(THREE.logits(source), 1), torch.tensor([[0.7, 0.3], [0.1, 0.9]]))
    classes, parents = THREE.losses(source, torch.tensor([1, 0]), torch.tensor([0.25, 0.75]))
    assert float(classes) == pytest.approx(-0.25 * math.log(0.5) - 0.75 * math.log(0.05), rel=1e-5)
    assert float(parents) == pytest.approx(-0.25 * math.log(0.7) - 0.75 * math.log(0.1), rel=1e-5)


def test_parents_count_the_same_but_for_those_with_few_points() -> None:
    kinds = torch.tensor([0] * 6 + [2] * 3)
    weights = even_weights(kinds, 1)
    torch.testing.assert_close(weights, torch.tensor([1 / 12] * 6 + [1 / 6] * 3))
    # 3 of at least 4 points: 3/4 of a parent's say, beside a whole one
    torch.testing.assert_close(even_weights(kinds, 4)[6:], torch.full((3,), 0.25 / 1.75))


def test_standardisation_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_fit, "CHUNK", 4)
    features = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)).half() * 3 + 2
    features[:, 1] = 7.0
    mean, scale = standardisation(features)
    expected = features.double().numpy()
    np.testing.assert_allclose(mean, expected.mean(0), rtol=1e-6)
    np.testing.assert_allclose(scale[[0, 2]], 1 / expected.std(0)[[0, 2]], rtol=1e-5)
    assert scale[1] == 0


def clouds(counts: tuple[int, int, int], seed: int) -> PointFeatures:
    """Classes 0, 1 and 2 around (2, 2), (2, -2) and (-2, 0), with one far outlier of class 0."""
    generator, centres = torch.Generator().manual_seed(seed), torch.tensor([[2.0, 2], [2, -2], [-2, 0]])
    labels = torch.repeat_interleave(torch.tensor(counts))
    features = centres[labels] + torch.randn(len(labels), 2, generator=generator)
    features[0] = torch.tensor([-500.0, 0.0])
    return PointFeatures(features.half(), labels)


def fitted(points: PointFeatures, ridge: float, steps: int, seed: int = 0) -> LinearHead:
    head = LinearHead(2, 3)
    mean, scale = torch.tensor([0.5, 0.0]), torch.tensor([0.5, 0.5])
    head.mean.copy_(mean)
    head.scale.copy_(scale)
    fit_linear(head, points, THREE, ridge, steps, seed)
    return head


def test_the_fit_finds_the_minimum_it_is_to_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against L-BFGS on all points, with the loss written out."""
    monkeypatch.setattr(head_fit, "RATE", 0.05)
    points = clouds((100, 30, 20), 1)
    head = fitted(points, 0.1, 400)
    weight, bias = torch.zeros(3, 2, requires_grad=True), torch.zeros(3, requires_grad=True)
    seen = ((points.features.float() - head.mean) * head.scale).clamp(-1.5, 1.5)
    share = torch.tensor([0.5 / 130, 0.5 / 130, 0.5 / 20])[points.labels]
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        told = torch.softmax(seen @ weight.T + bias, 1)
        parents = torch.where(points.labels < 2, told[:, 0] + told[:, 1], told[:, 2])
        own = told.gather(1, points.labels[:, None])[:, 0]
        loss = -(share * (parents.log() + 0.03 * own.log())).sum() + 0.05 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    # batches are drawn at random, so near it
    assert float((head.linear.weight - weight).detach().norm() / weight.detach().norm()) < 0.1
    assert torch.equal(fitted(points, 0.1, 9).linear.weight, fitted(points, 0.1, 9).linear.weight)
    assert not torch.equal(fitted(points, 0.1, 9).linear.weight, fitted(points, 0.1, 9, 1).linear.weight)


def test_figures_by_hand() -> None:
    head = LinearHead(3, 3)
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(3))
        head.linear.bias.zero_()
    features = torch.tensor([[9.0, 0, 0], [0, 5, 7], [0, 3, 0], [0, 0, 6], [0, 2, 1.0]]).half()
    points = PointFeatures(features, torch.tensor([0, 1, 1, 2, 2]))
    found = held_back_figures(head, points, THREE)
    # told: particle, carbon, particle, carbon, particle. particle 2 of 3 and 3, carbon 1 of 2 and 2
    assert found["held_back_head_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    # odds of particles about 9, -2, 3; of carbon about -5, 1.3: 5 of 6 pairs in order
    assert found["held_back_head_auc"] == pytest.approx(5 / 6)
    alone = PointFeatures(features[:3], torch.tensor([0, 1, 1]))
    assert held_back_figures(head, alone, THREE).keys() == {"held_back_head_f1"}


@pytest.mark.parametrize("held", [True, False])
def test_the_ridge_is_chosen_by_what_is_held_back(monkeypatch: pytest.MonkeyPatch, held: bool) -> None:
    """A fit that is stubbed says where its ridge leads: only that of 0.003 tells the held back right."""

    def stub(head: LinearHead, points: PointFeatures, parents: Parents, ridge: float, steps: int, seed: int) -> None:
        assert (steps, seed) == (20, 0)
        with torch.no_grad():
            head.linear.weight.copy_(torch.tensor([[1.0, 0], [0, 0], [-1, 0]]) * (1 if ridge == 3e-3 else -1))
            head.linear.bias.fill_(0.1)

    monkeypatch.setattr(head_fit, "fit_linear", stub)
    learner = SimpleNamespace(head=LinearHead(2, 3))
    run = SimpleNamespace(learner=learner, config=tiny(Path("w")), device=torch.device("cpu"))
    apart = torch.tensor([[3.0, 0], [2, 0], [-3, 0], [-1, 0]]).half()
    points = PointFeatures(apart, torch.tensor([0, 1, 2, 2]))
    seen: list[tuple[int, int]] = []
    figures = head_fit._choose(
        run,  # type: ignore[arg-type]
        PointFeatures(torch.tensor([[1.0, 1], [-1, -1]]).half(), torch.tensor([0, 2])),
        points if held else None,
        THREE,
        lambda what, done, total: seen.append((done, total)),
    )
    expected = {"head_ridge": 3e-3, "held_back_head_f1": 1.0, "held_back_head_auc": 1.0}
    assert figures == (expected if held else {"head_ridge": 1e-2})
    assert len(seen) == (4 if held else 1)
    assert torch.equal(learner.head.linear.bias, torch.full((3,), 0.1).half().float())
    assert learner.head.linear.weight[0, 0].item() == (1.0 if held else -1.0)


@pytest.mark.parametrize("most", [1000, 8])
def test_features_of_views_in_two_orientations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(frozen, "MOST_POINTS", most)
    torch.manual_seed(0)
    learner = Learner(Backbone("resnet18", ("layer1",)).eval(), 64 * 3, 3)
    run = SimpleNamespace(
        learner=learner,
        config=tiny(Path("w"), mixed_precision=False),
        device=torch.device("cpu"),
        processes=ProcessGroup(),
    )
    counts = (3, 0)
    views = [
        TrainingView(torch.randn(33, 33).half(), 9.0, torch.rand(n, 2) * 30, torch.arange(n), centred=n == 3)
        for n in counts
    ]
    write_piece(tmp_path / "piece", views)
    store, folder, seen = open_store([tmp_path / "piece"]), tmp_path / "features", []
    write_features(run, store, folder, lambda what, done, total: seen.append(what))  # type: ignore[arg-type]
    write_features(run, store, folder, lambda what, done, total: seen.append(what))  # type: ignore[arg-type]
    assert len(seen) == 2  # the second time there is nothing to do
    assert len(load_file(str(feature_path(folder, 1)))["labels"]) == 0
    points = read_points(folder, [1, 0])
    kept = 3 if most == 1000 else 2  # 8 points of 2 views in 2 orientations
    assert points.features.shape == (2 * kept, 192)
    labels = points.labels[:kept]
    assert points.labels.tolist() == [*labels.tolist()] * 2
    for number, way in enumerate((EIGHT[0], EIGHT[5])):
        assert ORIENTATIONS[number] == way
        with torch.no_grad():
            maps = learner.backbone(turn(views[0].pixels.float()[None, None], way))
            back = [turn_back(m[0], way) for m in maps]
            expected = point_features(back, (4,), views[0].points[labels], 9.0, centred=True)
        found = points.features[number * kept : (number + 1) * kept].float()
        torch.testing.assert_close(found, expected, rtol=3e-3, atol=3e-3)
