"""First weights, and batch norms that were folded away."""

from copy import deepcopy
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from pickeropt.errors import CheckpointError
from pickeropt.models.backbone import Backbone, fuse_batch_norm, initial_backbone, unfold_batch_norm


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(*arguments, pretrained=False, **others):
        if pretrained:
            raise ConnectionError("name resolution failed")
        return create(*arguments, pretrained=False, **others)

    monkeypatch.setattr(timm, "create_model", offline)


def saved(tmp_path: Path, stage: str) -> tuple[Backbone, Path]:
    torch.manual_seed(5)
    backbone = Backbone("resnet18", (stage,))
    path = tmp_path / f"{stage}.safetensors"
    save_file({n: v.contiguous() for n, v in backbone.body.state_dict().items()}, str(path))
    return backbone, path


def same(a: Backbone, b: Backbone) -> bool:
    mine, theirs = a.body.state_dict(), b.body.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(v, theirs[n]) for n, v in mine.items())


def test_from_a_file_with_its_deepest_stage_or_the_wanted_ones(tmp_path: Path) -> None:
    original, path = saved(tmp_path, "layer2")
    assert same(initial_backbone("resnet18", str(path), None, None), original)
    assert same(initial_backbone("resnet18", "imagenet", path, None), original)
    wanted = initial_backbone("resnet18", str(path), None, ("layer1", "layer2"))
    assert wanted.stages == ("layer1", "layer2")
    with pytest.raises(CheckpointError, match="up to layer3 needs"):
        initial_backbone("resnet18", str(path), None, ("layer2", "layer3"))


def test_shipped_weights_go_into_a_resnet18() -> None:
    backbone = initial_backbone("resnet18", "shipped", None, ("layer2", "layer3"))
    assert backbone.channels == (128, 256)
    assert not same(backbone, Backbone("resnet18", ("layer2", "layer3")))
    with pytest.raises(CheckpointError, match=r"shipped is a resnet18; use --init imagenet or none .* resnet50"):
        initial_backbone("resnet50", "shipped", None, None)


def test_none_is_random_and_seeded() -> None:
    torch.manual_seed(1)
    first = initial_backbone("resnet18", "none", None, ("layer1",))
    second = initial_backbone("resnet18", "none", None, ("layer1",))
    torch.manual_seed(1)
    assert same(first, initial_backbone("resnet18", "none", None, ("layer1",)))
    assert not same(first, second)
    assert initial_backbone("resnet18", "none", None, None).stages == ("layer4",)


@pytest.mark.usefixtures("no_network")
def test_imagenet_without_a_network_says_what_to_do() -> None:
    with pytest.raises(CheckpointError, match=r"ConnectionError: name resolution failed.* --weights, or use"):
        initial_backbone("resnet18", "imagenet", None, ("layer2",))
    with pytest.raises(CheckpointError, match="not a plain ResNet"):
        initial_backbone("vgg16", "imagenet", None, ("layer2",))
    initial_backbone("resnet18", "none", None, ("layer2",))


def test_settings_that_do_not_go_together(tmp_path: Path) -> None:
    _, path = saved(tmp_path, "layer1")
    with pytest.raises(CheckpointError, match=r"--weights .* goes with --init imagenet, not with --init none"):
        initial_backbone("resnet18", "none", path, None)
    with pytest.raises(CheckpointError, match=r"Shipped: no such weights file; --init takes shipped, imagenet"):
        initial_backbone("resnet18", "Shipped", None, None)
    with pytest.raises(CheckpointError, match="no such weights file"):
        initial_backbone("resnet18", "imagenet", tmp_path / "away.safetensors", None)


def folded_backbone() -> Backbone:
    """As a file of folded weights loads: batch norms of mean 0, variance 1, and scales of their own."""
    torch.manual_seed(0)
    backbone = Backbone("resnet18", ("layer2",))
    with torch.no_grad():
        for layer in backbone.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0, 0.3)
    return backbone


def test_unfolding_keeps_the_function_and_holds_in_train_mode() -> None:
    backbone = folded_backbone()
    images = torch.randn(6, 1, 65, 65) * 2
    with torch.no_grad():
        before = backbone.eval()(images)[0]
        naive = deepcopy(backbone).train()(images)[0]
        unfold_batch_norm(backbone, images)
        after = backbone.eval()(images)[0]
        elsewhere = torch.randn(2, 1, 97, 65) - 3
        torch.testing.assert_close(backbone(elsewhere)[0], folded_backbone().eval()(elsewhere)[0], atol=1e-3, rtol=1e-3)
        trained = deepcopy(backbone).train()(images)[0]
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(trained, before, atol=1e-3, rtol=1e-3)
    assert (naive - before).abs().mean() > 0.1 * before.abs().mean()  # what train mode did without it
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_var.std() > 0


def test_batch_norms_with_statistics_of_their_own_are_left_alone() -> None:
    backbone = folded_backbone()
    with torch.no_grad():
        for layer in backbone.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.fill_(0.1)
    before = deepcopy(backbone)
    unfold_batch_norm(backbone, torch.randn(2, 1, 65, 65))
    assert same(backbone, before)


def test_a_folded_and_unfolded_network_folds_again() -> None:
    backbone = folded_backbone()
    images = torch.randn(4, 1, 65, 65)
    unfold_batch_norm(backbone, images)
    with torch.no_grad():
        expected = backbone(images)[0]
        fuse_batch_norm(backbone)
        torch.testing.assert_close(backbone(images)[0], expected, atol=1e-3, rtol=1e-3)
