"""Small micrographs of dark or bright discs in noise, and picks on them in a known frame."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.frame.frame_config import FrameSite
from pickeropt.io.micrographs import MicrographHeader, write_mrc
from pickeropt.records import FloatArray

SHAPE = (420, 500)
DIAMETER = 18.0
PIXEL_SIZE = 2.0


def draw(
    seed: int, count: int = 60, *, sign: float = -1.0, hollow: float = 0.0, shape: tuple[int, int] = SHAPE
) -> tuple[FloatArray, NDArray[np.float64]]:
    """(h, w) noise of 1 with discs of `sign`, rings where `hollow` px are cut out; centres (n, 2) x, y."""
    rng = np.random.default_rng(seed)
    height, width = shape
    centres: list[NDArray[np.float64]] = []
    while len(centres) < count:
        xy = rng.uniform([DIAMETER, DIAMETER], [width - DIAMETER, height - DIAMETER])
        if all(np.hypot(*(xy - other)) > 1.2 * DIAMETER for other in centres):
            centres.append(xy)
    pixels = rng.standard_normal(shape)
    y, x = np.mgrid[:height, :width]
    for cx, cy in centres:
        distance = np.hypot(x + 0.5 - cx, y + 0.5 - cy)
        pixels[(distance < DIAMETER / 2) & (distance >= hollow)] += sign
    return pixels.astype(np.float32), np.array(centres)


def write(folder: Path, name: str, seed: int, **how: object) -> tuple[Path, NDArray[np.float64]]:
    """The same as `folder/name`, MRC."""
    pixels, xy = draw(seed, **how)  # type: ignore[arg-type]
    write_mrc(folder / name, pixels, PIXEL_SIZE)
    return folder / name, xy


def site(path: Path, xy: NDArray[np.float64], diameter: float | None = DIAMETER) -> FrameSite:
    """A micrograph of `write` with picks that have no score."""
    return FrameSite(path.name, MicrographHeader(path, SHAPE, None), diameter, PIXEL_SIZE, xy, np.full(len(xy), np.nan))


def box_file(path: Path, xy: NDArray[np.float64], side: float = 24.0) -> Path:
    """EMAN's .box of picks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{x - side / 2:.3f}\t{y - side / 2:.3f}\t{side:g}\t{side:g}\n" for x, y in xy]
    path.write_text("".join(lines))
    return path
