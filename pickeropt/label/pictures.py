"""Pictures of boxes and tiles as PNG, from pixels read on demand; the last stored row is on top, as in RELION."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pickeropt.display import (
    CONTRAST,
    LOWPASS,
    Filter,
    GreyScale,
    as_png,
    cut,
    display_box,
    grey,
    grey_scale_of,
    low_passed,
    micrograph_grey_scale,
)
from pickeropt.errors import PickeroptError
from pickeropt.io.micrographs import map_micrograph
from pickeropt.label.label_store import Box
from pickeropt.records import FloatArray
from pickeropt.sites import Micrographs

MAX_BYTES = 160 * 2**20
"""Of cached TIFF micrographs and binned copies."""
TILE = 256
DIRECT = 2048
"""Largest side, px, that is read from a file to be binned; beyond it a whole binned copy is cached."""
BAND = 512
"""Rows read at once."""


class ArrayCache:
    """Arrays by key; the least recently used are dropped above `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._arrays: OrderedDict[object, NDArray[np.generic]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: object, make: Callable[[], NDArray[np.generic]]) -> NDArray[np.generic]:
        """The array, made where it is missing; two threads may both make it."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
        made = make()
        with self._lock:
            if key not in self._arrays:
                self._arrays[key] = made
                self._bytes += made.nbytes
            while self._bytes > self._most and len(self._arrays) > 1:
                self._bytes -= self._arrays.popitem(last=False)[1].nbytes
        return made


class MicrographPixels:
    """Windows of micrographs, by index."""

    def __init__(self, micrographs: Micrographs) -> None:
        self._micrographs = micrographs
        self._cache = ArrayCache(MAX_BYTES)
        self._making = Lock()

    def window(self, index: int, top: int, left: int, shape: tuple[int, int]) -> FloatArray:
        """(h, w) float32 from row `top` and column `left` on; edges replicated.

        Raises MicrographError for a micrograph that is missing or cannot be read.
        """
        return cut(self.mapped(index), top, left, shape)

    def levels(self, index: int) -> int:
        """The number of levels, each half the size of the one before; the last fits a tile."""
        longest = max(self._micrographs.header(index).shape)
        return 1 + max(0, (longest - 1) // TILE).bit_length()

    def picture(self, index: int, level: int, corner: tuple[int, int], shape: tuple[int, int]) -> FloatArray:
        """(h, w) float32 of the picture at a level, from row and column `corner` on; edges replicated.

        Small parts are binned from the file; larger ones come from a copy of the whole level.
        """
        if level and max(shape) << level > DIRECT:
            return cut(self.level(index, level), *corner, shape)
        (top, left), (h, w) = (place << level for place in corner), (side << level for side in shape)
        height = self._micrographs.header(index).shape[0]
        found = self.window(index, height - top - h, left, (h, w))[::-1]
        for _ in range(level):
            found = halved(found)
        return found

    def level(self, index: int, level: int) -> FloatArray:
        """(ceil(h / 2**level), ceil(w / 2**level)) float32 means of 2**level px square, level 1 or more.

        The rows are those of the picture: the last stored one first.
        """
        found = self._cache.get((index, level), lambda: self._binned(index, level))
        return found.astype(np.float32, copy=False)

    def _binned(self, index: int, level: int) -> NDArray[np.generic]:
        if level > 1:
            return halved(self.level(index, level - 1))
        with self._making:  # one at a time: each reads a whole micrograph
            pixels = self.mapped(index)[::-1]
            bands = [halved(np.asarray(pixels[i : i + BAND], dtype=np.float32)) for i in range(0, len(pixels), BAND)]
            return np.concatenate(bands)

    def mapped(self, index: int) -> NDArray[np.generic]:
        """(h, w) of the file's own type, rows as stored; an MRC file is mapped.

        Raises MicrographError as `map_micrograph` does.
        """
        path = self._micrographs.path(index)
        if path.suffix.lower() in (".tif", ".tiff"):
            return self._cache.get(("whole", index), lambda: map_micrograph(path))
        return map_micrograph(path)


def halved(pixels: FloatArray) -> FloatArray:
    """Means of 2 x 2 px; a last odd row or column counts twice."""
    height, width = pixels.shape
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2)), mode="edge")
    found = (pixels[::2, ::2] + pixels[1::2, ::2]) + (pixels[::2, 1::2] + pixels[1::2, 1::2])
    return found * np.float32(0.25)


SAMPLES, SAMPLE = 3, 192
"""Places along each side of a level where its grey scale is measured, and px of the square there."""
PATCH = 96
"""px of the squares that the grey scale of boxes is measured on: 12 ms, at the first box of a micrograph."""
MAX_SCALES = 100_000


@dataclass(frozen=True)
class DisplaySettings:
    """lowpass : Å, 0 for none; contrast : noise units from grey to black, and to white"""

    lowpass: float = LOWPASS
    contrast: float = CONTRAST


class Pictures:
    """Boxes and tiles of a session's micrographs, as PNG."""

    def __init__(self, micrographs: Micrographs, diameter_angstrom: float) -> None:
        self._micrographs, self._diameter = micrographs, diameter_angstrom
        self.pixels = MicrographPixels(micrographs)
        self._scales: dict[tuple[int, int, float], GreyScale] = {}

    def box(self, box: Box, size: int, view: float, settings: DisplaySettings) -> bytes:
        """A picture of `size` px square, `view` particle diameters wide, around a point.

        Raises MicrographError and GeometryError as `MicrographPixels` and `Micrographs` do.
        """
        index = box.micrograph
        shown = Filter(self._micrographs.pixel_size(index), settings.lowpass)
        side = max(8, round(view * self._diameter / shown.pixel_size))
        pixels = self.pixels.mapped(index)
        scale = self._grey_scale((index, -1, settings.lowpass), lambda: micrograph_grey_scale(pixels, shown, PATCH))
        return as_png(display_box(pixels, (box.x, box.y), (side, size), shown, scale, settings.contrast))

    def tile(self, index: int, place: tuple[int, int, int], settings: DisplaySettings) -> bytes:
        """Tile (level, column, row) of `TILE` px, counted from the picture's upper left corner.

        Tiles at the far edges are smaller. Raises PickeroptError for a tile that does not exist.
        """
        level, column, row = place
        if not 0 <= level < self.pixels.levels(index):
            raise PickeroptError(f"there is no level {level}; load the page again")
        height, width = self._shape(index, level)
        if not (0 <= row * TILE < height and 0 <= column * TILE < width):
            raise PickeroptError(f"there is no tile {level}/{column}/{row}; load the page again")
        shape = min(TILE, height - row * TILE), min(TILE, width - column * TILE)
        shown = self._filtered(index, level, (row * TILE, column * TILE), shape, settings.lowpass)
        scale = self._grey_scale(
            (index, level, settings.lowpass), lambda: self._measure(index, level, settings.lowpass)
        )
        return as_png(grey(shown, scale, settings.contrast))

    def _shape(self, index: int, level: int) -> tuple[int, int]:
        height, width = self._micrographs.header(index).shape
        return -(-height >> level), -(-width >> level)

    def _filtered(
        self, index: int, level: int, corner: tuple[int, int], shape: tuple[int, int], lowpass: float
    ) -> FloatArray:
        """(h, w) of the picture at a level, from a corner, low-pass filtered with a margin around it."""
        length = Filter(self._micrographs.pixel_size(index) * 2**level, lowpass).length
        margin = ceil(length)
        (top, left), (h, w) = corner, shape
        window = self.pixels.picture(index, level, (top - margin, left - margin), (h + 2 * margin, w + 2 * margin))
        finite = np.isfinite(window)
        if not finite.all():
            window = np.where(finite, window, np.median(window[finite]) if finite.any() else 0)
        if length:
            window = low_passed(window, length)
        return np.ascontiguousarray(window[margin : margin + h, margin : margin + w])

    def _grey_scale(self, key: tuple[int, int, float], measure: Callable[[], GreyScale]) -> GreyScale:
        """The grey scale of a level (-1: of boxes) after a low-pass filter, measured once."""
        found = self._scales.get(key)
        if found is None:
            if len(self._scales) >= MAX_SCALES:
                self._scales.clear()
            found = self._scales[key] = measure()
        return found

    def _measure(self, index: int, level: int, lowpass: float) -> GreyScale:
        height, width = self._shape(index, level)
        h, w = min(SAMPLE, height), min(SAMPLE, width)
        shares = (np.arange(SAMPLES) + 0.5) / SAMPLES
        corners = [(int(y * (height - h)), int(x * (width - w))) for y in shares for x in shares]
        return grey_scale_of(np.stack([self._filtered(index, level, at, (h, w), lowpass) for at in corners]))
