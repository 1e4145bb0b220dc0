"""The backbone: a timm ResNet on grey micrographs, its initial weights, and its stem for CPUs.

Only `models` imports timm. The network is cut behind the last stage that is used. Its weights come from the
package, from ImageNet through timm, from a file, or are random.

On CPUs the stem runs in bands of rows. Its map is the largest of the network (64 channels at stride 2: 180 MB
for a 2400 px view in bfloat16), and moving it to memory and back takes most of the time. A band stays in the
processor's cache, and only the pooled quarter leaves it.
"""

import re
from copy import deepcopy
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pickeropt.errors import CheckpointError
from pickeropt.models.source_head import SourceHead, read_source_head

BAND_ROWS = 32
"""Pooled rows at a time."""


class BandedStem(nn.Module):
    """Convolution at stride 2, ReLU and 3 x 3 max pooling at stride 2: the same numbers in half the time.

    forward : (n, 1, h, w) -> (n, c, h/4, w/4) as the plain layers round it, channels last; without gradients
    """

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        kernel, padding = self.convolution.kernel_size[0], _padding(self.convolution)
        height, width = ((side + 2 * padding - kernel) // 2 + 1 for side in x.shape[-2:])
        padded = functional.pad(x, (padding, padding, padding, padding))
        shape = (len(x), self.convolution.out_channels, (height - 1) // 2 + 1, (width - 1) // 2 + 1)
        pooled = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        for top in range(0, shape[2], BAND_ROWS):
            band = pooled[:, :, top : top + BAND_ROWS]
            first, last = max(0, 2 * top - 1), min(height, 2 * (top + band.shape[2]))
            rows = functional.conv2d(
                padded[:, :, 2 * first : 2 * (last - 1) + kernel],
                self.convolution.weight,
                self.convolution.bias,
                stride=2,
            )
            _pool(_pool(rows, 2, 2 * top - first, band.shape[2]), 3, 0, shape[3], out=band)
        return pooled.relu_()


def _pool(x: Tensor, axis: int, first: int, count: int, out: Tensor | None = None) -> Tensor:
    """The largest of three neighbours along an axis, around index first, first + 2, ...; fewer at the edges.

    `first` is 0 where there is nothing above the first, else 1.
    """
    centres = _every_other(x, axis, first)
    after = _every_other(x, axis, first + 1)
    if out is None:
        out = torch.empty_like(centres, memory_format=torch.channels_last)
    both = after.shape[axis]
    torch.maximum(centres.narrow(axis, 0, both), after, out=out.narrow(axis, 0, both))
    if both < count:
        out.narrow(axis, both, 1).copy_(centres.narrow(axis, both, 1))
    before = _every_other(x, axis, 0) if first else after
    start = 0 if first else 1
    later = out.narrow(axis, start, count - start)
    torch.maximum(later, before.narrow(axis, 0, count - start), out=later)
    return out


def _every_other(x: Tensor, axis: int, first: int) -> Tensor:
    return x[:, :, first::2] if axis == 2 else x[..., first::2]


def _padding(convolution: nn.Conv2d) -> int:
    padding = convolution.padding[0]
    assert isinstance(padding, int)
    return padding


def band_stem(body: nn.Module) -> None:
    """Let a banded stem stand for `conv1`, `act1` and `maxpool` of a ResNet with its batch norm folded in."""
    convolution = body.get_submodule("conv1")
    assert isinstance(convolution, nn.Conv2d)
    body.set_submodule("conv1", BandedStem(convolution))
    for name in ("act1", "maxpool"):
        body.set_submodule(name, nn.Identity())


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

    def __init__(self, name: str = "resnet18", stages: tuple[str, ...] = ("layer3",), *, pretrained: bool = False):
        super().__init__()
        if not PLAIN.fullmatch(name) or name not in timm.list_models("*resnet*"):
            raise CheckpointError(f"backbone {name!r} is not a plain ResNet of timm; `resnet18` and `resnet50` are two")
        self.name, self.stages = name, stages
        indices = tuple(STAGES.index(stage) + 1 for stage in stages)
        self.body = timm.create_model(name, pretrained=pretrained, features_only=True, in_chans=1, out_indices=indices)
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
            raise CheckpointError(f"--init shipped is a resnet18; use --init imagenet or none with --backbone {name}")
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
