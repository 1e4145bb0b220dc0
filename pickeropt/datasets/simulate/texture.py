"""Textures of junk and support: mottle, polycrystal cells, bend contours, fringes, grain.

Fields are float32 of the shape of a canvas window; lengths in Å. Structure wider than a few
pixels is computed on a coarse grid and brought up by splines, so that it stays cheap.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pickeropt.datasets.simulate.canvas import Canvas, bicubic, smooth_field
from pickeropt.records import FloatArray

Area = tuple[slice, slice]
GRAIN_PIXEL = 4.0
"""Å; strengths of grain are rad in a pixel of this side."""


def mottle(
    canvas: Canvas, dx: FloatArray, dy: FloatArray, scale: float, rng: np.random.Generator
) -> FloatArray:
    """Smooth random field of deviation about 1 and `scale` Å over a window; zeros if it is empty."""
    shape = (dy.shape[0], dx.shape[1])
    if min(shape) == 0:
        return np.zeros(shape, dtype=np.float32)
    return smooth_field(shape, max(scale / canvas.pixel_size, 0.3), rng)


def add_grain(canvas: Canvas, area: Area, strength: FloatArray, rng: np.random.Generator) -> None:
    """White phase noise of `strength` rad in a 4 Å pixel; the CTF makes Thon rings of it."""
    noise = rng.standard_normal(canvas.phase[area].shape, dtype=np.float32)
    canvas.phase[area] += noise * strength * np.float32(GRAIN_PIXEL / canvas.pixel_size)


def cells(
    dx: FloatArray, dy: FloatArray, size: float, rng: np.random.Generator, warp: float = 0.25
) -> tuple[FloatArray, FloatArray]:
    """Voronoi cells of about `size` Å with walls bent by `warp` sizes, over a window.

    Returns the second nearest seed's distance less the nearest's in Å (0 on a wall), and a
    normal number a cell.
    """
    if min(dy.shape[0], dx.shape[1]) == 0:
        empty = np.zeros((dy.shape[0], dx.shape[1]), dtype=np.float32)
        return empty, empty
    left, top, right, bottom = (float(end) for end in (dx[0, 0], dy[0, 0], dx[0, -1], dy[-1, 0]))
    step = max(size / 14.0, (right - left) / 350.0, (bottom - top) / 350.0, 1e-3)
    columns = np.arange(left - 3 * step, right + 5 * step, step)
    rows = np.arange(top - 3 * step, bottom + 5 * step, step)
    count = int((columns[-1] - columns[0] + 4 * size) * (rows[-1] - rows[0] + 4 * size) / size**2) + 2
    low, high = (columns[0] - 2 * size, rows[0] - 2 * size), (columns[-1] + 2 * size, rows[-1] + 2 * size)
    seeds = rng.uniform(low, high, (count, 2))
    shape = (len(rows), len(columns))
    bend = [smooth_field(shape, max(0.4 * size / step, 1.0), rng) * (warp * size) for _ in range(2)]
    at = np.stack([columns[None, :] + bend[0], rows[:, None] + bend[1]], axis=-1)
    distance, nearest = cKDTree(seeds).query(at, k=2)
    gap = (distance[..., 1] - distance[..., 0]).astype(np.float32)
    tone = rng.standard_normal(count, dtype=np.float32)[nearest[..., 0]]
    where = (
        (dy[:, 0] - np.float32(rows[0])) / np.float32(step),
        (dx[0] - np.float32(columns[0])) / np.float32(step),
    )
    return bicubic(gap, *where), bicubic(tone, *where)


def polygon(
    dx: FloatArray, dy: FloatArray, normals: NDArray[np.float64], reaches: NDArray[np.float64]
) -> FloatArray:
    """Distance in Å from the nearest side, positive inside, of the half planes' intersection."""
    depth = np.full((dy.shape[0], dx.shape[1]), np.inf, dtype=np.float32)
    for normal, reach in zip(normals, reaches, strict=True):
        side = np.float32(reach) - dx * np.float32(np.cos(normal)) - dy * np.float32(np.sin(normal))
        depth = np.minimum(depth, side)
    return depth


def waves(dx: FloatArray, dy: FloatArray, period: float, rng: np.random.Generator) -> FloatArray:
    """Straight fringes of `period` Å in a random direction, -1 to 1."""
    turn = rng.uniform(0, 2 * np.pi)
    k = 2 * np.pi / period
    phase = dx * np.float32(k * np.cos(turn)) + dy * np.float32(k * np.sin(turn))
    return np.asarray(np.cos(phase + np.float32(rng.uniform(0, 2 * np.pi))), dtype=np.float32)


def smoothstep(value: FloatArray) -> FloatArray:
    """0 below 0, 1 above 1, smooth between."""
    clipped = np.clip(value, 0.0, 1.0)
    return np.asarray(clipped * clipped * (3.0 - 2.0 * clipped), dtype=np.float32)


def bend_contours(
    canvas: Canvas, dx: FloatArray, dy: FloatArray, scale: float, rng: np.random.Generator
) -> FloatArray:
    """Dark bands, 0 to 1, where a crystal bent over `scale` Å meets the Bragg condition."""
    tilt = mottle(canvas, dx, dy, scale, rng) * np.float32(rng.uniform(0.8, 2.0))
    width = np.float32(rng.uniform(0.15, 0.5))
    return np.asarray(np.exp(-(((tilt - np.float32(rng.normal(0, 0.5))) / width) ** 2)), dtype=np.float32)
