"""The YOLO network of Table 2 of Wagner et al. 2019: its settings, its boxes and its loss.

Boxes are in px of the network's image, measured from the outer edge of its first pixel: cell (row, column)
covers [32 column, 32 column + 32) x [32 row, 32 row + 32).
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import nms

from pickeropt.errors import CheckpointError, PickeroptError
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
        raise CheckpointError("these weights are not of a yolo picker; give a file of `pick train --picker yolo`")
    for name, value in own.items():
        if value.shape != state[name].shape:
            given = len(state["layers.19.0.weight"]) / LAYERS[19][0]
            what = f"the weights have the shape {tuple(state[name].shape)} at {name}, not {tuple(value.shape)}"
            raise CheckpointError(f"{what}; set width to theirs, which is about {given:g}")
    network.load_state_dict(dict(state), strict=False)


STRIDE = 32
"""Pixels a grid cell: five max poolings."""


@dataclass(frozen=True)
class YoloSettings:
    """The paper's values where it has one (Wagner et al. 2019, Methods, Table 2), else ours, marked so.

    width : filters of every layer but the detection's, 1 for those of Table 2; ours
    input_size : side of the image that the network sees, px, a multiple of 32
    patches : overlapping patches along the micrograph's longer side; 0 takes the fewest for which two
        particles that touch cannot share a grid cell; ours
    overlap : of patches, in particle diameters; ours
    low_pass : where a Gaussian filter falls to exp(-1/2), cycles/px of the micrograph, 0 for none; the
        paper has "preprocessing procedures" only
    box_diameters : side of the training boxes in particle diameters; ours
    epochs : how often each patch is seen; batch_size : patches; learning_rate : Adam's; ours
    dropout : share of the last feature map's entries set to 0 in training
    coordinate_weight, object_weight, no_object_weight : of the loss; ours
    augmented : chance of each of the six augmentations; ours
    merged : two boxes of greater IoU are one particle; ours
    particle_px : diameter of the particle in the network's image, px; 0 lets training fix it by the patches
    anchor : side of the reference box in grid cells; 0 until training has fixed it
    """

    width: float = 1.0
    input_size: int = 1024
    patches: int = 0
    overlap: float = 1.0
    low_pass: float = 0.1
    box_diameters: float = 1.0
    epochs: int = 100
    batch_size: int = 4
    learning_rate: float = 1e-3
    dropout: float = 0.2
    coordinate_weight: float = 5.0
    object_weight: float = 5.0
    no_object_weight: float = 1.0
    augmented: float = 0.5
    merged: float = 0.4
    particle_px: float = 0.0
    anchor: float = 0.0

    def __post_init__(self) -> None:
        """Raise PickeroptError for a value out of range."""
        least = {"width": 0.0, "box_diameters": 0.0, "learning_rate": 0.0, "input_size": 0, "epochs": 0}
        for name, bound in {**least, "batch_size": 0}.items():
            _check(name, getattr(self, name), getattr(self, name) > bound, "a number above 0")
        _check("input_size", self.input_size, self.input_size % STRIDE == 0, "a multiple of 32, such as 1024")
        _check("patches", self.patches, self.patches >= 0, "1, 2 or 3, or 0 to choose by the particle's size")
        for name in ("overlap", "low_pass", "coordinate_weight", "object_weight", "no_object_weight"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "a number of 0 or more")
        for name in ("dropout", "augmented", "merged"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "a number between 0 and 1")

    def fixed(self, particle_px: float, anchor: float) -> "YoloSettings":
        """The same with what training fixes."""
        return replace(self, particle_px=particle_px, anchor=anchor)


def read_settings(stored: Mapping[str, Any]) -> YoloSettings:
    """The settings of a trained picker. Raises CheckpointError where they are not such."""
    known = {field.name for field in fields(YoloSettings)}
    if set(stored) != known:
        odd = ", ".join(sorted(set(stored) ^ known))
        raise CheckpointError(f"settings of a yolo picker with {odd} missing or unknown; train the picker anew")
    settings = YoloSettings(**stored)
    if not (settings.particle_px > 0 and settings.anchor > 0):
        raise CheckpointError("a yolo picker without the size of its particle; train the picker anew")
    return settings


def _check(name: str, value: float, sound: bool, remedy: str) -> None:
    if not sound:
        raise PickeroptError(f"{name} is {value:g}; give {remedy}")


Boxes = NDArray[np.float64]
"""(n, 4): x and y of the centre, width, height."""

LARGEST = 4.0
"""exp(+-this) is how far a box may be from the reference box."""


def targets(boxes: Boxes, rows: int, columns: int) -> NDArray[np.float32]:
    """What the grid should say of one image.

    boxes : particles, also such whose centre is outside
    returns : (5, rows, columns): 1 where a particle's centre is in the cell, its x and y from the cell's
        corner, its width and height, all in cells; 0 elsewhere

    A cell holds one particle: of several the one nearest to the cell's middle.
    """
    grid = np.zeros((5, rows, columns), dtype=np.float32)
    cells = boxes / STRIDE
    at = np.floor(cells[:, :2]).astype(np.int64)
    inside = ((at >= 0) & (at < [columns, rows])).all(axis=1)
    cells, at = cells[inside], at[inside]
    offset = cells[:, :2] - at
    far_first = np.argsort(-np.square(offset - 0.5).sum(axis=1), kind="stable")
    for i in far_first:
        grid[:, at[i, 1], at[i, 0]] = (1.0, *offset[i], *cells[i, 2:])
    return grid


def decoded(output: Tensor, anchor: float) -> Tensor:
    """What the network's output means (Redmon & Farhadi 2017, section 2).

    output : (b, 6, rows, columns); anchor : side of the reference box in cells
    returns : (b, 5, rows, columns): confidence 0 to 1, x and y from the cell's corner 0 to 1, width and
        height, all in cells
    """
    sides = anchor * output[:, 2:4].clamp(-LARGEST, LARGEST).exp()
    return torch.cat([output[:, 4:5].sigmoid(), output[:, :2].sigmoid(), sides], dim=1)


def boxes_of(grid: NDArray[np.float32]) -> tuple[Boxes, NDArray[np.float64]]:
    """The boxes of one decoded grid, (5, rows, columns), row by row, and their confidences, (n,)."""
    confidence, x, y, width, height = grid.astype(np.float64)
    row, column = np.indices(confidence.shape)
    boxes = np.stack([x + column, y + row, width, height], axis=-1) * STRIDE
    return boxes.reshape(-1, 4), confidence.reshape(-1)


def iou(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Area of intersection over area of union of each pair, (n, 4) and (m, 4) -> (n, m)."""
    low = np.maximum(*(b[..., :2] - b[..., 2:] / 2 for b in (first[:, None], second[None])))
    high = np.minimum(*(b[..., :2] + b[..., 2:] / 2 for b in (first[:, None], second[None])))
    shared = np.clip(high - low, 0.0, None).prod(axis=-1)
    union = first[:, None, 2:].prod(axis=-1) + second[None, :, 2:].prod(axis=-1) - shared
    found: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return found


def apart(boxes: Boxes, scores: NDArray[np.float64], merged: float) -> NDArray[np.int64]:
    """Rows of the boxes that stay, best first: each box of IoU above `merged` with a better one goes."""
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    order = np.argsort(-scores, kind="stable")
    falling = torch.arange(len(order), 0, -1, dtype=torch.float64)  # equal scores: the first stays
    kept: NDArray[np.int64] = nms(torch.from_numpy(corners[order]), falling, merged).numpy()
    return order[kept]


def matched(boxes: Boxes, truth: Boxes, least: float) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which boxes, best first, are true, and their IoU with their particle (0 for those that are not).

    Each takes the particle of the greatest IoU above `least` that no better one took.
    """
    overlap = iou(boxes, truth)
    true, shared = np.zeros(len(boxes), dtype=np.bool_), np.zeros(len(boxes))
    for row in np.flatnonzero((overlap > least).any(axis=1)) if len(truth) else ():
        best = int(np.argmax(overlap[row]))
        if overlap[row, best] > least:
            true[row], shared[row] = True, overlap[row, best]
            overlap[:, best] = 0.0
    return true, shared


def yolo_loss(found: Tensor, target: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """Squared errors summed over the cells of an image, mean over images.

    found : (b, 5, rows, columns) of `boxes.decoded`: confidence, x, y, width, height
    target : (b, 5, rows, columns) of `boxes.targets`
    weights : of the places and sizes of boxes where a particle is, of the confidence there, which should
        be 1, and of the confidence where no particle is, which should be 0

    As in Redmon et al. 2016 (equation 3) the square roots of width and height are compared.
    """
    at_coordinates, at_object, at_none = weights
    is_object = target[:, :1]
    place = is_object * (found[:, 1:3] - target[:, 1:3]).square()
    size = is_object * (found[:, 3:5].sqrt() - target[:, 3:5].sqrt()).square()
    confidence = is_object * (1.0 - found[:, :1]).square()
    background = (1.0 - is_object) * found[:, :1].square()
    terms = at_coordinates * (place.sum() + size.sum()) + at_object * confidence.sum()
    total: Tensor = (terms + at_none * background.sum()) / torch.tensor(float(len(found)))
    return total
