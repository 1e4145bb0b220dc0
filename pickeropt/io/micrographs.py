"""Micrographs: MRC or TIFF in, float32 out, rows as stored.

TIFF rows are taken as stored as well (the first row is row 0, as RELION reads them); a
program that draws the first row at the bottom has mirrored y. TIFF says no pixel size.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import MicrographError
from pickeropt.io.mrc import map_mrc, read_head, read_mrc_header, read_mrc_sections, write_mrc
from pickeropt.io.tiff import is_tiff, read_tiff, read_tiff_shape
from pickeropt.records import Micrograph

__all__ = [
    "MicrographHeader",
    "map_micrograph",
    "micrograph_shape",
    "read_micrograph",
    "read_micrograph_header",
    "write_mrc",
]


@dataclass(frozen=True)
class MicrographHeader:
    """shape : (h, w) px; pixel_size : Å/px or None where the file does not say"""

    path: Path
    shape: tuple[int, int]
    pixel_size: float | None


def read_micrograph_header(path: Path) -> MicrographHeader:
    """Shape and pixel size without the pixels.

    Raises MicrographError: missing, empty, truncated, several frames, complex, neither
    MRC nor TIFF.
    """
    head, _ = read_head(path, 8)
    if is_tiff(head):
        return MicrographHeader(path, read_tiff_shape(path), None)
    header = read_mrc_header(path)
    frames, height, width = header.shape
    if frames != 1:
        remedy = "give the motion-corrected micrograph (the average), not the movie"
        raise MicrographError(f"{path}: holds {frames} frames; {remedy}")
    return MicrographHeader(path, (height, width), header.pixel_size)


def micrograph_shape(path: Path) -> tuple[int, int]:
    """(h, w) px, from the header alone. Raises MicrographError as `read_micrograph_header` does."""
    return read_micrograph_header(path).shape


def read_micrograph(path: Path) -> Micrograph:
    """The micrograph as float32.

    Raises MicrographError as `read_micrograph_header` does, and for pixels that are not
    finite or all the same.
    """
    header = read_micrograph_header(path)
    head, _ = read_head(path, 8)
    pixels = read_tiff(path) if is_tiff(head) else read_mrc_sections(path, read_mrc_header(path))[0]
    _check_pixels(path, pixels)
    return Micrograph(path, pixels, header.pixel_size)


def map_micrograph(path: Path) -> NDArray[np.generic]:
    """(h, w) of the file's own type, rows as stored; those of an MRC file stay on disk until they are used.

    Raises MicrographError as `read_micrograph_header` does.
    """
    read_micrograph_header(path)
    head, _ = read_head(path, 8)
    return read_tiff(path) if is_tiff(head) else map_mrc(path, read_mrc_header(path))[0]


def _check_pixels(path: Path, pixels: NDArray[np.float32]) -> None:
    low, high = float(pixels.min()), float(pixels.max())  # NaN and infinity come through
    if not (np.isfinite(low) and np.isfinite(high)):
        wrong = ~np.isfinite(pixels)
        row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
        where = f"the first at x {column}, y {row} ({pixels[row, column]})"
        remedy = "exclude this micrograph, or write it again"
        raise MicrographError(f"{path}: {int(wrong.sum())} pixels are not finite, {where}; {remedy}")
    if low == high:
        raise MicrographError(f"{path}: every pixel is {low:g}; exclude this micrograph, or write it again")
