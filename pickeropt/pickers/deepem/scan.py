"""Recognition: the network's scores of all windows of a raster, in one pass of convolutions.

The same numbers as a window cut at each position, turned four ways and given to the network, but what
windows share is computed once:

- Turning a window and turning the kernels of all layers is the same, because every pool divides its input
  without rest. So the micrograph stays as it is and four sets of kernels pass over it.
- Windows start at multiples of the step. As long as a pool divides the step, one pooling of the whole
  map serves all windows. Where it does not (a pool of 3 and a step of 20), the map is pooled once for each
  shift of the pool that some window needs, and each such map goes on as one of a batch.
- The last pool and the output are one linear function of the last convolution's map: a convolution with
  the output's weights spread over the pool, at the stride of the step.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pickeropt.pickers.deepem.network import DeepEMNetwork

BAND_PX = 2**21
"""Pixels of a band of rows that pass at once: bounds memory at about 0.5 GB."""


@torch.inference_mode()
def scan(network: DeepEMNetwork, view: Tensor, step: int) -> Tensor:
    """Mean score over four turns of the windows at every `step` px.

    view : (1, 1, H, W), at least a box each way
    returns : (rows, columns) float32 on the CPU; the window of cell (i, j) starts at view pixel
        (i * step, j * step), and all windows lie inside the view
    """
    box = network.geometry.box
    height, width = view.shape[-2:]
    rows = (height - box) // step + 1
    band = max(1, (BAND_PX // width - box) // step + 1, (2 * box) // step)
    scores = []
    for top in range(0, rows, band):
        count = min(band, rows - top)
        part = view[:, :, top * step : (top + count - 1) * step + box]
        turns = [_pass(network, part, step, quarter).sigmoid() for quarter in range(4)]
        scores.append(torch.stack(turns).mean(dim=0).cpu())
    return torch.cat(scores).float()


def _pass(network: DeepEMNetwork, view: Tensor, step: int, quarter: int) -> Tensor:
    """Logits (rows, columns) of all windows turned by `quarter` times 90°."""
    box = network.geometry.box
    shape = [(side - box) // step + 1 for side in view.shape[-2:]]
    # phases: first window and stride among the windows, of each map in the batch, along either axis
    maps, phases = view, [(0, 1)]
    for convolution, pool in zip(network.convolutions[:2], network.geometry.pools[:2], strict=True):
        maps = _convolved(convolution, maps, quarter)
        maps, phases, step = _pooled(maps, phases, step, pool)
    last = network.convolutions[2]
    maps = _convolved(last, maps, quarter)
    logits = functional.conv2d(maps, _head(network, quarter), network.output.bias, stride=step)
    result = logits.new_empty(shape)
    for index, (down, across) in enumerate((d, a) for d in phases for a in phases):
        place = result[down[0] :: down[1], across[0] :: across[1]]
        place.copy_(logits[index, 0, : place.shape[0], : place.shape[1]])
    return result


def _convolved(convolution: nn.Module, maps: Tensor, quarter: int) -> Tensor:
    assert isinstance(convolution, nn.Conv2d)
    kernel = torch.rot90(convolution.weight, -quarter, (2, 3)).contiguous()
    return functional.conv2d(maps, kernel, convolution.bias).sigmoid_()


def _pooled(
    maps: Tensor, phases: list[tuple[int, int]], step: int, pool: int
) -> tuple[Tensor, list[tuple[int, int]], int]:
    """The maps pooled for every shift of the pool that a window needs, the new phases, and the new step.

    Window n of a phase starts at n * step, which lies `(n * step) % pool` px into a pool. Those with the same
    remainder, every `turns`-th, share one pooled map.
    """
    turns = pool // math.gcd(step, pool)
    if turns == 1:
        return functional.avg_pool2d(maps, pool), phases, step // pool
    starts = [first * step for first in range(turns)]
    shifted = functional.pad(maps, (0, starts[-1], 0, starts[-1]))
    height, width = maps.shape[-2:]
    pooled = [
        functional.avg_pool2d(shifted[:, :, y : y + height, x : x + width], pool)
        for y in starts
        for x in starts
    ]
    return _in_order(pooled, len(phases), turns), _split(phases, turns), turns * step // pool


def _in_order(pooled: list[Tensor], before: int, turns: int) -> Tensor:
    """The batches of all shifts as one, rows of phases before columns: (d, turn, a, turn)."""
    stacked = torch.stack(pooled)
    shape = stacked.shape[2:]
    by_phase = stacked.reshape(turns, turns, before, before, *shape)
    return by_phase.permute(2, 0, 3, 1, 4, 5, 6).reshape(-1, *shape)


def _split(phases: list[tuple[int, int]], turns: int) -> list[tuple[int, int]]:
    return [(first + turn * stride, stride * turns) for first, stride in phases for turn in range(turns)]


def _head(network: DeepEMNetwork, quarter: int) -> Tensor:
    """(1, maps, side, side): last pool and output as one kernel over the last convolution's map."""
    pool = network.geometry.pools[2]
    *_, side = network.geometry.sides()
    weights = network.output.weight.view(1, -1, side, side)
    spread = weights.repeat_interleave(pool, 2).repeat_interleave(pool, 3) / pool**2
    return torch.rot90(spread, -quarter, (2, 3)).contiguous()
