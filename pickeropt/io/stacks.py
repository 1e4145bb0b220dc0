"""Class folders: labelled boxes, for pretraining and for shots without micrographs.

Either one folder of image files per class, or one MRC stack per class whose stem is the name of the class.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pickeropt.errors import FormatError, MicrographError
from pickeropt.io.micrographs import is_tiff, read_head, read_mrc_header, read_mrc_sections, read_tiff
from pickeropt.records import PARTICLE, FloatArray

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
