"""The micrograph as the YOLO network receives it: low-passed, downsampled, normalised, in overlapping patches.

Also the six augmentations of the training patches (Wagner et al. 2019, Methods).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from pickeropt.models.views import check_fits, normalised, resampled
from pickeropt.pickers.yolo_network import STRIDE, Boxes, YoloSettings
from pickeropt.records import FloatArray

LEAST_PARTICLE = math.sqrt(2.0) * STRIDE
"""px of the network's image: two particles of this diameter that touch are never in one grid cell."""


@dataclass(frozen=True)
class YoloView:
    """A resampled micrograph.

    pixels : (h, w) float32 in units of the micrograph's noise
    scale : (x, y) px of the view a px of the micrograph
    """

    pixels: FloatArray
    scale: tuple[float, float]

    def to_view(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2) x, y px of the micrograph, pixel centres whole -> px of the view from its outer edge."""
        places: NDArray[np.float64] = (coordinates + 0.5) * np.array(self.scale)
        return places

    def to_micrograph(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse of `to_view`."""
        coordinates: NDArray[np.float64] = places / np.array(self.scale) - 0.5
        return coordinates


def particle_in_view(shape: tuple[int, int], diameter_px: float, settings: YoloSettings) -> float:
    """Diameter of the particle in the network's image, px, as the paper's patches make it.

    shape, diameter_px : of the micrograph
    The longer side is cut into patches that overlap, each downsized to the input. Where nothing says how
    many, their number is the least that gives `LEAST_PARTICLE`; a small micrograph is not magnified
    beyond that.
    """
    longer = max(shape)
    check_fits(shape, diameter_px)

    def size(patches: int) -> float:
        whole = patches * settings.input_size
        shared = (patches - 1) * settings.overlap * diameter_px / longer
        return diameter_px * whole / (1.0 + shared) / longer

    if settings.patches:
        return size(settings.patches)
    patches = 1
    while size(patches) < LEAST_PARTICLE and size(patches + 1) > size(patches) * (1.0 + 1e-3):
        patches += 1
    return max(min(size(patches), diameter_px), min(size(patches), LEAST_PARTICLE))


def make_view(pixels: FloatArray, factor: float, low_pass: float) -> YoloView:
    """Resample a micrograph by `factor`, low-pass and normalise it.

    pixels : (h, w) float32; low_pass : where the Gaussian falls to exp(-1/2), cycles/px of the
        micrograph, 0 for none
    Raises GeometryError where nearly all pixels have one value.
    """
    height, width = pixels.shape
    image = resampled(pixels, factor)
    rows, columns = image.shape[-2:]
    if low_pass:
        image = low_passed(image, factor / (2.0 * math.pi * low_pass))
    image = normalised(image)
    return YoloView(image[0, 0].numpy(), (columns / width, rows / height))


def low_passed(image: Tensor, deviation: float) -> Tensor:
    """Convolved with a Gaussian of that standard deviation in px, edges replicated; (1, 1, h, w)."""
    reach = math.ceil(4.0 * deviation)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float32) / deviation) ** 2)
    kernel = kernel / kernel.sum()
    image = functional.pad(image, (reach, reach, reach, reach), mode="replicate")
    return functional.conv2d(functional.conv2d(image, kernel[None, None, None]), kernel[None, None, :, None])


@dataclass(frozen=True)
class Patches:
    """Where the patches of a view lie: rows and columns of their first pixels, and their shape."""

    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def corners(self) -> list[tuple[int, int]]:
        """(top, left) of each, row by row."""
        return [(top, left) for top in self.tops for left in self.lefts]

    def cut(self, pixels: FloatArray, corner: tuple[int, int]) -> FloatArray:
        """One patch, (h, w), the grey level 0 where the view ends before it."""
        return cut(pixels, corner, self.shape)

    def own(self, boxes: Boxes, corner: tuple[int, int], margin: float) -> NDArray[np.bool_]:
        """Which boxes, in px of the view, the patch at `corner` answers for.

        The middle of an overlap parts two patches; up to `margin` px behind it both answer, so that no
        particle is lost that each sees on the other's side.
        """
        inside = np.ones(len(boxes), dtype=np.bool_)
        for axis, (starts, start, side) in enumerate(
            ((self.lefts, corner[1], self.shape[1]), (self.tops, corner[0], self.shape[0]))
        ):
            at = starts.index(start)
            if at > 0:
                inside &= boxes[:, axis] >= (start + starts[at - 1] + side) / 2 - margin
            if at < len(starts) - 1:
                inside &= boxes[:, axis] < (starts[at + 1] + start + side) / 2 + margin
        return inside


def patches_of(shape: tuple[int, int], input_size: int, overlap: float) -> Patches:
    """Patches of `input_size` px that cover an (h, w) view and overlap by at least about `overlap` px.

    A view smaller than the input is one patch, its side the next multiple of 32.
    """
    sides = tuple(min(input_size, -(-side // STRIDE) * STRIDE) for side in shape)
    tops, lefts = (_starts(side, patch, overlap) for side, patch in zip(shape, sides, strict=True))
    return Patches(tops, lefts, (sides[0], sides[1]))


def cut(pixels: FloatArray, corner: tuple[int, int], shape: tuple[int, int]) -> FloatArray:
    """(h, w) of the view from (top, left), 0 where the view ends before."""
    top, left = corner
    part = pixels[top : top + shape[0], left : left + shape[1]].astype(np.float32)
    return np.pad(part, [(0, side - have) for side, have in zip(shape, part.shape, strict=True)])


def _starts(side: int, patch: int, overlap: float) -> tuple[int, ...]:
    """Evenly from 0 to the end; a hundredth of a patch too much is no reason for one more."""
    if side <= patch:
        return (0,)
    step = max(patch - overlap, patch / 4)
    count = max(2, math.ceil((side - patch) / step - 0.01) + 1)
    return tuple(round(start) for start in np.linspace(0, side - patch, count))


MOST_BLUR = 3.0
"""px, standard deviation of the Gaussian blur."""
AVERAGES = (2, 7)
"""px, least and greatest side of the mask of the average blur."""
MOST_NOISE = 0.1
"""Standard deviations of the image; the paper says "proportional" only."""
DROPPED = (0.01, 0.1)
"""Share of the pixels that are replaced by the mean."""
CONTRASTS = (0.5, 2.0)
"""Least and greatest factor of the contrast; the paper says "a random constant" only."""


def augmented(image: FloatArray, boxes: Boxes, chance: float, rng: np.random.Generator) -> tuple[FloatArray, Boxes]:
    """A random selection of the six, each with that chance.

    image : (h, w); boxes : (n, 4) x, y, width, height px from the image's outer edge; neither is changed
    """
    chosen = rng.random(6) < chance
    if chosen[0]:
        image, boxes = flipped(image, boxes, int(rng.integers(1, 4)))
    if chosen[1]:
        image = ndimage.gaussian_filter(image, rng.uniform(0.0, MOST_BLUR), mode="nearest")
    if chosen[2]:
        image = ndimage.uniform_filter(image, int(rng.integers(AVERAGES[0], AVERAGES[1] + 1)), mode="nearest")
    if chosen[3]:
        image = noisy(image, rng.uniform(0.0, MOST_NOISE), rng)
    if chosen[4]:
        image = dropped(image, rng.uniform(*DROPPED), rng)
    if chosen[5]:
        image = contrasted(image, float(np.exp(rng.uniform(*np.log(CONTRASTS)))))
    return image, boxes


def flipped(image: FloatArray, boxes: Boxes, axes: int) -> tuple[FloatArray, Boxes]:
    """Mirrored left to right (1), top to bottom (2) or both (3), with the boxes."""
    height, width = image.shape
    boxes = boxes.copy()
    if axes & 1:
        image, boxes[:, 0] = image[:, ::-1], width - boxes[:, 0]
    if axes & 2:
        image, boxes[:, 1] = image[::-1], height - boxes[:, 1]
    return np.ascontiguousarray(image), boxes


def noisy(image: FloatArray, share: float, rng: np.random.Generator) -> FloatArray:
    """With Gaussian noise of `share` times the image's standard deviation."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    changed: FloatArray = image + np.float32(share) * image.std() * noise
    return changed


def dropped(image: FloatArray, share: float, rng: np.random.Generator) -> FloatArray:
    """With a share of the pixels replaced by the image's mean."""
    gone: NDArray[np.bool_] = rng.random(image.shape, dtype=np.float32) < share
    return np.where(gone, image.mean(), image)


def contrasted(image: FloatArray, factor: float) -> FloatArray:
    """Distances from the median times `factor`."""
    median = np.median(image)
    return ((image - median) * np.float32(factor) + median).astype(np.float32)
