"""Pictures for people: micrographs and boxes, low-pass filtered, 8 bits about the median.

Row 0 of the MRC file is at the BOTTOM of every picture, as RELION, EMAN and IMOD show it: a pick at x, y of
a micrograph of h rows is drawn at x, h - y. Mid-grey is the median; black and white lie `contrast` noise units
(1.4826 times the median absolute deviation) below and above it, so that neither ice nor carbon darkens
the rest.
"""

import io
from dataclasses import dataclass
from math import ceil, log

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pickeropt.records import FloatArray

Image8 = NDArray[np.uint8]

LOWPASS = 20.0
"""Å; finer detail is mostly noise."""
CONTRAST = 3.0
"""Noise units from grey to black, and to white."""
PLACES, PATCH = 3, 192
"""Places along each side of a micrograph, and px of the square there, where its grey scale is measured."""
SAMPLE = 2**17
"""Most values that a median is taken of."""


@dataclass(frozen=True)
class GreyScale:
    """Median and noise of a filtered micrograph."""

    median: float
    noise: float


@dataclass(frozen=True)
class Filter:
    """A low-pass filter at `lowpass` Å (0: none), of pixels of `pixel_size` Å."""

    pixel_size: float
    lowpass: float = LOWPASS

    @property
    def length(self) -> float:
        """px; 0 for none."""
        return self.lowpass / self.pixel_size if self.lowpass > self.pixel_size else 0.0

    @property
    def binning(self) -> int:
        """Pixels that may be averaged along each side without a visible difference."""
        return max(1, int(self.length / 5))


def grey_scale_of(values: NDArray[np.floating]) -> GreyScale:
    """Median and noise of a sample of pixels, of any shape.

    The noise is never 0: where most pixels are equal it is their standard deviation, or 1.
    """
    flat = np.asarray(values, dtype=np.float32).ravel()
    flat = flat[:: max(1, len(flat) // SAMPLE)]
    flat = flat[np.isfinite(flat)]
    if not len(flat):
        return GreyScale(0.0, 1.0)
    median = float(np.median(flat))
    return GreyScale(median, 1.4826 * float(np.median(np.abs(flat - median))) or float(flat.std()) or 1.0)


def micrograph_grey_scale(pixels: NDArray[np.generic], shown: Filter, patch: int = PATCH) -> GreyScale:
    """The grey scale of a micrograph, (h, w) in memory or on disk, from nine squares of it.

    patch : px of a square after binning
    """
    height, width = pixels.shape
    side = min(height, width, patch * shown.binning)
    shares = (np.arange(PLACES) + 0.5) / PLACES
    centres = [(side / 2 + x * (width - side), side / 2 + y * (height - side)) for y in shares for x in shares]
    return grey_scale_of(np.stack([_filtered_window(pixels, centre, side, shown) for centre in centres]))


def window(pixels: NDArray[np.generic], centre: tuple[float, float], side: int) -> FloatArray:
    """(side, side) float32 around x, y px, which lies in pixel ``side // 2``; edges replicated.

    pixels : (h, w); of a mapped file, only the window is read
    """
    left, top = (int(np.floor(place)) - side // 2 for place in centre)
    return cut(pixels, top, left, (side, side))


def cut(pixels: NDArray[np.generic], top: int, left: int, shape: tuple[int, int]) -> FloatArray:
    """(h, w) float32 of (H, W) pixels, from row `top` and column `left`; edges replicated.

    Of a mapped file, only the window is read.
    """
    rows, before_y, after_y = _inside(top, shape[0], pixels.shape[0])
    columns, before_x, after_x = _inside(left, shape[1], pixels.shape[1])
    found = np.asarray(pixels[rows, columns], dtype=np.float32)
    if before_y or after_y or before_x or after_x:
        found = np.pad(found, ((before_y, after_y), (before_x, after_x)), mode="edge")
    return found


def _inside(start: int, size: int, length: int) -> tuple[slice, int, int]:
    """The part of start…start + size in 0…length, and how much is outside before and after it."""
    first = min(max(start, 0), length - 1)
    stop = min(max(start + size, first + 1), length)
    before = min(max(-start, 0), size - 1)
    return slice(first, stop), before, size - before - (stop - first)


def low_passed(pixels: FloatArray, length: float) -> FloatArray:
    """(h, w) low-pass filtered: a Gaussian in Fourier space that is 1/2 at `length` px."""
    rows = np.fft.fftfreq(pixels.shape[0])[:, None]
    columns = np.fft.rfftfreq(pixels.shape[1])[None]
    kept = np.exp(-log(2) * length**2 * (rows**2 + columns**2)).astype(np.float32)
    # not scipy's, which takes half a second to import, before the first gallery of `label`
    return np.fft.irfft2(np.fft.rfft2(pixels) * kept, s=pixels.shape).astype(np.float32, copy=False)


def binned(pixels: NDArray[np.generic], by: int) -> FloatArray:
    """Means of `by` px square, (h // by, w // by) float32; the remainder at the far edges is dropped.

    Read in bands, so that a mapped file is never in memory as a whole.
    """
    height, width = (side // by for side in pixels.shape)
    found = np.empty((height, width), dtype=np.float32)
    band = max(1, 512 // by)
    for first in range(0, height, band):
        last = min(first + band, height)
        part = np.asarray(pixels[first * by : last * by, : width * by], dtype=np.float32)
        if by > 1:
            part = np.add.reduce(part.reshape(last - first, by, width * by), axis=1)
            part = np.add.reduce(part.reshape(last - first, width, by), axis=2) / np.float32(by * by)
        found[first:last] = part
    return found


def grey(pixels: FloatArray, scale: GreyScale, contrast: float = CONTRAST) -> Image8:
    """(h, w) pixels -> 8 bits, rows in the same order; what is not finite is mid-grey."""
    low, width = scale.median - contrast * scale.noise, 2 * contrast * scale.noise
    scaled = (np.nan_to_num(pixels, nan=scale.median) - low) * (255 / width)
    found: Image8 = np.clip(scaled + 0.5, 0, 255).astype(np.uint8)
    return found


def display_box(
    pixels: NDArray[np.generic],
    centre: tuple[float, float],
    sides: tuple[int, int],
    shown: Filter,
    scale: GreyScale,
    contrast: float = CONTRAST,
) -> Image8:
    """The box around x, y px of a micrograph, (size, size), row 0 of the file towards the bottom.

    pixels : (h, w) of the micrograph; edges replicated
    sides : px of the box on the micrograph, and `size`, px of the picture
    scale : `micrograph_grey_scale` with the same filter
    """
    side, size = sides
    box = Image.fromarray(grey(_filtered_window(pixels, centre, side, shown)[::-1], scale, contrast))
    return np.asarray(box.resize((size, size), Image.Resampling.BICUBIC))


def display_micrograph(
    pixels: NDArray[np.generic], width: int, pixel_size: float, contrast: float = CONTRAST
) -> Image8:
    """A whole micrograph at most `width` px wide and as high as that makes it, row 0 at the bottom.

    pixels : (h, w); pixel_size : Å/px. Low-pass filtered at `LOWPASS`, where the binned picture is finer than that.
    """
    by = max(1, pixels.shape[1] // width)
    small = binned(pixels, by)
    length = Filter(by * pixel_size).length
    if length:
        small = low_passed(small, length)
    picture = Image.fromarray(grey(small[::-1], grey_scale_of(small), contrast))
    width = min(width, pixels.shape[1])
    height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


def as_png(picture: NDArray[np.uint8]) -> bytes:
    """A PNG of (h, w) grey or (h, w, 3) coloured pixels."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def as_jpeg(picture: NDArray[np.uint8], quality: int = 80) -> bytes:
    """A JPEG of (h, w) grey or (h, w, 3) coloured pixels, colours as sharp as grey."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _filtered_window(pixels: NDArray[np.generic], centre: tuple[float, float], side: int, shown: Filter) -> FloatArray:
    """A window after the filter, binned where that shows no difference: (side // b, side // b)."""
    by = min(shown.binning, max(1, side // 16))
    margin = by * ceil(shown.length / by)
    side = side // by * by
    found = binned(window(pixels, centre, side + 2 * margin), by)
    if shown.length:
        found = low_passed(found, shown.length / by)
    inner = slice(margin // by, (margin + side) // by)
    return found[inner, inner]
