"""The network of Table 2 of Wagner et al. 2019."""

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional

from pickeropt.errors import CheckpointError
from pickeropt.models.backbone import fuse_batch_norm

LAYERS = (
    (32, 3), (64, 3), (128, 3), (64, 1), (128, 3), (256, 3), (128, 1), (256, 3), (512, 3), (256, 1),
    (512, 3), (256, 1), (512, 3), (1024, 3), (512, 1), (1024, 3), (512, 1), (1024, 3), (1024, 3), (1024, 3),
    (1024, 3),
)  # fmt: skip
"""Filters and side of the kernel of the 21 convolutions of the feature extraction."""

POOLED = (1, 2, 5, 8, 13)
"""Layers, from 1, that a max pooling follows."""

PASSED = 13
"""The layer whose map also goes straight to the last one."""

OUTPUTS = 6
"""x, y, w, h, confidence, class. With one class its probability is 1 whatever the sixth says: not read."""

SLOPE = 0.1


class YoloNetwork(nn.Module):
    """Grey image in, one box a grid cell of 32 x 32 px out.

    width : all filter counts of Table 2 times this, 8 at least

    The pass-through gathers each 2 x 2 cells of layer 13 as four times the channels (space to depth, as
    Redmon & Farhadi 2017) and appends them to the map of layer 20; layer 21 sees both. Table 2 has no
    convolution on that way, so neither have we.
    """

    def __init__(self, width: float = 1.0, dropout: float = 0.2):
        super().__init__()
        filters = [max(8, round(count * width)) for count, _ in LAYERS]
        layers, channels = [], 1
        for number, (count, (_, side)) in enumerate(zip(filters, LAYERS, strict=True), 1):
            if number == len(LAYERS):
                channels += 4 * filters[PASSED - 1]
            layers.append(_layer(channels, count, side))
            channels = count
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)
        self.detection = nn.Conv2d(channels, OUTPUTS, 1)
        nn.init.normal_(self.detection.weight, std=0.01)
        nn.init.zeros_(self.detection.bias)  # type: ignore[arg-type]

    def features(self, x: Tensor) -> Tensor:
        """(b, 1, h, w), h and w multiples of 32, px in units of noise -> (b, c, h/32, w/32)."""
        passed = x
        for number, layer in enumerate(self.layers, 1):
            if number == len(LAYERS):
                x = torch.cat([x, functional.pixel_unshuffle(passed, 2)], dim=1)
            x = layer(x)
            if number == PASSED:
                passed = x
            if number in POOLED:
                x = functional.max_pool2d(x, 2)
        return x

    def detected(self, features: Tensor) -> Tensor:
        """From `features` to (b, 6, h/32, w/32): x, y, w, h, confidence, class before `boxes.decoded`."""
        found: Tensor = self.detection(self.dropout(features.float()))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(b, 1, h, w) -> (b, 6, h/32, w/32) as `detected` has it."""
        return self.detected(self.features(x))


def _layer(channels: int, filters: int, side: int) -> nn.Sequential:
    """Convolution of the same size, batch norm, leaky ReLU."""
    convolution = nn.Conv2d(channels, filters, side, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, a=SLOPE)
    return nn.Sequential(convolution, nn.BatchNorm2d(filters), nn.LeakyReLU(SLOPE, inplace=True))


def inference_network(network: YoloNetwork, device: torch.device, dtype: torch.dtype) -> YoloNetwork:
    """A copy for forward passes: batch norm folded in, features in `dtype`, the detection in float32."""
    copy = deepcopy(network).eval().requires_grad_(False)
    fuse_batch_norm(copy)
    copy.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    copy.layers.to(dtype=dtype)
    return copy


def weights_of(network: YoloNetwork) -> dict[str, Tensor]:
    """What is learnt, float32, by name."""
    state = network.state_dict()
    return {name: value.detach().cpu() for name, value in state.items() if value.is_floating_point()}


def load_weights(network: YoloNetwork, state: Mapping[str, Tensor]) -> None:
    """Put weights in, in place. Raises CheckpointError where they are not of a network of this width."""
    own = weights_of(network)
    if set(own) != set(state):
        raise CheckpointError(
            "these weights are not of a yolo picker; give a file of `pick train --picker yolo`"
        )
    for name, value in own.items():
        if value.shape != state[name].shape:
            given = len(state["layers.19.0.weight"]) / LAYERS[19][0]
            what = (
                f"the weights have the shape {tuple(state[name].shape)} at {name}, not {tuple(value.shape)}"
            )
            raise CheckpointError(f"{what}; set width to theirs, which is about {given:g}")
    network.load_state_dict(dict(state), strict=False)
