"""MRC files: header, pixels, writing. Rows as stored; sections are the first axis.

MRC2014 (Cheng et al., J. Struct. Biol. 192, 146 (2015)). Read more leniently than the
standard says: no `MAP ` stamp, a wrong machine stamp or bytes after the data do not
matter, as long as the data are all there.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import MicrographError
from pickeropt.io.tables import partial_name

HEADER_BYTES = 1024
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_LARGEST = 2**18
_IMOD_STAMP = 1146047817


@dataclass(frozen=True)
class MrcHeader:
    """shape : (sections, rows, columns); dtype with byte order; offset of the data in bytes;
    pixel_size : Å/px, None where the header says 0, 1, a negative or no number
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    offset: int
    pixel_size: float | None


def read_mrc_header(path: Path) -> MrcHeader:
    """The header, held against the size of the file.

    Raises MicrographError: missing, empty, not an MRC file, a mode that holds no image,
    or fewer bytes than the header says.
    """
    head, size = read_head(path, HEADER_BYTES)
    words = next((w for w in (np.frombuffer(head[:1024], o) for o in _orders(head)) if _plausible(w)), None)
    if words is None:
        raise MicrographError(f"{path}: not an MRC or TIFF file; give micrographs as MRC or TIFF")
    nx, ny, nz, mode = words[:4].tolist()
    if mode in (3, 4):
        raise MicrographError(f"{path}: mode {mode} holds complex numbers; give the image, not its transform")
    if mode not in MODES:
        raise MicrographError(f"{path}: mode {mode} is not read; convert it to mode 2 (float32)")
    kind = MODES[mode]
    if mode == 0 and words[38] == _IMOD_STAMP and not words[39] & 1:
        kind = "u1"
    dtype = np.dtype(kind).newbyteorder(words.dtype.byteorder)
    offset = HEADER_BYTES + max(0, int(words[23]))
    expected = offset + nx * ny * nz * dtype.itemsize
    if size < expected:
        what = f"{size} bytes where the header ({nx} x {ny} x {nz}, mode {mode}) says {expected}"
        raise MicrographError(f"{path}: truncated, {what}; copy or write it again")
    return MrcHeader((nz, ny, nx), dtype, offset, _pixel_size(words))


def read_head(path: Path, count: int) -> tuple[bytes, int]:
    """The first bytes of a file, and its size. Raises MicrographError: missing, a folder, empty."""
    try:
        with path.open("rb") as file:
            head = file.read(count)
        size = path.stat().st_size
    except FileNotFoundError:
        raise MicrographError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise MicrographError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if not size:
        raise MicrographError(f"{path}: empty (0 bytes); copy or write it again")
    return head, size


def _orders(head: bytes) -> tuple[str, ...]:
    """Byte orders to try, as the machine stamp has it first."""
    if len(head) < HEADER_BYTES:
        return ()
    return (">i4", "<i4") if head[212] == 0x11 else ("<i4", ">i4")


def _plausible(words: NDArray[np.int32]) -> bool:
    """Whether the header words make sense in this byte order."""
    sizes_fit = bool(((words[:3] > 0) & (words[:3] <= _LARGEST)).all())
    return sizes_fit and (0 <= words[3] <= 16 or words[3] == 101) and 0 <= words[23] < 2**30


def _pixel_size(words: NDArray[np.int32]) -> float | None:
    """Cell width over samples; a width and a height that differ mean nothing either."""
    cells = words[10:12].view(words.dtype.str.replace("i", "f"))
    samples = words[7:9].astype(np.float64)
    if (samples <= 0).any() or not np.isfinite(cells).all():
        return None
    x, y = (cells / samples).tolist()
    unset = x <= 0 or abs(x - 1) < 1e-6 or abs(x - y) > 1e-3 * x
    return None if unset else float(x)


def read_mrc_sections(path: Path, header: MrcHeader) -> NDArray[np.float32]:
    """(sections, rows, columns) float32; native float32 is read straight into place."""
    count = int(np.prod(header.shape, dtype=np.int64))
    with path.open("rb") as file:
        raw = np.fromfile(file, dtype=header.dtype, count=count, offset=header.offset)
    return raw.reshape(header.shape).astype(np.float32, copy=False)


def map_mrc(path: Path, header: MrcHeader) -> NDArray[np.generic]:
    """(sections, rows, columns) of the file's own type, read only, on disk until they are used."""
    return np.memmap(path, dtype=header.dtype, mode="r", offset=header.offset, shape=header.shape)


def write_mrc(path: Path, pixels: NDArray[np.float32], pixel_size: float) -> None:
    """Write (h, w) or a stack (n, h, w) as mode 2, under a temporary name, then rename.

    pixel_size : Å/px. The same pixels give the same bytes.
    """
    import mrcfile  # slow to import

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        with mrcfile.new(partial) as mrc:
            mrc.set_data(np.ascontiguousarray(pixels, dtype=np.float32))
            if pixels.ndim == 3:
                mrc.set_image_stack()
            mrc.voxel_size = pixel_size
            mrc.header.nlabl = 0
            mrc.header.label[:] = b""
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
