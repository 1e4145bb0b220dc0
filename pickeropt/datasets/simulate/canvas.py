"""The specimen under construction: phase, absorption, truth map, and textures to paint them with.

Textures (mottle, crystal cells, bend contours, fringes, grain) are float32 fields of the shape of a canvas
window; lengths in Å. Structure wider than a few pixels is computed on a coarse grid and interpolated by
splines.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from pickeropt.datasets.simulate.optics import squared_frequencies
from pickeropt.datasets.simulate.simulation_config import SOURCE_NAMES
from pickeropt.datasets.simulate.species import Points, Species
from pickeropt.records import FloatArray

BLOB_SIGMA = 5.0
"""Å, the Gaussian that every point of a molecule becomes."""
PROTEIN_VOLT = 2.0
"""V, mean inner potential of protein above that of vitreous ice; atoms alone would give about 3,
less here by eye, for what motion and damage take from real contrast."""


@dataclass
class Canvas:
    """The padded specimen; painters add to it.

    phase : (h, w) rad; absorption : (h, w) amplitude exponent; both float32
    source : (h, w) uint8, index into SOURCE_NAMES
    species : the molecule at the size it has here; diameter in Å is its
    radian : rad of phase per V Å; amplitude_contrast : share that `optics.intensity` adds
    pad : px of margin on every side, cut off later
    """

    phase: FloatArray
    absorption: FloatArray
    source: NDArray[np.uint8]
    species: Species
    pixel_size: float
    radian: float
    amplitude_contrast: float
    pad: int
    spots: list[tuple[Points, NDArray[np.float64]]] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        """h, w in px, padding included."""
        return self.phase.shape[0], self.phase.shape[1]

    @property
    def diameter(self) -> float:
        """Particle diameter in Å."""
        return self.species.diameter_angstrom

    def window(self, x: float, y: float, half: float) -> tuple[tuple[slice, slice], FloatArray, FloatArray]:
        """Slices of the square of half side `half` Å about x, y px, and Å from its centre.

        Returns (rows, columns), dx (1, n) and dy (m, 1) float32.
        """
        reach = half / self.pixel_size
        rows = slice(max(0, int(y - reach)), max(0, min(self.shape[0], int(y + reach) + 2)))
        columns = slice(max(0, int(x - reach)), max(0, min(self.shape[1], int(x + reach) + 2)))
        dx = (np.arange(columns.start, columns.stop, dtype=np.float32) - np.float32(x)) * self.pixel_size
        dy = (np.arange(rows.start, rows.stop, dtype=np.float32) - np.float32(y)) * self.pixel_size
        return (rows, columns), dx[None, :], dy[:, None]

    def add_matter(self, area: tuple[slice, slice], thickness: FloatArray, volt: float, free_path: float) -> None:
        """Add `thickness` Å of matter above the ice: `volt` V, mean free path `free_path` Å.

        The free path says all that bulk matter absorbs, its amplitude contrast included.
        """
        phase = self.radian * volt
        self.phase[area] += thickness * np.float32(phase)
        self.absorption[area] += thickness * np.float32(0.5 / free_path - self.amplitude_contrast * phase)

    def mark(self, area: tuple[slice, slice], where: NDArray[np.bool_], kind: str) -> None:
        """Write `kind` into the truth map where it is true."""
        self.source[area][where] = SOURCE_NAMES.index(kind)

    def mark_disc(self, x: float, y: float, radius: float, kind: str) -> None:
        """Write `kind` into a disc of `radius` Å about x, y px."""
        area, dx, dy = self.window(x, y, radius)
        self.mark(area, dx * dx + dy * dy <= radius * radius, kind)

    def add_spots(self, positions: Points, volumes: NDArray[np.float64]) -> None:
        """Add blobs at (m, 2) x, y px with (m,) Å³ of protein each."""
        self.spots.append((positions, volumes))

    def add_molecule(self, x: float, y: float, rng: np.random.Generator, keep: NDArray[np.bool_] | None = None) -> None:
        """Add the species in a random orientation; `keep` (m,) leaves some points out."""
        points, volumes = self.species.points, self.species.volumes
        if keep is not None:
            points, volumes = points[keep], volumes[keep]
            points = points - points.mean(axis=0)
        turned = Rotation.from_quat(rng.normal(size=4)).apply(points)
        self.add_spots(turned[:, :2] / self.pixel_size + np.array([x, y]), volumes)

    def render_spots(self) -> None:
        """Turn the collected spots into phase: bilinear weights, then one Gaussian blur."""
        if not self.spots:
            return
        positions = np.concatenate([spot[0] for spot in self.spots])
        volumes = np.concatenate([spot[1] for spot in self.spots])
        self.spots.clear()
        h, w = self.shape
        corner = np.floor(positions).astype(np.int64)
        part = positions - corner
        flat = np.zeros(h * w)
        for right in (0, 1):
            for down in (0, 1):
                column, row = corner[:, 0] + right, corner[:, 1] + down
                inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
                share = np.abs(1 - right - part[:, 0]) * np.abs(1 - down - part[:, 1]) * volumes
                flat += np.bincount((row * w + column)[inside], share[inside], minlength=h * w)
        scale = self.radian * PROTEIN_VOLT / self.pixel_size**2
        spectrum = fft.rfft2((flat.reshape(h, w) * scale).astype(np.float32))
        k2 = squared_frequencies((h, w), self.pixel_size, half=True)
        spectrum *= np.exp(k2 * np.float32(-2.0 * np.pi**2 * BLOB_SIGMA**2))
        self.phase += fft.irfft2(spectrum, s=(h, w))


def smooth_field(shape: tuple[int, int], scale: float, rng: np.random.Generator) -> FloatArray:
    """Random field of mean 0 and deviation about 1, smooth over `scale` px; (h, w) float32."""
    if scale < 3.0:
        noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), scale)
        return np.asarray(noise / max(float(noise.std()), 1e-6), dtype=np.float32)
    coarse = tuple(int(np.ceil(side / scale)) + 4 for side in shape)
    grid = rng.standard_normal(coarse, dtype=np.float32)
    rows = (np.arange(shape[0], dtype=np.float32) / scale + rng.uniform(1, 2))[:, None]
    columns = (np.arange(shape[1], dtype=np.float32) / scale + rng.uniform(1, 2))[None, :]
    return bicubic(grid, rows[:, 0], columns[0]) * np.float32(1.5)


def bicubic(grid: FloatArray, rows: FloatArray, columns: FloatArray) -> FloatArray:
    """Values of a uniform cubic B-spline with coefficients `grid` at rows x columns."""
    return np.asarray(_spline(_spline(grid, rows).T, columns).T, dtype=np.float32)


def _spline(grid: FloatArray, at: FloatArray) -> FloatArray:
    """Cubic B-spline along axis 0 at fractional indices in [1, len - 2); (len(at), w)."""
    low = np.floor(at).astype(np.int64)
    t = (at - low).astype(np.float32)[:, None]
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    result: FloatArray = np.zeros((len(at), grid.shape[1]), dtype=np.float32)
    for shift, weight in zip((-1, 0, 1, 2), weights, strict=True):
        result += weight * grid[low + shift]
    return result


Area = tuple[slice, slice]
GRAIN_PIXEL = 4.0
"""Å; strengths of grain are rad in a pixel of this side."""


def mottle(canvas: Canvas, dx: FloatArray, dy: FloatArray, scale: float, rng: np.random.Generator) -> FloatArray:
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


def polygon(dx: FloatArray, dy: FloatArray, normals: NDArray[np.float64], reaches: NDArray[np.float64]) -> FloatArray:
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


def bend_contours(canvas: Canvas, dx: FloatArray, dy: FloatArray, scale: float, rng: np.random.Generator) -> FloatArray:
    """Dark bands, 0 to 1, where a crystal bent over `scale` Å meets the Bragg condition."""
    tilt = mottle(canvas, dx, dy, scale, rng) * np.float32(rng.uniform(0.8, 2.0))
    width = np.float32(rng.uniform(0.15, 0.5))
    return np.asarray(np.exp(-(((tilt - np.float32(rng.normal(0, 0.5))) / width) ** 2)), dtype=np.float32)
