"""Means over square windows of feature maps, at any position and any size, through integral images.

A window costs the same whatever its size, so windows of several sizes around thousands of picks
cost less than one convolution. Windows reach over fractions of cells, and are cut at the map's edge.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PRECISE_CELLS = 330 * 330
"""Cells of a map beyond which sums are kept in float64."""


def integral_image(maps: Tensor, level: Tensor | None = None) -> Tensor:
    """(c, h, w) -> (h + 1, w + 1, c), the sum of all cells above and to the left.

    level : (c,) what is taken off every cell of a channel first

    float32, in which means of a few cells stay within about 0.001 where values scatter around 0;
    float64 for maps of more than `PRECISE_CELLS`, whose sums grow too long for that. Differentiable.
    """
    channels, height, width = maps.shape
    dtype = torch.float64 if height * width > PRECISE_CELLS else torch.float32
    if maps.device.type == "cpu" and not maps.requires_grad:
        table = torch.empty(height + 1, width + 1, channels, dtype=dtype)
        table[0] = 0
        table[:, 0] = 0
        cells = table[1:, 1:]
        cells.copy_(maps.permute(1, 2, 0))
        if level is not None:
            cells.sub_(level)
        _accumulate(table.numpy())
        return table
    table = torch.zeros(height + 1, width + 1, channels, device=maps.device, dtype=dtype)
    cells = maps.permute(1, 2, 0).to(dtype)
    table[1:, 1:] = (cells if level is None else cells - level).cumsum(0).cumsum(1)
    return table


def _accumulate(table: NDArray[np.floating[Any]]) -> None:
    """Running sums along both axes, in place: whole rows at a time, three times as fast as cumsum."""
    for row in range(2, table.shape[0]):
        table[row] += table[row - 1]
    for column in range(2, table.shape[1]):
        table[:, column] += table[:, column - 1]


def window_means(table: Tensor, centres: Tensor, side: float) -> Tensor:
    """Mean feature over a square window around each centre.

    table : (h + 1, w + 1, c), of `integral_image`
    centres : (n, 2) y, x in cells, cell centres being whole numbers
    side : side of the window in cells
    returns : (n, c) float32
    """
    limits = torch.tensor([table.shape[0] - 1, table.shape[1] - 1], dtype=torch.float64, device=table.device)
    # a centre off the map takes the window at the nearest edge: a pick is scored, never dropped
    centres = torch.minimum((centres.to(torch.float64) + 0.5).clamp(min=0.5), limits - 0.5)
    low = (centres - side / 2).clamp(min=0)
    high = torch.minimum(centres + side / 2, limits)
    total = (
        _at(table, high[:, 0], high[:, 1])
        - _at(table, low[:, 0], high[:, 1])
        - _at(table, high[:, 0], low[:, 1])
        + _at(table, low[:, 0], low[:, 1])
    )
    area = (high - low).prod(1)
    return (total / area[:, None].to(table.dtype)).to(torch.float32)


def _at(table: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The table at fractional positions, by bilinear interpolation: (n, c)."""
    height, width, _ = table.shape
    top, left = y.floor().clamp(max=height - 2).long(), x.floor().clamp(max=width - 2).long()
    fy, fx = (y - top).to(table.dtype)[:, None], (x - left).to(table.dtype)[:, None]
    upper = table[top, left] * (1 - fx) + table[top, left + 1] * fx
    lower = table[top + 1, left] * (1 - fx) + table[top + 1, left + 1] * fx
    return upper * (1 - fy) + lower * fy
