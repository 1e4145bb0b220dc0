"""The view: a micrograph resampled to the particle's size, normalised, with replicated edges; and boxes cut from it.

This is the one place where coordinates change from micrograph pixels (x, y) to view pixels (y, x). Boxes that come
without their micrograph are fitted to the same scale.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pickeropt.errors import GeometryError
from pickeropt.records import FloatArray

GRID = 16
"""View sides are a multiple of this plus one, so that feature cells sit symmetrically."""

LEAST_NOISE = 1e-6
"""Share of the grey level below which noise is the rounding of float32 (a flat area resamples to 2e-7)."""

MOST_VIEW_PX = 2e8
"""A larger view needs tens of GB: the diameter is wrong."""

CLIP = 10.0
"""Noise units beyond which a pixel says no more: hot pixels and gold stay finite."""


@dataclass(frozen=True)
class ViewFrame:
    """Where a view lies on its micrograph: view = (px + 0.5) * scale - 0.5 + offset."""

    scale_y: float
    scale_x: float
    top: int
    left: int

    def to_view(self, coordinates: NDArray[np.float64]) -> Tensor:
        """(n, 2) x, y in micrograph px -> (n, 2) float64 y, x in view px."""
        x, y = coordinates[:, 0], coordinates[:, 1]
        return torch.from_numpy(
            np.stack(
                [(y + 0.5) * self.scale_y - 0.5 + self.top, (x + 0.5) * self.scale_x - 0.5 + self.left],
                axis=1,
            )
        )


def make_view(pixels: FloatArray, diameter_px: float, view_diameter: float) -> tuple[Tensor, ViewFrame]:
    """Resample a micrograph so that the particle is `view_diameter` px across, and normalise it.

    pixels : (h, w) float32, rows as stored
    diameter_px : particle diameter in micrograph px
    returns : (1, 1, H, W) float32 in units of the micrograph's own noise, H and W of the form
        16 k + 1, at least half a diameter of replicated edge on each side; and its frame

    The grey level is the micrograph's median and the noise its median absolute deviation
    (x 1.4826), both of the resampled pixels: padding, edges and large ice do not move them.

    Raises GeometryError where the particle is larger than the micrograph, or where nearly all
    pixels have one value, so that no noise can be measured.
    """
    height, width = pixels.shape
    check_fits((height, width), diameter_px)
    check_enlarged((height, width), view_diameter / diameter_px)
    view = normalised(resampled(pixels, view_diameter / diameter_px))
    rows, columns = view.shape[-2:]
    margin = round(view_diameter / 2)
    top, bottom = _margins(rows, margin)
    left, right = _margins(columns, margin)
    view = functional.pad(view, (left, right, top, bottom), mode="replicate")
    return view, ViewFrame(rows / height, columns / width, top, left)


def check_fits(shape: tuple[int, int], diameter_px: float) -> None:
    """Raises GeometryError where the particle is larger than the (h, w) micrograph."""
    if diameter_px > min(shape):
        raise GeometryError(
            f"a particle of {diameter_px:.0f} px does not fit a micrograph of {shape[1]} x {shape[0]} px; "
            "check --diameter (Å) and --pixel-size (Å/px)"
        )


def check_enlarged(shape: tuple[int, int], factor: float) -> None:
    """Raises GeometryError where an (h, w) micrograph would be enlarged beyond any use."""
    if shape[0] * shape[1] * factor**2 > MOST_VIEW_PX:
        raise GeometryError(
            f"the diameter is so small that the micrograph of {shape[1]} x {shape[0]} px would be enlarged "
            f"{factor:.1f} times; check --diameter (Å, not nm) and --pixel-size (Å/px)"
        )


def resampled(pixels: FloatArray, factor: float) -> Tensor:
    """(h, w) micrograph -> (1, 1, h * factor, w * factor), whole pixels, antialiased."""
    height, width = pixels.shape
    return functional.interpolate(
        torch.from_numpy(pixels)[None, None],
        (max(1, round(height * factor)), max(1, round(width * factor))),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )


def normalised(view: Tensor) -> Tensor:
    """Grey level to 0 and noise to 1, by median and median absolute deviation, clipped at +-CLIP."""
    scale = level_and_noise(view)
    if scale is None:
        raise GeometryError("more than half of the pixels have one value, so the noise cannot be measured")
    return rescaled(view, *scale)


def level_and_noise(view: Tensor) -> tuple[Tensor, Tensor] | None:
    """Median and scaled median absolute deviation; None where there is no noise but rounding."""
    sample = view[..., ::3, ::3].flatten()
    level = sample.median()
    noise = (sample - level).abs().median() * 1.4826
    return (level, noise) if noise > LEAST_NOISE * level.abs() else None


def rescaled(view: Tensor, level: Tensor, noise: Tensor) -> Tensor:
    """Grey level to 0 and noise to 1, clipped at +-CLIP."""
    return (view - level).div_(noise).clamp_(-CLIP, CLIP)


def _margins(size: int, least: int) -> tuple[int, int]:
    total = -(-(size + 2 * least - 1) // GRID) * GRID + 1 - size
    return total // 2, total - total // 2


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


def fit_box(pixels: FloatArray, pixel_size: float, diameter_angstrom: float, view_diameter: float, size: int) -> Tensor:
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
