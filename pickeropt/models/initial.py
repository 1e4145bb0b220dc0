"""Where a backbone's first weights come from: the package, ImageNet through timm, a file, or nowhere."""

from importlib.resources import as_file, files
from pathlib import Path

import torch
from torch import Tensor, nn

from pickeropt.errors import CheckpointError
from pickeropt.models.backbone import Backbone, deepest_stage, load_backbone_weights
from pickeropt.models.source_head import SourceHead, read_source_head

SHIPPED = "resnet18_v3.safetensors"
"""The backbone inside the package; `models/weights/README.md` says how it was made."""


def initial_backbone(
    name: str,
    init: str,
    weights: Path | None,
    stages: tuple[str, ...] | None,
    *,
    or_shipped: bool = True,
) -> Backbone:
    """A backbone with its first weights.

    init : shipped | imagenet | none | path of a safetensors file
    weights : for imagenet, a safetensors file to use instead of timm's download
    stages : wanted stages; None takes the deepest that the weights hold
    or_shipped : whether the shipped weights would do where ImageNet's cannot be had

    Raises CheckpointError naming the remedy where weights are missing or do not fit.
    """
    if weights is not None and init != "imagenet":
        raise CheckpointError(f"--weights {weights} goes with --init imagenet, not with --init {init}")
    if init == "none":
        return Backbone(name, stages or ("layer4",))
    if init == "imagenet" and weights is None:
        return _from_timm(name, stages or ("layer4",), ", or use --init shipped" if or_shipped else "")
    if init == "shipped":
        if name != "resnet18":
            raise CheckpointError(
                f"--init shipped is a resnet18; use --init imagenet or none with --backbone {name}"
            )
        with as_file(files("pickeropt.models") / "weights" / SHIPPED) as path:
            return _from_file(name, path, stages)
    path = weights if weights is not None else Path(init)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file; --init takes shipped, imagenet, none or a file")
    return _from_file(name, path, stages)


def initial_head(init: str) -> SourceHead | None:
    """The head that a pretraining left beside the backbone; None for imagenet, none, files without one."""
    if init in ("imagenet", "none"):
        return None
    if init == "shipped":
        with as_file(files("pickeropt.models") / "weights" / SHIPPED) as path:
            return read_source_head(path)
    return read_source_head(Path(init))


def shipped_bytes() -> bytes:
    """The weights file inside the package, as it is."""
    return (files("pickeropt.models") / "weights" / SHIPPED).read_bytes()


def _from_file(name: str, path: Path, stages: tuple[str, ...] | None) -> Backbone:
    backbone = Backbone(name, stages or (deepest_stage(path),))
    load_backbone_weights(backbone, path)
    return backbone


def _from_timm(name: str, stages: tuple[str, ...], remedy: str) -> Backbone:
    try:
        return Backbone(name, stages, pretrained=True)
    except CheckpointError:
        raise
    except Exception as error:  # timm and its hub client raise many kinds when the network is not there
        raise CheckpointError(
            f"--init imagenet: timm could not fetch the weights of {name} ({type(error).__name__}: {error}); "
            f"on a machine without a network give a file with --weights{remedy}"
        ) from error


def unfold_batch_norm(backbone: Backbone, images: Tensor) -> None:
    """Give folded batch norms real statistics, measured on images (n, 1, h, w); the function stays the same.

    Weights whose batch norm was folded into the convolutions have mean 0 and variance 1. Training them in
    train mode would throw the scales away, so mean m and variance v of each convolution's output
    on real images become the statistics, weight w sqrt(v + eps), bias b + w m.
    """
    measured: dict[nn.BatchNorm2d, tuple[Tensor, Tensor]] = {}

    def measure(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.BatchNorm2d)
        values = inputs[0].float()
        measured[layer] = values.mean((0, 2, 3)), values.var((0, 2, 3), correction=0)

    folded = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d) and _is_folded(m)]
    hooks = [layer.register_forward_pre_hook(measure) for layer in folded]
    with torch.no_grad():
        backbone.eval()(images)
        for hook in hooks:
            hook.remove()
        for layer, (mean, variance) in measured.items():
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.bias.add_(layer.weight * mean)
            layer.weight.mul_(torch.sqrt(variance + layer.eps))
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(variance)


def _is_folded(layer: nn.BatchNorm2d) -> bool:
    mean, variance = layer.running_mean, layer.running_var
    if mean is None or variance is None:
        return False
    ones = torch.ones_like(variance)
    return bool((mean == 0).all() and torch.allclose(variance + layer.eps, ones, atol=1e-4))
