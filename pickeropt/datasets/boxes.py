"""Boxes around picks, cut from a view; and boxes that came without their micrograph."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pickeropt.errors import GeometryError
from pickeropt.models.views import ViewFrame, level_and_noise, normalised, rescaled
from pickeropt.records import FloatArray


def cut_boxes(view: Tensor, frame: ViewFrame, coordinates: NDArray[np.float64], size: int) -> Tensor:
    """Cut square boxes around picks, edges replicated where they reach over the view.

    view : (1, 1, H, W)
    coordinates : (n, 2) x, y in micrograph px
    size : side in view px; the pick lies in pixel size // 2, as in RELION
    returns : (n, 1, size, size)
    """
    centres = frame.to_view(coordinates).round().long()
    offsets = torch.arange(size) - size // 2
    rows = (centres[:, 0, None] + offsets).clamp(0, view.shape[-2] - 1)
    columns = (centres[:, 1, None] + offsets).clamp(0, view.shape[-1] - 1)
    return view[0, 0][rows[:, :, None], columns[:, None, :]][:, None]


def cut_normalised_boxes(
    view: Tensor, frame: ViewFrame, coordinates: NDArray[np.float64], size: int, shape: tuple[int, int]
) -> Tensor:
    """Boxes as `cut_boxes` cuts them, each scaled by its own grey level and noise.

    shape : h, w of the micrograph, px. At its edges the nearest box that lies inside gives level and
        noise, because replicated pixels have none; a box without noise stays in units of the micrograph's.
    """
    boxes = cut_boxes(view, frame, coordinates, size)
    bounds = np.array([shape[1], shape[0]])
    half = np.minimum(np.array([size / frame.scale_x, size / frame.scale_y]), bounds) / 2
    inside = cut_boxes(view, frame, np.clip(coordinates, half - 0.5, bounds - half - 0.5), size)
    scales = [level_and_noise(box) for box in inside]
    parts = [box if s is None else rescaled(box, *s) for box, s in zip(boxes, scales, strict=True)]
    return torch.stack(parts) if parts else boxes


def fit_box(
    pixels: FloatArray, pixel_size: float, diameter_angstrom: float, view_diameter: float, size: int
) -> Tensor:
    """A box without its micrograph as the network sees it: (1, 1, size, size), normalised by itself.

    Resampled so that the particle is `view_diameter` px across, its middle cut out, edges replicated
    where the box is too small.

    Raises GeometryError for a box smaller than the particle, or without noise.
    """
    diameter_px = diameter_angstrom / pixel_size
    if min(pixels.shape) < diameter_px:
        raise GeometryError(
            f"a box of {pixels.shape[1]} x {pixels.shape[0]} px cannot hold a particle of "
            f"{diameter_px:.0f} px; check --diameter (Å) and --pixel-size (Å/px), or cut larger boxes"
        )
    factor = view_diameter / diameter_px
    shape = [max(1, round(n * factor)) for n in pixels.shape]
    view = functional.interpolate(
        torch.from_numpy(pixels)[None, None], shape, mode="bilinear", antialias=True, align_corners=False
    )
    offsets = torch.arange(size) - size // 2
    rows = (shape[0] // 2 + offsets).clamp(0, shape[0] - 1)
    columns = (shape[1] // 2 + offsets).clamp(0, shape[1] - 1)
    return normalised(view[:, :, rows[:, None], columns[None, :]])
