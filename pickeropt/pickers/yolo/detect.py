"""From a micrograph to boxes: one pass over its patches, each particle once."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pickeropt.models.views import check_fits
from pickeropt.pickers.records import Detections
from pickeropt.pickers.yolo.boxes import Boxes, apart, boxes_of, decoded
from pickeropt.pickers.yolo.network import YoloNetwork
from pickeropt.pickers.yolo.settings import YoloSettings
from pickeropt.pickers.yolo.view import Patches, View, make_view, patches_of
from pickeropt.records import FloatArray

FLOOR = 0.01
"""Boxes of less confidence are not even candidates."""

AT_ONCE = 4 * 1024 * 1024
"""px of patches in one pass through the network."""


def detect(
    network: YoloNetwork, pixels: FloatArray, diameter_px: float, settings: YoloSettings
) -> Detections:
    """All boxes with a confidence of `FLOOR` or more, best first.

    network : of `inference_network`; pixels : (h, w) of the micrograph
    diameter_px : of the particle in the micrograph; it fixes how far the micrograph is downsized
    Raises GeometryError where the particle does not fit the micrograph.
    """
    check_fits((pixels.shape[0], pixels.shape[1]), diameter_px)
    view = make_view(pixels, settings.particle_px / diameter_px, settings.low_pass)
    overlap = settings.overlap * settings.particle_px
    patches = patches_of((view.pixels.shape[0], view.pixels.shape[1]), settings.input_size, overlap)
    grids = predicted(network, view.pixels, patches, settings.anchor)
    boxes, scores = assembled(grids, patches, settings.particle_px / 4)
    kept = apart(boxes, scores, settings.merged)
    return as_detections(view, boxes[kept], scores[kept], (pixels.shape[0], pixels.shape[1]))


def predicted(
    network: YoloNetwork, pixels: FloatArray, patches: Patches, anchor: float, at_once: int = AT_ONCE
) -> NDArray[np.float32]:
    """The decoded grid of each patch, (n, 5, rows, columns) of `boxes.decoded`, in the order of its corner.

    at_once : px in one pass; changes speed and memory, nothing else
    """
    first = next(network.parameters())
    corners = patches.corners()
    count = max(1, at_once // (patches.shape[0] * patches.shape[1]))
    grids: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(corners), count):
            cuts = np.stack([patches.cut(pixels, corner) for corner in corners[start : start + count]])
            x = torch.from_numpy(cuts)[:, None].to(first.device, first.dtype)
            output = network(x.contiguous(memory_format=torch.channels_last))
            grids.append(decoded(output, anchor).cpu())
    together: NDArray[np.float32] = torch.cat(grids).numpy()
    return together


def assembled(
    grids: NDArray[np.float32], patches: Patches, margin: float
) -> tuple[Boxes, NDArray[np.float64]]:
    """Boxes of all patches in px of the view, each from the patch that answers for its place.

    margin : px behind the middle of an overlap up to which both patches answer
    """
    found, confidences = [np.empty((0, 4))], [np.empty(0)]
    for grid, corner in zip(grids, patches.corners(), strict=True):
        boxes, scores = boxes_of(grid)
        boxes[:, :2] += (corner[1], corner[0])
        stays = (scores >= FLOOR) & patches.own(boxes, corner, margin)
        found.append(boxes[stays])
        confidences.append(scores[stays])
    return np.concatenate(found), np.concatenate(confidences)


def as_detections(
    view: View, boxes: Boxes, scores: NDArray[np.float64], shape: tuple[int, int]
) -> Detections:
    """Boxes of a view, best first, as boxes of its (h, w) micrograph, less those centred outside it."""
    places = view.to_micrograph(boxes[:, :2])
    inside = ((places >= 0) & (places <= np.array([shape[1], shape[0]]) - 1)).all(axis=1)
    sizes = boxes[:, 2:] / np.array(view.scale)
    return Detections(places[inside], scores[inside], sizes[inside])
