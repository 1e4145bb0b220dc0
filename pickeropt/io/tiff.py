"""TIFF micrographs through pillow: one frame, one channel, 8, 16 or 32 bit."""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from pickeropt.errors import MicrographError

_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_KIND_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_OFFSETS_AND_COUNTS = ((273, 279), (324, 325))


def is_tiff(head: bytes) -> bool:
    """Whether the first bytes are those of a TIFF or BigTIFF file."""
    return head.startswith(_STARTS)


def read_tiff_shape(path: Path) -> tuple[int, int]:
    """(h, w) px. Raises MicrographError: truncated, several frames, colour, no TIFF."""
    with _open(path) as image:
        return image.height, image.width


def read_tiff(path: Path) -> NDArray[np.float32]:
    """(h, w) float32, rows as stored. Raises MicrographError as `read_tiff_shape` does."""
    with _open(path) as image:
        try:
            return np.asarray(image).astype(np.float32)
        except (OSError, SyntaxError, ValueError, TypeError) as error:
            raise MicrographError(f"{path}: cannot be decoded ({error}); convert it to MRC") from error


def _open(path: Path) -> TiffImagePlugin.TiffImageFile:
    """The file, checked; not through Image.open, which refuses large micrographs as bombs."""
    if not _directories_whole(path):
        raise MicrographError(f"{path}: not a whole TIFF file (truncated); copy or write it again")
    try:
        image = TiffImagePlugin.TiffImageFile(path)
        frames = image.n_frames
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError) as error:
        raise MicrographError(f"{path}: not a whole TIFF file ({error}); copy it again") from error
    try:
        if frames != 1:
            what = f"holds {frames} frames; give the motion-corrected micrograph, not the movie"
            raise MicrographError(f"{path}: {what}")
        if image.mode not in ("L", "F", "I") and not image.mode.startswith("I;"):
            raise MicrographError(f"{path}: pixels of kind {image.mode}; give one channel of grey values")
        size = path.stat().st_size
        for offsets, counts in _OFFSETS_AND_COUNTS:
            pairs = zip(image.tag_v2.get(offsets, ()), image.tag_v2.get(counts, ()), strict=False)
            end = max((start + count for start, count in pairs), default=0)
            if end > size:
                what = f"truncated, {size} bytes where it says {end}"
                raise MicrographError(f"{path}: {what}; copy or write it again")
    except MicrographError:
        image.close()
        raise
    return image


def _directories_whole(path: Path) -> bool:
    """Whether all directories and their values lie inside the file: pillow only warns if not.

    Classic entries are tag, kind, count and a value or offset of 4 bytes, BigTIFF's of 8.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        order = "<" if start[:2] == b"II" else ">"
        big = b"+" in start[2:4]
        count, entry, offset = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")

        def read(layout: str) -> tuple[int, ...]:
            form = struct.Struct(order + layout)
            return form.unpack(file.read(form.size))

        try:
            file.seek(8 if big else 4)
            (place,) = read(offset)
            seen = set()
            while place and place not in seen:
                seen.add(place)
                file.seek(place)
                for _ in range(read(count)[0]):
                    _, kind, number, value = read(entry)
                    length = number * _KIND_BYTES.get(kind, 1)
                    if length > (8 if big else 4) and value + length > size:
                        return False
                (place,) = read(offset)
        except struct.error:
            return False
    return True
