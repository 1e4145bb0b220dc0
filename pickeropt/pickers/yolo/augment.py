"""The six augmentations of Wagner et al. 2019, Methods: each image is slightly altered before each pass."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pickeropt.pickers.yolo.boxes import Boxes
from pickeropt.records import FloatArray

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


def augmented(
    image: FloatArray, boxes: Boxes, chance: float, rng: np.random.Generator
) -> tuple[FloatArray, Boxes]:
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
