"""From views or boxes to one feature vector a pick: passes of the backbone, then pooled windows."""

import torch
from torch import Tensor

from pickeropt.models.backbone import Backbone
from pickeropt.models.orientations import EIGHT, averaged_maps
from pickeropt.models.pooling import integral_image, window_means
from pickeropt.models.spec import ModelSpec

STRIP_PX = 8_000_000
"""View pixels of one forward pass; a larger micrograph passes in strips, so that memory stays bounded."""


def dense_features(
    backbone: Backbone, spec: ModelSpec, view: Tensor, centres: Tensor, view_index: int
) -> Tensor:
    """Features of all picks of one view of a micrograph.

    view : (1, 1, H, W) normalised, H and W of the form 16 k + 1
    centres : (n, 2) float64 y, x in view px
    returns : (n, d) float32, by stage, window, channel
    """
    orientations = EIGHT[: spec.orientations]
    maps = averaged_maps(lambda x: strip_maps(backbone, x), view, orientations)
    diameter = spec.view_diameters[view_index]
    parts = []
    for feature_map, stride in zip(maps, backbone.strides, strict=True):
        level = typical_feature(feature_map)
        table = integral_image(feature_map, level)
        offset = 0.0 if spec.centred else level
        for window in spec.windows:
            parts.append(window_means(table, centres / stride, window * diameter / stride) + offset)
    return torch.cat(parts, 1)


def typical_feature(feature_map: Tensor) -> Tensor:
    """(c, h, w) -> (c,) median over every fourth cell each way: what the micrograph looks like
    where nothing special is, unmoved by a corner of carbon."""
    median: Tensor = feature_map[:, ::4, ::4].flatten(1).to(torch.float32).median(1).values
    return median


def strip_maps(backbone: Backbone, view: Tensor) -> list[Tensor]:
    """Feature maps of one turned view, in strips of rows where it is large; the same but for rounding.

    Strips overlap by what a cell sees on each side, and start on a cell of every stage.
    """
    dtype = next(backbone.parameters()).dtype
    view = view.to(dtype=dtype, memory_format=torch.channels_last)
    height, width = view.shape[-2:]
    cell = backbone.strides[-1]
    halo = -(-backbone.reach // cell) * cell
    step = max(1, (STRIP_PX // width - 2 * halo) // cell) * cell
    if height <= step + 2 * halo:
        whole: list[Tensor] = backbone(view)
        return whole
    strips: list[list[Tensor]] = []
    for top in range(0, height - 1, step):
        start, stop = max(0, top - halo), min(height, top + step + halo + 1)
        maps = backbone(view[:, :, start:stop])
        last = top + step >= height - 1
        strips.append(
            [
                m[:, :, (top - start) // s : None if last else (top - start) // s + step // s]
                for m, s in zip(maps, backbone.strides, strict=True)
            ]
        )
    return [torch.cat(parts, 2) for parts in zip(*strips, strict=True)]


def box_features(backbone: Backbone, spec: ModelSpec, boxes: Tensor, view_index: int) -> Tensor:
    """Features of boxes with the pick in their centre; differentiable.

    boxes : (n, 1, s, s) normalised
    returns : (n, d) by stage, window, channel; with no windows the mean over the whole box (GAP)
    """
    diameter = spec.view_diameters[view_index]
    turned_sum: Tensor | None = None
    for turns, mirror in EIGHT[: spec.orientations]:
        x = torch.rot90(boxes, turns, (-2, -1))
        maps = backbone((x.flip(-1) if mirror else x).contiguous(memory_format=torch.channels_last))
        pooled = torch.cat(
            [_pool_centre(m, spec, diameter / s) for m, s in zip(maps, backbone.strides, strict=True)], 1
        )
        turned_sum = pooled if turned_sum is None else turned_sum + pooled
    assert turned_sum is not None
    return turned_sum / spec.orientations


def _pool_centre(maps: Tensor, spec: ModelSpec, diameter_cells: float) -> Tensor:
    """Centred square windows are the same in every orientation, so maps need not be turned back."""
    maps = maps.to(torch.float32)
    if not spec.windows:
        return maps.mean((2, 3))
    parts = []
    for window in spec.windows:
        rows = _window_weights(maps.shape[2], window * diameter_cells, maps.device)
        columns = _window_weights(maps.shape[3], window * diameter_cells, maps.device)
        parts.append(torch.einsum("nchw,h,w->nc", maps, rows, columns))
    return torch.cat(parts, 1)


def _window_weights(cells: int, side: float, device: torch.device) -> Tensor:
    """(cells,) share of each cell in a window of `side` cells around the middle; sums to 1."""
    edges = torch.arange(cells + 1, dtype=torch.float64, device=device)
    low, high = max(0.0, (cells - side) / 2), min(float(cells), (cells + side) / 2)
    covered = (edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0)
    return (covered / covered.sum()).to(torch.float32)
