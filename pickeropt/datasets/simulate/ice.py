"""Painters of bad ice: balls, clusters, crystals, drops, cracks and bubbles.

Each adds one to the canvas at x, y px and marks where it lies. Sizes are multiples of the
particle diameter, so that a view of some diameters sees the same things whatever the
molecule; thickness and scattering are physical.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pickeropt.datasets.simulate.canvas import Canvas, smooth_field
from pickeropt.records import FloatArray

ICE_VOLT, ICE_PATH = 4.5, 3000.0
"""V and Å: mean inner potential of ice, and a mean free path set by eye to real ice balls."""
WHOLE = (slice(None), slice(None))


def outline(
    dx: FloatArray, dy: FloatArray, radius: float, rng: np.random.Generator, rough: float
) -> FloatArray:
    """Relative distance r/R(angle) for an irregular, possibly long outline; 1 on the outline."""
    turn, stretch = rng.uniform(0, 2 * np.pi), 1.0 + 2.0 * rough * rng.uniform()
    u = (dx * np.float32(np.cos(turn)) + dy * np.float32(np.sin(turn))) / np.float32(stretch)
    v = (dy * np.float32(np.cos(turn)) - dx * np.float32(np.sin(turn))) * np.float32(stretch**0.5)
    angle = np.arctan2(v, u)
    edge: FloatArray = np.ones(angle.shape, dtype=np.float32)
    for order in range(2, 6):
        shift = np.float32(rng.uniform(0, 2 * np.pi))
        edge += np.float32(rough * rng.normal() / order) * np.cos(order * angle + shift)
    return np.asarray(np.hypot(u, v) / (np.float32(radius) * np.maximum(edge, 0.3)), dtype=np.float32)


def random_path(
    x: float, y: float, steps: int, step: float, turn: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(steps, 2) px of a smooth random curve whose middle is x, y; it turns by about `turn` rad."""
    bend = np.cumsum(np.cumsum(rng.normal(0.0, turn * np.sqrt(3.0) / steps**1.5, steps)))
    angle = rng.uniform(0, 2 * np.pi) + bend
    points = np.cumsum(np.stack([np.cos(angle), np.sin(angle)], axis=1) * step, axis=0)
    return np.asarray(points - points[steps // 2] + np.array([x, y]))


def _ball(canvas: Canvas, x: float, y: float, radius: float, rng: np.random.Generator, kind: str) -> None:
    """A slightly irregular ball of ice of `radius` Å on the surface."""
    area, dx, dy = canvas.window(x, y, 1.4 * radius)
    r = outline(dx, dy, radius, rng, rough=0.06)
    height = np.float32(2.0 * radius * rng.uniform(0.5, 1.0))
    path = ICE_PATH * rng.uniform(0.4, 1.5)
    canvas.add_matter(area, height * np.sqrt(np.clip(1 - r * r, 0, None)), ICE_VOLT, path)
    canvas.mark(area, r < 1, kind)


def ice_ball(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    radius = canvas.diameter * rng.uniform(0.4, 1.3)
    _ball(canvas, x, y, radius, rng, "ice_ball")
    if rng.uniform() < 0.3:
        angle, second = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.3, 0.7)
        reach = (radius + 0.6 * second) / canvas.pixel_size
        _ball(canvas, x + reach * np.cos(angle), y + reach * np.sin(angle), second, rng, "ice_ball")


def ice_cluster(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """A fused chain of dense grains, the black lumps of many grids."""
    angle = rng.uniform(0, 2 * np.pi)
    for _ in range(int(rng.integers(3, 9))):
        radius = canvas.diameter * rng.uniform(0.25, 0.7)
        area, dx, dy = canvas.window(x, y, 1.6 * radius)
        r = outline(dx, dy, radius, rng, rough=0.2)
        thick = np.float32(max(1500.0, 4 * radius)) * np.sqrt(np.clip(1 - r * r, 0, None))
        canvas.add_matter(area, thick, 0.4 * ICE_VOLT, 0.7 * ICE_PATH)
        canvas.mark(area, r < 1, "ice_cluster")
        angle += rng.normal(0, 0.9)
        x += 1.1 * radius / canvas.pixel_size * np.cos(angle)
        y += 1.1 * radius / canvas.pixel_size * np.sin(angle)


def ice_crystal(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """A faceted plate: the intersection of half planes, darkened by diffraction."""
    radius = canvas.diameter * rng.uniform(0.6, 1.6)
    area, dx, dy = canvas.window(x, y, 1.6 * radius)
    turn, depth = rng.uniform(0, 2 * np.pi), np.full((dy.shape[0], dx.shape[1]), np.inf, dtype=np.float32)
    for facet in range(6):
        normal = turn + facet * np.pi / 3 + rng.normal(0, 0.08)
        reach = np.float32(radius * rng.uniform(0.6, 1.1))
        depth = np.minimum(depth, reach - dx * np.float32(np.cos(normal)) - dy * np.float32(np.sin(normal)))
    plate = np.clip(2.0 * depth, 0.0, np.float32(radius * rng.uniform(0.5, 1.5)))
    canvas.add_matter(area, plate, ICE_VOLT, ICE_PATH / rng.uniform(1.0, 2.5))
    canvas.mark(area, depth > 0, "ice_crystal")


def crystalline_ice(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """A patch of devitrified ice: bend contours, dark and bright, and grain boundaries."""
    radius = canvas.diameter * rng.uniform(2.0, 6.0)
    area, dx, dy = canvas.window(x, y, 1.8 * radius)
    r = outline(dx, dy, radius, rng, rough=0.25)
    soft = np.clip((1.0 - r) * 4.0, 0.0, 1.0)
    shape = (r.shape[0], r.shape[1])
    grain = canvas.diameter * rng.uniform(0.35, 0.8) / canvas.pixel_size
    contours = smooth_field(shape, grain, rng) * np.abs(smooth_field(shape, 1.5 * grain, rng))
    walls = np.exp(-((smooth_field(shape, 0.6 * grain, rng) / np.float32(0.12)) ** 2))
    canvas.absorption[area] += soft * np.float32(rng.uniform(0.01, 0.03)) * contours
    canvas.phase[area] -= soft * walls * np.float32(rng.uniform(0.03, 0.1))
    canvas.mark(area, r < 0.9, "crystalline_ice")


def ethane(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """A flat drop with a sharp edge, often long."""
    radius = canvas.diameter * rng.uniform(0.5, 1.6)
    area, dx, dy = canvas.window(x, y, 3.2 * radius)
    r = outline(dx, dy, radius, rng, rough=0.3)
    rim = np.clip((1.0 - r) * np.float32(radius / 60.0), 0.0, 1.0)
    thick = rim * np.float32(rng.uniform(80.0, 350.0))
    canvas.add_matter(area, thick, 0.5 * ICE_VOLT, ICE_PATH)
    canvas.mark(area, r < 1, "ethane")


def crack(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """A crack through the ice: a thin bright band along a bent line."""
    width = canvas.diameter * rng.uniform(0.15, 0.45)
    depth = rng.uniform(40.0, 160.0)
    step = 0.5 * canvas.pixel_size
    count = int(canvas.diameter * rng.uniform(4.0, 20.0) / step)
    column, row = np.rint(random_path(x, y, count, 0.5, 0.5, rng)).astype(np.int64).T
    h, w = canvas.shape
    within = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    line = np.ones(canvas.shape, dtype=bool)
    line[row[within], column[within]] = False
    gap = ndimage.distance_transform_edt(line).astype(np.float32)
    profile = np.exp(-((gap * np.float32(canvas.pixel_size / (0.5 * width))) ** 2))
    canvas.add_matter(WHOLE, profile * np.float32(-depth), ICE_VOLT, ICE_PATH)
    canvas.mark(WHOLE, profile > 0.2, "crack")


def bubble(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """Radiolysis bubbles: foam of bright spots in thick or contaminated ice."""
    for _ in range(int(rng.integers(4, 16))):
        radius = canvas.diameter * rng.uniform(0.12, 0.4)
        px, py = rng.normal((x, y), 0.7 * canvas.diameter / canvas.pixel_size)
        area, dx, dy = canvas.window(px, py, 1.1 * radius)
        hollow = np.sqrt(np.clip(np.float32(radius**2) - dx * dx - dy * dy, 0, None))
        canvas.add_matter(area, -0.8 * hollow, ICE_VOLT, ICE_PATH)
        canvas.mark(area, hollow > 0, "bubble")
