"""The backbone: torchvision's ResNets as the reference, weights files, folded batch norm."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from pickeropt.errors import CheckpointError
from pickeropt.models.backbone import Backbone, deepest_stage, fuse_batch_norm, inference_copy, load_backbone_weights

CPU = torch.device("cpu")


def shake(model: nn.Module, seed: int = 0) -> None:
    """Batch norms that do something: random statistics, scales and shifts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.2, generator=generator)
                layer.running_var.uniform_(0.5, 2.0, generator=generator)
                layer.weight.uniform_(0.5, 1.5, generator=generator)
                layer.bias.normal_(0, 0.2, generator=generator)


def torchvision_maps(model: nn.Module, grey: Tensor, stages: tuple[str, ...]) -> list[Tensor]:
    """torchvision's network on the grey image in all three channels."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(grey.repeat(1, 3, 1, 1)))))
    maps = {}
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        x = maps[stage] = getattr(model, stage)(x)
    return [maps[stage] for stage in stages]


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None)
    shake(model)
    return model.eval()


@pytest.fixture
def weights(resnet18: nn.Module, tmp_path: Path) -> Callable[..., Path]:
    """A file of resnet18's weights as `change` leaves them."""

    def write(change: Callable[[dict[str, Tensor]], None] = lambda state: None) -> Path:
        state = {name: value.clone() for name, value in resnet18.state_dict().items()}
        change(state)
        save_file(state, str(tmp_path / "weights.safetensors"))
        return tmp_path / "weights.safetensors"

    return write


@pytest.mark.parametrize("stages", [("layer3",), ("layer2", "layer3"), ("layer1", "layer4")])
def test_three_channel_weights_see_grey_as_torchvision_does(resnet18, weights, stages) -> None:
    backbone = Backbone("resnet18", stages)
    load_backbone_weights(backbone, weights())
    image = torch.randn(2, 1, 65, 97, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, expected = backbone.eval()(image), torchvision_maps(resnet18, image, stages)
    assert backbone.channels == tuple(m.shape[1] for m in expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_one_channel_weights_and_prefixed_names(resnet18, weights, tmp_path) -> None:
    first = Backbone("resnet18", ("layer2",))
    load_backbone_weights(first, weights())
    save_file({f"backbone.{n}": v for n, v in first.body.state_dict().items()}, str(tmp_path / "b.st"))
    second = Backbone("resnet18", ("layer2",))
    load_backbone_weights(second, tmp_path / "b.st")
    assert all(torch.equal(v, second.body.state_dict()[n]) for n, v in first.body.state_dict().items())
    assert first.body.state_dict()["conv1.weight"].shape == (64, 1, 7, 7)


def test_stages_strides_and_cells() -> None:
    backbone = Backbone("resnet18", ("layer1", "layer2", "layer3", "layer4"))
    assert backbone.strides == (4, 8, 16, 32)
    assert backbone.channels == (64, 128, 256, 512)
    assert [m.shape[2:] for m in backbone(torch.zeros(2, 1, 97, 129))] == [(25, 33), (13, 17), (7, 9), (4, 5)]
    assert not any(n.startswith("layer3") for n, _ in Backbone("resnet18", ("layer2",)).body.named_modules())


def receptive_radius(backbone: Backbone, side: int) -> int:
    """How far from a cell's pixel its gradient reaches, measured; weights are made positive."""
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.abs_().add_(0.01)
    image = torch.ones(1, 1, side, 33, requires_grad=True)
    maps = backbone.double().eval()(image.double())[-1]
    cell = maps.shape[2] // 2
    maps[0, 0, cell].sum().backward()
    rows = image.grad[0, 0].abs().sum(1).nonzero()[:, 0] - cell * backbone.strides[-1]
    return int(rows.abs().max())


@pytest.mark.parametrize(
    ("name", "stage", "radius"),
    [("resnet18", "layer2", 49), ("resnet18", "layer3", 105), ("resnet50", "layer3", 133)],
)
def test_reach_covers_the_receptive_field(name: str, stage: str, radius: int) -> None:
    """resnet18 sees 99 px at layer2 and 211 at layer3, resnet50 267: sums of (k - 1) x stride."""
    backbone = Backbone(name, (stage,))
    measured = receptive_radius(backbone, 321)
    assert measured == radius
    assert measured <= backbone.reach < measured + 16


@pytest.mark.parametrize(
    "name",
    [
        "vgg16",
        "resnet19",
        "../resnet18",
        "resnet18d",
        "resnetv2_50",
        "cspresnet50",
        "skresnet18",
        "inception_resnet_v2",
        "",
    ],
)
def test_what_is_no_plain_resnet(name: str) -> None:
    with pytest.raises(CheckpointError, match="not a plain ResNet of timm; `resnet18`"):
        Backbone(name)


def test_a_weight_that_is_not_there(weights) -> None:
    path = weights(lambda state: state.pop("layer3.1.bn2.weight"))
    load_backbone_weights(Backbone("resnet18", ("layer2",)), path)
    with pytest.raises(CheckpointError, match=r"no weights 'layer3.1.bn2.weight', .* up to layer3 needs; give"):
        load_backbone_weights(Backbone("resnet18", ("layer2", "layer3")), path)


@pytest.mark.parametrize("shape", [(64, 2, 7, 7), (64,), (32, 3, 7, 7)])
def test_a_weight_of_another_shape(weights, shape: tuple[int, ...]) -> None:
    path = weights(lambda state: state.update({"conv1.weight": torch.zeros(shape)}))
    with pytest.raises(CheckpointError, match=r"conv1.weight has shape .*, resnet18 needs \(64, 1, 7, 7\)"):
        load_backbone_weights(Backbone("resnet18", ("layer2",)), path)


def test_weights_of_another_network(weights) -> None:
    with pytest.raises(CheckpointError, match="resnet50 needs"):
        load_backbone_weights(Backbone("resnet50", ("layer2",)), weights())


def test_files_that_are_no_safetensors(weights, tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "a.pth")
    whole = weights().read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.safetensors").touch()
    for name in ("a.pth", "cut.safetensors", "empty.safetensors", "missing.safetensors", "."):
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            load_backbone_weights(Backbone("resnet18", ("layer1",)), tmp_path / name)
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            deepest_stage(tmp_path / name)


def test_the_deepest_stage_of_a_file(weights) -> None:
    assert deepest_stage(weights()) == "layer4"

    def cut(state: dict[str, Tensor]) -> None:
        for name in [n for n in state if n.startswith(("layer3", "layer4"))]:
            del state[name]

    assert deepest_stage(weights(cut)) == "layer2"
    with pytest.raises(CheckpointError, match="holds no ResNet stage"):
        deepest_stage(weights(lambda state: [state.pop(n) for n in list(state) if n.startswith("layer")]))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2"])
def test_folding_batch_norm_keeps_the_function(name: str) -> None:
    torch.manual_seed(0)
    backbone = Backbone(name, ("layer1", "layer2")).eval()
    shake(backbone)
    fused = deepcopy(backbone)
    fuse_batch_norm(fused)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in fused.modules())
    image = torch.randn(1, 1, 65, 65)
    with torch.inference_mode():
        for a, b in zip(backbone(image), fused(image), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4 * float(a.abs().max()), rtol=0)


def test_a_copy_for_inference_leaves_the_original_alone() -> None:
    torch.manual_seed(0)
    backbone = Backbone("resnet18", ("layer2",))
    shake(backbone)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    copy = inference_copy(backbone, CPU, torch.bfloat16)
    assert all(torch.equal(v, before[n]) for n, v in backbone.state_dict().items())
    assert backbone.training
    assert not copy.training
    assert {p.dtype for p in copy.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in copy.parameters())
    image = torch.randn(1, 1, 65, 65)
    with torch.inference_mode():
        exact, rough = backbone.eval()(image)[0], copy(image.bfloat16())[0].float()
    assert 0 < (exact - rough).abs().mean() < 0.02 * exact.abs().mean()
