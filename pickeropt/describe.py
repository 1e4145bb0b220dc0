"""From a micrograph and coordinates to one feature vector a pick: where views and models meet.

Fine-tuning and pruning describe picks by this one path, so that what was learnt is what is seen.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pickeropt.datasets.boxes import cut_boxes, cut_normalised_boxes, fit_box
from pickeropt.errors import GeometryError
from pickeropt.models.backbone import Backbone
from pickeropt.models.features import box_features, dense_features
from pickeropt.models.spec import ModelSpec
from pickeropt.models.views import make_view
from pickeropt.records import FloatArray

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
                boxes = boxes_of(
                    spec, pixels, diameter_px, coordinates, view_diameter, batch_size or BATCH_SIZE
                )
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
        box_features(backbone, spec, batch.to(parameter.device, parameter.dtype), view_index).cpu()
        for batch in batches
    ]
    return torch.cat(seen) if seen else torch.zeros(0, sum(spec.channels) * spec.layout.windows)
