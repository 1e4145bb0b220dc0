"""Boxes: from labels to the grid, from the network's output to boxes, IoU, which boxes are one.

Everything here is in px of the network's image, counted from the outer edge of its first pixel, so that
cell (row, column) covers [32 column, 32 column + 32) x [32 row, 32 row + 32).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import nms

from pickeropt.pickers.yolo.settings import STRIDE

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
