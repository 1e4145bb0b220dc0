"""Pixels of a session's micrographs: windows cut on demand, samples, binned copies."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pickeropt.display import cut
from pickeropt.io.micrographs import map_micrograph
from pickeropt.label.micrographs import Micrographs
from pickeropt.records import FloatArray

MOST_BYTES = 160 * 2**20
"""Of TIFF micrographs and binned copies that are kept."""
TILE = 256
DIRECT = 2048
"""px across of what is read of a file to be binned."""
BAND = 512
"""Rows that are read of a micrograph at once."""


class Kept:
    """Arrays by key, the least used of which go when there are too many bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._arrays: OrderedDict[object, NDArray[np.generic]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: object, make: Callable[[], NDArray[np.generic]]) -> NDArray[np.generic]:
        """The array, made where it is not there; two threads may make it at once."""
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


class Pixels:
    """Windows of micrographs, by index."""

    def __init__(self, micrographs: Micrographs) -> None:
        self._micrographs = micrographs
        self._kept = Kept(MOST_BYTES)
        self._making = Lock()

    def window(self, index: int, top: int, left: int, shape: tuple[int, int]) -> FloatArray:
        """(h, w) float32 from row `top` and column `left` on; edges replicated.

        Raises MicrographError for a micrograph that is missing or cannot be read.
        """
        return cut(self.mapped(index), top, left, shape)

    def levels(self, index: int) -> int:
        """How many sizes there are, each half the one before; the last one fits a tile."""
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
        found = self._kept.get((index, level), lambda: self._binned(index, level))
        return found.astype(np.float32, copy=False)

    def _binned(self, index: int, level: int) -> NDArray[np.generic]:
        if level > 1:
            return halved(self.level(index, level - 1))
        with self._making:  # one at a time: each reads a whole micrograph
            pixels = self.mapped(index)[::-1]
            bands = [
                halved(np.asarray(pixels[i : i + BAND], dtype=np.float32))
                for i in range(0, len(pixels), BAND)
            ]
            return np.concatenate(bands)

    def mapped(self, index: int) -> NDArray[np.generic]:
        """(h, w) of the file's own type, rows as stored; of an MRC file only what is used is read.

        Raises MicrographError as `map_micrograph` does.
        """
        path = self._micrographs.path(index)
        if path.suffix.lower() in (".tif", ".tiff"):
            return self._kept.get(("whole", index), lambda: map_micrograph(path))
        return map_micrograph(path)


def halved(pixels: FloatArray) -> FloatArray:
    """Means of 2 x 2 px; a last odd row or column counts twice."""
    height, width = pixels.shape
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2)), mode="edge")
    found = (pixels[::2, ::2] + pixels[1::2, ::2]) + (pixels[::2, 1::2] + pixels[1::2, 1::2])
    return found * np.float32(0.25)
