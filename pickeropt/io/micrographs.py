"""Micrographs and their pixel size: MRC or TIFF in, float32 out, rows as stored.

MRC2014 (Cheng et al., J. Struct. Biol. 192, 146 (2015)) is read more leniently than the standard demands: a missing
`MAP ` stamp, a wrong machine stamp or bytes after the data do not matter if the data are complete. Sections are the
first axis.

TIFF is read through pillow: one frame, one channel, 8, 16 or 32 bit. Its rows are taken as stored too (the first row
is row 0, as in RELION); a program that draws the first row at the bottom shows y mirrored. TIFF has no pixel size.

The pixel size is that of the flag; otherwise optics block and MRC header must agree.

Class folders: labelled boxes, for pretraining and for shots without micrographs.

Either one folder of image files per class, or one MRC stack per class whose stem is the name of the class.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from pickeropt.errors import FormatError, GeometryError, MicrographError
from pickeropt.files import partial_name
from pickeropt.records import PARTICLE, FloatArray, Micrograph

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
    return _mrc_header(path, *read_head(path, HEADER_BYTES))


def _mrc_header(path: Path, head: bytes, size: int) -> MrcHeader:
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
    """shape : (h, w) px; pixel_size : Å/px or None where the file does not say
    mrc : where the pixels of an MRC file stand; None: a TIFF file, or not known
    """

    path: Path
    shape: tuple[int, int]
    pixel_size: float | None
    mrc: MrcHeader | None = None


def read_micrograph_header(path: Path) -> MicrographHeader:
    """Shape and pixel size without the pixels.

    Raises MicrographError: missing, empty, truncated, several frames, complex, neither
    MRC nor TIFF.
    """
    head, size = read_head(path, HEADER_BYTES)
    if is_tiff(head):
        return MicrographHeader(path, read_tiff_shape(path), None)
    header = _mrc_header(path, head, size)
    frames, height, width = header.shape
    if frames != 1:
        remedy = "give the motion-corrected micrograph (the average), not the movie"
        raise MicrographError(f"{path}: holds {frames} frames; {remedy}")
    return MicrographHeader(path, (height, width), header.pixel_size, header)


def micrograph_shape(path: Path) -> tuple[int, int]:
    """(h, w) px, from the header alone. Raises MicrographError as `read_micrograph_header` does."""
    return read_micrograph_header(path).shape


def read_micrograph(path: Path, header: MicrographHeader | None = None) -> Micrograph:
    """The micrograph as float32.

    header : of the file, where it was read before; it is not read again then (a TIFF file's is)
    Raises MicrographError as `read_micrograph_header` does, and for pixels that are not
    finite or all the same.
    """
    if header is None or header.mrc is None:
        header = read_micrograph_header(path)
    pixels = read_tiff(path) if header.mrc is None else read_mrc_sections(path, header.mrc)[0]
    _check_pixels(path, pixels)
    return Micrograph(path, pixels, header.pixel_size)


def map_micrograph(path: Path, header: MicrographHeader | None = None) -> NDArray[np.generic]:
    """(h, w) of the file's own type, rows as stored; those of an MRC file stay on disk until they are used.

    header : as `read_micrograph` takes it. Raises MicrographError as `read_micrograph_header` does.
    """
    if header is None or header.mrc is None:
        header = read_micrograph_header(path)
    return read_tiff(path) if header.mrc is None else map_mrc(path, header.mrc)[0]


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


AGREE = 0.01
"""Pixel sizes that differ by no more than this share are the same."""


def choose_pixel_size(flag: float | None, header: MicrographHeader, optics: Mapping[str, float]) -> float:
    """Å/px of a micrograph: the flag, else what the coordinate files and the header agree on.

    optics : by file, as its optics block says
    Raises GeometryError where two of them differ by more than 1 %, and where there is none.
    """
    if flag is not None:
        return flag
    said = dict(optics)
    if header.pixel_size is not None:
        said["the header"] = header.pixel_size
    if not said:
        what = f"{header.path}: neither its header nor the coordinate files say the pixel size"
        raise GeometryError(f"{what}; give it with --pixel-size")
    low, high = min(said, key=lambda who: said[who]), max(said, key=lambda who: said[who])
    if said[high] > said[low] * (1 + AGREE):
        sizes = f"{said[low]:.6g} Å/px by {low}, {said[high]:.6g} Å/px by {high}"
        raise GeometryError(f"{header.path}: {sizes}; give the right one with --pixel-size")
    return next(iter(said.values()))


MRC = (".mrc", ".mrcs")
PICTURES = (".png", ".jpg", ".jpeg")
TIFF = (".tif", ".tiff")
LAYOUT = "put a folder of images, or one .mrcs stack, there for each class"


@dataclass(frozen=True)
class ClassFolder:
    """Labelled boxes of a class folder, m in all.

    class_names : sorted, `particle` first where there is one
    boxes : m arrays (s, s) float32, s may differ between files; rows as stored
    labels : (m,) int64, into `class_names`
    sources : m names: `FILE`, or `N@FILE` for the Nth (from 1) image of a stack
    """

    class_names: tuple[str, ...]
    boxes: list[FloatArray]
    labels: NDArray[np.int64]
    sources: list[str]


def read_class_folder(path: Path) -> ClassFolder:
    """Read all classes of a folder, in both layouts.

    Colour pictures are turned to grey. Raises FormatError: missing, no class, a class
    without boxes, one class twice, a box that is not square, not finite, constant or
    cannot be decoded.
    """
    if not path.is_dir():
        raise FormatError(f"{path}: no such folder; give a folder of classes")
    classes = _classes(path)
    names = sorted(classes, key=lambda name: (name != PARTICLE, name))
    boxes: list[FloatArray] = []
    labels: list[int] = []
    sources: list[str] = []
    for label, name in enumerate(names):
        for file in classes[name]:
            images = _read_images(file)
            for i, box in enumerate(images):
                source = str(file) if len(images) == 1 else f"{i + 1}@{file}"
                boxes.append(_checked(box, source))
                sources.append(source)
                labels.append(label)
    return ClassFolder(tuple(names), boxes, np.array(labels, dtype=np.int64), sources)


def _classes(path: Path) -> dict[str, list[Path]]:
    """The files of each class."""
    known = MRC + PICTURES + TIFF
    classes: dict[str, list[Path]] = {}
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        files = sorted(entry.iterdir()) if entry.is_dir() else [entry]
        files = [f for f in files if f.suffix.lower() in known and not f.name.startswith(".")]
        if entry.is_file() and entry.suffix.lower() not in MRC:
            continue
        if not files:
            raise FormatError(f"{entry}: no image in the folder of this class; remove it or add boxes")
        name = entry.name if entry.is_dir() else entry.stem
        if name in classes:
            raise FormatError(f"{entry}: the class {name} is there twice; keep one of the two")
        classes[name] = files
    if not classes:
        raise FormatError(f"{path}: no class in this folder; {LAYOUT}")
    return classes


def _read_images(file: Path) -> NDArray[np.float32]:
    """(n, h, w) float32. Raises FormatError for a file that cannot be decoded."""
    try:
        if file.suffix.lower() in MRC:
            return read_mrc_sections(file, read_mrc_header(file))
        head, _ = read_head(file, 8)
        return (read_tiff(file) if is_tiff(head) else _read_picture(file))[None]
    except MicrographError as error:
        raise FormatError(str(error)) from error


def _read_picture(file: Path) -> NDArray[np.float32]:
    try:
        with Image.open(file) as image:
            plain = image.mode in ("L", "I", "F") or image.mode.startswith("I;")
            return np.asarray(image if plain else image.convert("L")).astype(np.float32)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise FormatError(f"{file}: cannot be decoded ({error}); write it as PNG or MRC") from error


def _checked(box: NDArray[np.float32], source: str) -> FloatArray:
    height, width = box.shape
    if height != width:
        raise FormatError(f"{source}: {width} x {height} px, not square; cut square boxes")
    low, high = float(box.min()), float(box.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise FormatError(f"{source}: holds pixels that are not finite; remove or rewrite it")
    if low == high:
        raise FormatError(f"{source}: every pixel is {low:g}; remove it")
    return box
