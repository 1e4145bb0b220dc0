"""Features of picks: dense passes of the backbone over views or boxes, then means over windows around each pick.

Fine-tuning and pruning compute features by this one path, so the classifier sees at inference what it was fitted to.

Maps are averaged over the eight orientations of the square grid. Windows are means through an integral image: a
window costs the same whatever its size, so windows of several sizes around thousands of picks cost less than one
convolution. Windows may cover fractions of cells, and are cut at the edge of the map.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pickeropt.errors import GeometryError
from pickeropt.models.backbone import Backbone
from pickeropt.models.head import ModelSpec
from pickeropt.models.views import cut_boxes, cut_normalised_boxes, fit_box, make_view
from pickeropt.records import FloatArray

EIGHT = ((0, False), (2, True), (1, False), (3, True), (2, False), (0, True), (3, False), (1, True))
"""(quarter turns, mirrored), the plain one first; the first two and the first four differ most."""


def turn(x: Tensor, orientation: tuple[int, bool]) -> Tensor:
    """Turn the last two axes by quarter turns (as torch.rot90), then mirror the last one."""
    turned = x.transpose(-2, -1) if orientation[0] % 2 else x
    axes = _flipped(orientation)
    return turned.flip(axes) if axes else turned


def turn_back(x: Tensor, orientation: tuple[int, bool]) -> Tensor:
    """The inverse of `turn`."""
    axes = _flipped(orientation)
    plain = x.flip(axes) if axes else x
    return plain.transpose(-2, -1) if orientation[0] % 2 else plain


def _flipped(orientation: tuple[int, bool]) -> list[int]:
    """Axes to flip, after the transposition of odd quarter turns; mirroring undoes or adds the last."""
    turns, mirror = orientation
    axes = {0: set[int](), 1: {-2}, 2: {-2, -1}, 3: {-1}}[turns]
    return sorted(axes ^ ({-1} if mirror else set()))


def averaged_maps(
    network: Callable[[Tensor], list[Tensor]], view: Tensor, orientations: Sequence[tuple[int, bool]]
) -> list[Tensor]:
    """Feature maps of one view averaged over orientations, each turned back first.

    view : (1, 1, h, w), h and w of the form 16 k + 1 so that cells fall on cells
    returns : one (c, h/s, w/s) a stage, in the memory layout of the network's maps; float32, or for one
        orientation as the network gives them
    """
    if len(orientations) == 1:
        return [turn_back(m[0], orientations[0]) for m in network(turn(view, orientations[0]).contiguous())]
    total: list[Tensor] = []
    for orientation in orientations:
        back = [turn_back(m[0], orientation) for m in network(turn(view, orientation).contiguous())]
        total = [a.add_(b) for a, b in zip(total, back, strict=True)] if total else [m.to(torch.float32) for m in back]
    return [m.div_(len(orientations)) for m in total]


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


STRIP_PX = 8_000_000
"""View pixels of one forward pass; a larger micrograph passes in strips, so that memory stays bounded."""


def dense_features(backbone: Backbone, spec: ModelSpec, view: Tensor, centres: Tensor, view_index: int) -> Tensor:
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


BATCH_SIZE = 64
"""Boxes a forward pass where the user says nothing (dense models pass over whole micrographs)."""


def describe_micrograph(
    backbone: Backbone,
    spec: ModelSpec,
    pixels: FloatArray,
    diameter_px: float,
    coordinates: NDArray[np.float64],
    batch_size: int | None = None,
) -> Tensor:
    """Features of picks on one micrograph, without gradients.

    pixels : (h, w) float32; diameter_px : particle diameter in micrograph px
    coordinates : (n, 2) x, y px
    returns : (n, d) float32 on the CPU, in the order of `spec.layout`
    """
    device = next(backbone.parameters()).device
    parts = []
    with torch.inference_mode():
        for index, view_diameter in enumerate(spec.view_diameters):
            if spec.dense:
                view, frame = make_view(pixels, diameter_px, view_diameter)
                centres = frame.to_view(coordinates).to(device)
                parts.append(dense_features(backbone, spec, view.to(device), centres, index).cpu())
            else:
                boxes = boxes_of(spec, pixels, diameter_px, coordinates, view_diameter, batch_size or BATCH_SIZE)
                parts.append(_in_batches(backbone, boxes, index, spec))
    return torch.cat(parts, 1)


def boxes_of(
    spec: ModelSpec,
    pixels: FloatArray,
    diameter_px: float,
    coordinates: NDArray[np.float64],
    view_diameter: float,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Tensor]:
    """Boxes around picks as a box model sees them, (m, 1, s, s) float32 at a time, m up to `batch_size`."""
    view, frame = make_view(pixels, diameter_px, view_diameter)
    size = spec.box_px(view_diameter)
    for start in range(0, len(coordinates), batch_size):
        some = coordinates[start : start + batch_size]
        if spec.normalise == "box":
            yield cut_normalised_boxes(view, frame, some, size, pixels.shape)
        else:
            yield cut_boxes(view, frame, some, size)


def describe_boxes(
    backbone: Backbone,
    spec: ModelSpec,
    boxes: Sequence[tuple[str, FloatArray]],
    pixel_size: float,
    diameter_angstrom: float,
) -> Tensor:
    """Features of boxes that came without micrographs, with their names: (n, d) float32 on the CPU."""
    with torch.inference_mode():
        parts = []
        for index, view_diameter in enumerate(spec.view_diameters):
            stack = fitted_boxes(spec, boxes, pixel_size, diameter_angstrom, view_diameter)
            parts.append(_in_batches(backbone, torch.split(stack, BATCH_SIZE), index, spec))
        return torch.cat(parts, 1)


def fitted_boxes(
    spec: ModelSpec,
    boxes: Sequence[tuple[str, FloatArray]],
    pixel_size: float,
    diameter_angstrom: float,
    view_diameter: float,
) -> Tensor:
    """Boxes of any size, with their names, brought to the network's scale: (n, 1, s, s).

    Raises GeometryError that names the box, as `fit_box` does.
    """
    size = spec.box_px(view_diameter)
    fitted = []
    for name, box in boxes:
        try:
            fitted.append(fit_box(box, pixel_size, diameter_angstrom, view_diameter, size))
        except GeometryError as error:
            raise GeometryError(f"{name}: {error}; or leave this box out") from error
    return torch.cat(fitted)


def _in_batches(backbone: Backbone, batches: Iterable[Tensor], view_index: int, spec: ModelSpec) -> Tensor:
    parameter = next(backbone.parameters())
    seen = [
        box_features(backbone, spec, batch.to(parameter.device, parameter.dtype), view_index).cpu() for batch in batches
    ]
    return torch.cat(seen) if seen else torch.zeros(0, sum(spec.channels) * spec.layout.windows)
