"""The feature extractor: a timm ResNet on grey micrographs, cut after the last stage that is used.

timm stays behind this file.
"""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pickeropt.errors import CheckpointError
from pickeropt.models.stem import band_stem

STAGES = ("layer1", "layer2", "layer3", "layer4")

PLAIN = re.compile(r"(wide_)?resnet\d+(_2)?")
"""Names of the ResNets as published. The others (stems of three layers, average pooling in the shortcut,
activation inside the norm) have cells off centre, or change when batch norm is folded in."""


class Backbone(nn.Module):
    """Residual stages of a timm ResNet, grey in, one feature map a stage out.

    name : a plain ResNet of timm, e.g. ``resnet18``, ``resnet50``, ``wide_resnet50_2``
    stages : stages whose maps are returned, of ``layer1`` … ``layer4``, in order; nothing
        behind the last one is built
    pretrained : fetch timm's ImageNet weights through timm (needs a network or timm's cache)

    forward : (b, 1, h, w) float, in units of the micrograph's noise -> one (b, c, h/s, w/s)
    a stage, with strides s = 4, 8, 16, 32. For h, w of the form 32 k + 1 (16 k + 1 up to
    layer3) cell i of a map is centred on pixel i * s exactly, whichever way the image is turned.
    """

    def __init__(
        self, name: str = "resnet18", stages: tuple[str, ...] = ("layer3",), *, pretrained: bool = False
    ):
        super().__init__()
        if not PLAIN.fullmatch(name) or name not in timm.list_models("*resnet*"):
            raise CheckpointError(
                f"backbone {name!r} is not a plain ResNet of timm; `resnet18` and `resnet50` are two"
            )
        self.name, self.stages = name, stages
        indices = tuple(STAGES.index(stage) + 1 for stage in stages)
        self.body = timm.create_model(
            name, pretrained=pretrained, features_only=True, in_chans=1, out_indices=indices
        )
        information: Any = self.body.feature_info
        self.channels: tuple[int, ...] = tuple(information.channels())
        self.strides: tuple[int, ...] = tuple(information.reduction())
        self.reach = _reach(self.body)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.body(x)
        return maps


def _reach(body: nn.Module) -> int:
    """Pixels that a cell of the last map sees on each side, at most: half the receptive field."""
    reach = 7 // 2 + 3 // 2 * 2  # the first convolution, and the pooling at stride 2
    for index, stage in enumerate(STAGES):
        layers = [m for n, m in body.named_modules() if n.startswith(stage) and isinstance(m, nn.Conv2d)]
        reach += 4 * 2**index * sum(layer.kernel_size[0] // 2 for layer in layers)
    return reach


def load_backbone_weights(backbone: Backbone, path: Path) -> None:
    """Fill `backbone` from a safetensors file with torchvision's or timm's ResNet names.

    A three-channel first convolution is summed to grey. Heads are passed over.

    Raises CheckpointError where the file is no safetensors file, or lacks a layer the
    backbone needs, or has it in another shape.
    """
    try:
        weights = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    wanted = backbone.body.state_dict()
    found: dict[str, Tensor] = {}
    for name, target in wanted.items():
        if name.endswith("num_batches_tracked"):
            found[name] = target
            continue
        value = weights.get(name, weights.get(f"backbone.{name}"))
        if value is None:
            raise CheckpointError(
                f"{path}: no weights {name!r}, which {backbone.name} up to {backbone.stages[-1]} needs; "
                "give a file with that stage, or use fewer stages"
            )
        if name == "conv1.weight" and value.ndim == 4 and value.shape[1] == 3:
            value = value.sum(1, keepdim=True)
        if value.shape != target.shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(value.shape)}, {backbone.name} needs {tuple(target.shape)}"
            )
        found[name] = value.to(target.dtype)
    backbone.body.load_state_dict(found)


def deepest_stage(path: Path) -> str:
    """The last ResNet stage that a weights file holds in whole (by its second convolution)."""
    try:
        names = load_file(str(path)).keys()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    held = [stage for stage in STAGES if any(name.endswith(f"{stage}.0.conv2.weight") for name in names)]
    if not held:
        raise CheckpointError(f"{path}: holds no ResNet stage")
    return held[-1]


def fuse_batch_norm(module: nn.Module) -> None:
    """Fold each batch norm that follows a convolution into it, in place: the same function."""
    previous: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and previous is not None and isinstance(previous[1], nn.Conv2d):
            setattr(module, previous[0], fuse_conv_bn_eval(previous[1], child))
            setattr(module, name, nn.Identity())
        fuse_batch_norm(child)
        previous = (name, child)


def inference_copy(backbone: Backbone, device: torch.device, dtype: torch.dtype) -> Backbone:
    """A copy ready for forward passes: batch norm folded in, on `device`, in `dtype`, channels last.

    On a CPU its stem passes in bands of rows.
    """
    copy = deepcopy(backbone).eval().requires_grad_(False)
    fuse_batch_norm(copy)
    if device.type == "cpu":
        band_stem(copy.body)
    return copy.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
