"""PNG pictures of boxes and tiles. The last stored row is on top, as RELION, EMAN and IMOD show it."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np

from pickeropt.display import (
    CONTRAST,
    LOWPASS,
    Filter,
    Look,
    as_png,
    display_box,
    grey,
    look_of,
    low_passed,
    micrograph_look,
)
from pickeropt.errors import PickeroptError
from pickeropt.label.label_store import Box
from pickeropt.label.micrographs import Micrographs
from pickeropt.label.pixels import TILE, Pixels
from pickeropt.records import FloatArray

SAMPLES, SAMPLE = 3, 192
"""Places along each side of a level where its grey and noise are measured, and px of the square there."""
PATCH = 96
"""px of the squares that the look of boxes is measured on: 12 ms, for the first box of a micrograph."""
MOST_LOOKS = 100_000


@dataclass(frozen=True)
class Wish:
    """How a picture is to be shown.

    lowpass : Å, 0 for none; contrast : noise units from grey to black, and to white
    """

    lowpass: float = LOWPASS
    contrast: float = CONTRAST


class Pictures:
    """Boxes and tiles of a session's micrographs, as PNG."""

    def __init__(self, micrographs: Micrographs, diameter_angstrom: float) -> None:
        self._micrographs, self._diameter = micrographs, diameter_angstrom
        self.pixels = Pixels(micrographs)
        self._looks: dict[tuple[int, int, float], Look] = {}

    def box(self, box: Box, size: int, view: float, wish: Wish) -> bytes:
        """A picture of `size` px square, `view` particle diameters wide, around a point.

        Raises MicrographError and GeometryError as `Pixels` and `Micrographs` do.
        """
        index = box.micrograph
        shown = Filter(self._micrographs.pixel_size(index), wish.lowpass)
        side = max(8, round(view * self._diameter / shown.pixel_size))
        pixels = self.pixels.mapped(index)
        look = self._look((index, -1, wish.lowpass), lambda: micrograph_look(pixels, shown, PATCH))
        return as_png(display_box(pixels, (box.x, box.y), (side, size), shown, look, wish.contrast))

    def tile(self, index: int, place: tuple[int, int, int], wish: Wish) -> bytes:
        """Tile (level, column, row) of `TILE` px, counted from the picture's upper left corner.

        Tiles at the far edges are smaller. Raises PickeroptError for a tile that there is not.
        """
        level, column, row = place
        if not 0 <= level < self.pixels.levels(index):
            raise PickeroptError(f"there is no level {level}; load the page again")
        height, width = self._shape(index, level)
        if not (0 <= row * TILE < height and 0 <= column * TILE < width):
            raise PickeroptError(f"there is no tile {level}/{column}/{row}; load the page again")
        shape = min(TILE, height - row * TILE), min(TILE, width - column * TILE)
        shown = self._filtered(index, level, (row * TILE, column * TILE), shape, wish.lowpass)
        look = self._look((index, level, wish.lowpass), lambda: self._measured(index, level, wish.lowpass))
        return as_png(grey(shown, look, wish.contrast))

    def _shape(self, index: int, level: int) -> tuple[int, int]:
        height, width = self._micrographs.header(index).shape
        return -(-height >> level), -(-width >> level)

    def _filtered(
        self, index: int, level: int, corner: tuple[int, int], shape: tuple[int, int], lowpass: float
    ) -> FloatArray:
        """(h, w) of the picture at a level, from its corner on, low-passed with what is around it."""
        length = Filter(self._micrographs.pixel_size(index) * 2**level, lowpass).length
        margin = ceil(length)
        (top, left), (h, w) = corner, shape
        window = self.pixels.picture(
            index, level, (top - margin, left - margin), (h + 2 * margin, w + 2 * margin)
        )
        finite = np.isfinite(window)
        if not finite.all():
            window = np.where(finite, window, np.median(window[finite]) if finite.any() else 0)
        if length:
            window = low_passed(window, length)
        return np.ascontiguousarray(window[margin : margin + h, margin : margin + w])

    def _look(self, key: tuple[int, int, float], measure: Callable[[], Look]) -> Look:
        """Grey and noise of a level (-1: of boxes) as a filter leaves them, measured once."""
        found = self._looks.get(key)
        if found is None:
            if len(self._looks) >= MOST_LOOKS:
                self._looks.clear()
            found = self._looks[key] = measure()
        return found

    def _measured(self, index: int, level: int, lowpass: float) -> Look:
        height, width = self._shape(index, level)
        h, w = min(SAMPLE, height), min(SAMPLE, width)
        shares = (np.arange(SAMPLES) + 0.5) / SAMPLES
        corners = [(int(y * (height - h)), int(x * (width - w))) for y in shares for x in shares]
        return look_of(np.stack([self._filtered(index, level, at, (h, w), lowpass) for at in corners]))
