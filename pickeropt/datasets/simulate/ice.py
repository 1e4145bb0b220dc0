"""Painters of bad ice: balls, clusters, ethane drops, cracks, bubbles and crystals.

Each adds one to the canvas at x, y px and marks where it lies. Sizes are multiples of the particle diameter,
so that a view of some diameters shows the same objects whatever the molecule; thickness and scattering are
physical.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pickeropt.datasets.simulate.canvas import (
    Area,
    Canvas,
    add_grain,
    bend_contours,
    bicubic,
    cells,
    mottle,
    polygon,
    smooth_field,
    smoothstep,
    waves,
)
from pickeropt.records import FloatArray

ICE_VOLT, ICE_PATH = 4.5, 3000.0
"""V and Å: mean inner potential of ice, and a mean free path set by eye to real ice balls."""
ICE_GRAIN = 0.03
"""rad of phase noise in a 4 Å pixel of 300 Å of junk ice, frost and dirt included; by eye."""
WHOLE = (slice(None), slice(None))


def outline(dx: FloatArray, dy: FloatArray, radius: float, rng: np.random.Generator, rough: float) -> FloatArray:
    """Relative distance r/R(angle) for an irregular, possibly long outline; 1 on the outline."""
    turn, stretch = rng.uniform(0, 2 * np.pi), 1.0 + 2.0 * rough * rng.uniform()
    u = (dx * np.float32(np.cos(turn)) + dy * np.float32(np.sin(turn))) / np.float32(stretch)
    v = (dy * np.float32(np.cos(turn)) - dx * np.float32(np.sin(turn))) * np.float32(stretch**0.5)
    angle = np.arctan2(v, u)
    edge: FloatArray = np.ones(angle.shape, dtype=np.float32)
    for order in range(2, 7):
        shift = np.float32(rng.uniform(0, 2 * np.pi))
        edge += np.float32(1.6 * rough * rng.normal() / order**1.5) * np.cos(order * angle + shift)
    return np.asarray(np.hypot(u, v) / (np.float32(radius) * np.maximum(edge, 0.3)), dtype=np.float32)


def random_path(
    x: float, y: float, steps: int, step: float, turn: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(steps, 2) px of a smooth random curve whose middle is x, y; it turns by about `turn` rad."""
    bend = np.cumsum(np.cumsum(rng.normal(0.0, turn * np.sqrt(3.0) / steps**1.5, steps)))
    angle = rng.uniform(0, 2 * np.pi) + bend
    points = np.cumsum(np.stack([np.cos(angle), np.sin(angle)], axis=1) * step, axis=0)
    return np.asarray(points - points[steps // 2] + np.array([x, y]))


def add_ice(canvas: Canvas, area: Area, thickness: FloatArray, darkness: float, rng: np.random.Generator) -> None:
    """Add ice that absorbs `darkness` times as much as vitreous ice, with its own grain."""
    canvas.add_matter(area, thickness, ICE_VOLT, ICE_PATH / darkness)
    add_grain(canvas, area, np.sqrt(thickness / np.float32(300.0)) * np.float32(ICE_GRAIN), rng)


def _ball(canvas: Canvas, x: float, y: float, radius: float, rng: np.random.Generator, kind: str) -> None:
    """A ball or a flattened one of `radius` Å: soft or flat shading, dark domains inside."""
    area, dx, dy = canvas.window(x, y, 1.4 * radius)
    r = outline(dx, dy, radius, rng, rough=rng.uniform(0.01, 0.12))
    if rng.uniform() < 0.2:
        normals = np.arange(6) * np.pi / 3 + rng.uniform(0, np.pi)
        r = np.maximum(r, 1 - polygon(dx, dy, normals, radius * rng.uniform(0.8, 1.0, 6)) / np.float32(radius))
    full = np.float32(2.0 * radius * rng.uniform(0.35, 1.0))
    inside = np.clip(1 - np.abs(r) ** np.float32(rng.uniform(2.0, 7.0)), 0, None)
    thickness = full * np.sqrt(inside)
    thickness *= 1.0 + np.float32(rng.uniform(0, 0.12)) * mottle(canvas, dx, dy, 0.3 * radius, rng)
    add_ice(canvas, area, np.clip(thickness, 0, None), rng.uniform(0.8, 3.2), rng)
    if rng.uniform() < 0.6:
        domains = bend_contours(canvas, dx, dy, radius * rng.uniform(0.4, 0.9), rng)
        canvas.absorption[area] += domains * np.sqrt(inside) * np.float32(rng.uniform(0.01, 0.12))
    canvas.mark(area, r < 1, kind)


def ice_ball(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """One ball, two or three that touch, or a shower of small ones."""
    if rng.uniform() < 0.25:
        spread = canvas.diameter * rng.uniform(1.5, 4.0) / canvas.pixel_size
        for px, py in rng.normal((x, y), spread, (int(rng.integers(4, 12)), 2)):
            _ball(canvas, px, py, canvas.diameter * rng.uniform(0.2, 0.6), rng, "ice_ball")
        return
    radius = canvas.diameter * float(np.exp(rng.uniform(np.log(0.3), np.log(1.7))))
    _ball(canvas, x, y, radius, rng, "ice_ball")
    for _ in range(int(rng.choice(3, p=(0.6, 0.25, 0.15)))):
        angle, second = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.3, 0.9)
        reach = (radius + rng.uniform(0.3, 1.0) * second) / canvas.pixel_size
        _ball(canvas, x + reach * np.cos(angle), y + reach * np.sin(angle), second, rng, "ice_ball")


def ice_cluster(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """Fused dense grains, round and faceted, in a chain or a clump: the black lumps of many grids."""
    angle, turn = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 2.5)
    size, dark = canvas.diameter * rng.uniform(0.2, 0.7), rng.uniform(0.7, 2.5)
    for _ in range(int(rng.integers(3, 13))):
        radius = size * rng.uniform(0.6, 1.4)
        area, dx, dy = canvas.window(x, y, 1.7 * radius)
        if rng.uniform() < 0.75:
            r = outline(dx, dy, radius, rng, rough=0.12)
        else:
            normals = np.sort(rng.uniform(0, 2 * np.pi, 3))[:, None] + np.array([0.0, np.pi])
            reaches = radius * rng.uniform(0.5, 1.1, normals.size)
            r = 1 - polygon(dx, dy, normals.ravel(), reaches) / np.float32(radius)
        inside = np.clip((1 - r) * np.float32(rng.uniform(1.2, 4.0)), 0, 1)
        rough = 1.0 + np.float32(0.25) * mottle(canvas, dx, dy, 0.4 * radius, rng)
        full = np.float32(rng.uniform(0.8, 2.6) * radius)
        add_ice(canvas, area, full * np.sqrt(inside) * np.clip(rough, 0.1, 2), dark, rng)
        canvas.mark(area, inside > 0, "ice_cluster")
        angle += rng.normal(0, turn)
        x += 1.1 * radius / canvas.pixel_size * np.cos(angle)
        y += 1.1 * radius / canvas.pixel_size * np.sin(angle)


def ethane(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """Flat drops with a crisp edge, round, long or drawn to a point, alone or scattered."""
    count = int(rng.choice((1, 2, 4, 8), p=(0.35, 0.25, 0.25, 0.15)))
    for _ in range(count):
        radius = canvas.diameter * rng.uniform(0.35, 1.5) / (1.0 + 0.06 * count)
        area, dx, dy = canvas.window(x, y, 3.0 * radius)
        r = outline(dx, dy, radius, rng, rough=rng.choice((0.04, 0.12, 0.22)))
        rim = smoothstep((1.0 - r) * np.float32(radius / rng.uniform(15.0, 90.0)))
        turn, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.6) / radius
        tilt = 1.0 + dx * np.float32(slope * np.cos(turn)) + dy * np.float32(slope * np.sin(turn))
        meniscus = np.float32(rng.uniform(-0.4, 0.8)) * np.exp(-((np.clip(1 - r, 0, 1) / 0.2) ** 2))
        thickness = np.clip(rim * tilt * (1 + meniscus), 0, None) * np.float32(rng.uniform(60.0, 400.0))
        canvas.add_matter(area, thickness, rng.uniform(0.4, 0.9) * ICE_VOLT, ICE_PATH / rng.uniform(0.7, 1.6))
        add_grain(canvas, area, np.sqrt(thickness / np.float32(300.0)) * np.float32(0.7 * ICE_GRAIN), rng)
        canvas.mark(area, r < 1, "ethane")
        x, y = rng.normal((x, y), 2.0 * canvas.diameter / canvas.pixel_size)


def _jagged(x: float, y: float, length: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(m, 2) px half a pixel or so apart along a line of straight pieces that starts at x, y."""
    pieces = int(rng.integers(3, 10))
    angle = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, rng.uniform(0.1, 0.6), pieces))
    legs = rng.exponential(length / pieces, pieces)[:, None]
    turns = legs * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    corners = np.array([x, y]) + np.concatenate([np.zeros((1, 2)), np.cumsum(turns, axis=0)])
    along = np.concatenate([[0.0], np.cumsum(legs)])
    fine = np.arange(0.0, along[-1], 0.5)
    return np.stack([np.interp(fine, along, corners[:, axis]) for axis in (0, 1)], axis=1)


def _gap(canvas: Canvas, path: NDArray[np.float64], step: int) -> FloatArray:
    """Å from the path of (m, 2) px to each pixel of the canvas, reckoned on every `step`-th."""
    h, w = canvas.shape
    line = np.ones((h // step + 6, w // step + 6), dtype=bool)
    column, row = np.rint(path / step + 2).astype(np.int64).T
    within = (column >= 0) & (column < line.shape[1]) & (row >= 0) & (row < line.shape[0])
    line[row[within], column[within]] = False
    if line.all():
        return np.full(canvas.shape, np.inf, dtype=np.float32)
    far = ndimage.distance_transform_edt(line).astype(np.float32) * np.float32(step * canvas.pixel_size)
    rows, columns = (np.arange(side, dtype=np.float32) / np.float32(step) + 2 for side in (h, w))
    return bicubic(far, rows, columns)


def crack(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """A crack: a bright gap, jagged and branched or bent, some with raised dark lips; or a dark fold."""
    width = canvas.diameter * rng.uniform(0.1, 0.5)
    length = canvas.diameter * rng.uniform(4.0, 20.0) / canvas.pixel_size
    if rng.uniform() < 0.6:
        parts = [_jagged(x, y, length, rng)]
        for _ in range(int(rng.integers(0, 4))):
            start = parts[0][int(rng.integers(len(parts[0])))]
            parts.append(_jagged(float(start[0]), float(start[1]), 0.4 * length, rng))
        path = np.concatenate(parts)
    else:
        path = random_path(x, y, max(8, int(length / 0.5)), 0.5, rng.uniform(0.3, 2.5), rng)
    gap = _gap(canvas, path, max(1, int(0.2 * width / canvas.pixel_size)))
    uneven = smooth_field(canvas.shape, rng.uniform(0.8, 6.0) * canvas.diameter / canvas.pixel_size, rng)
    gap /= np.exp(np.float32(rng.uniform(0.2, 0.7)) * uneven)
    gap += smooth_field(canvas.shape, 0.5 * width / canvas.pixel_size, rng) * np.float32(0.06 * width)
    edge = np.float32(rng.uniform(0.15, 1.2) * width)
    profile = smoothstep((np.float32(0.5 * width) + 0.5 * edge - gap) / edge)
    depth = float(np.exp(rng.uniform(np.log(25.0), np.log(250.0)))) * rng.choice((-1.0, 0.6), p=(0.8, 0.2))
    thickness = profile * np.float32(depth)
    if rng.uniform() < 0.5:
        lip = np.exp(-(((gap - np.float32(0.9 * width)) / np.float32(0.3 * width)) ** 2))
        thickness += lip * np.float32(rng.uniform(0.1, 0.5) * abs(depth))
    canvas.add_matter(WHOLE, thickness, ICE_VOLT, ICE_PATH / rng.uniform(0.7, 2.0))
    canvas.mark(WHOLE, gap < max(0.6 * width, 2.0 * canvas.pixel_size), "crack")


def bubble(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """Radiolysis bubbles: a foam of bright spots of like size, often in a darker lump."""
    spread = canvas.diameter * rng.uniform(0.4, 1.0)
    size = canvas.diameter * rng.uniform(0.1, 0.32)
    if rng.uniform() < 0.6:
        area, dx, dy = canvas.window(x, y, 3.0 * spread)
        lump = smoothstep((1.0 - outline(dx, dy, 1.7 * spread, rng, 0.2)) * np.float32(rng.uniform(1.5, 6.0)))
        add_ice(canvas, area, lump * np.float32(rng.uniform(50.0, 250.0)), rng.uniform(0.7, 1.5), rng)
        canvas.mark(area, lump > 0.2, "bubble")
    depth = rng.uniform(0.9, 2.0)
    for px, py in rng.normal((x, y), 0.6 * spread / canvas.pixel_size, (int(rng.integers(5, 30)), 2)):
        radius = size * rng.lognormal(0.0, 0.3)
        area, dx, dy = canvas.window(px, py, 1.1 * radius)
        hollow = np.sqrt(np.clip(np.float32(radius**2) - dx * dx - dy * dy, 0, None))
        canvas.add_matter(area, np.float32(-depth) * hollow, ICE_VOLT, ICE_PATH)
        canvas.mark_disc(px, py, 1.3 * radius, "bubble")


LATTICE = (3.90, 3.67, 3.44)
"""Å, the three widest spacings of hexagonal ice."""


def _fringes(canvas: Canvas, dx: FloatArray, dy: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Lattice planes where the pixel resolves them, or the coarser moiré of two lattices."""
    spacing = float(rng.choice(LATTICE))
    if spacing < 2.6 * canvas.pixel_size or rng.uniform() < 0.5:
        spacing = rng.uniform(max(14.0, 3.0 * canvas.pixel_size), 60.0)
    return waves(dx, dy, spacing, rng)


def ice_crystal(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """A faceted crystal (hexagon, square or rhomb, triangle, needle), or a few that touch."""
    for _ in range(int(rng.choice((1, 2, 4), p=(0.65, 0.2, 0.15)))):
        radius = canvas.diameter * rng.uniform(0.4, 1.7)
        _crystal(canvas, x, y, radius, rng)
        x, y = rng.normal((x, y), 0.8 * radius / canvas.pixel_size)


def _crystal(canvas: Canvas, x: float, y: float, radius: float, rng: np.random.Generator) -> None:
    """One crystal: flat or bevelled, its thickness in fringes, its darkness by orientation."""
    area, dx, dy = canvas.window(x, y, 2.6 * radius)
    sides = int(rng.choice((6, 4, 3), p=(0.5, 0.4, 0.1)))
    normals = rng.uniform(0, 2 * np.pi) + np.arange(sides) * 2 * np.pi / sides
    reaches = radius * rng.uniform(0.6, 1.0) * rng.uniform(0.85, 1.15, sides)
    if sides == 4:
        normals[1::2] += rng.uniform(-0.4, 0.4)
    if sides % 2 == 0 and rng.uniform() < 0.35:
        reaches[:: sides // 2] *= rng.uniform(0.2, 0.5)
    depth = polygon(dx, dy, normals, reaches)
    full = radius * rng.uniform(0.2, 1.2)
    bevel = rng.choice((10.0, 0.3 * radius, 1.2 * radius))
    plate = np.float32(full) * np.clip(depth / np.float32(bevel), 0.0, 1.0)
    inside = smoothstep(depth / np.float32(12.0))
    add_ice(canvas, area, plate, rng.uniform(0.4, 1.6), rng)
    dark: FloatArray = inside * np.float32(rng.exponential(0.03))
    if rng.uniform() < 0.6:
        dark += (
            inside
            * bend_contours(canvas, dx, dy, radius * rng.uniform(0.5, 1.2), rng)
            * np.float32(rng.uniform(0.02, 0.12))
        )
    if rng.uniform() < 0.5:
        period = np.float32(2 * np.pi / rng.uniform(100.0, 350.0))
        dark += inside * (1 - np.cos(plate * period)) * np.float32(rng.uniform(0.004, 0.04))
    canvas.absorption[area] += dark
    canvas.phase[area] += inside * _fringes(canvas, dx, dy, rng) * np.float32(min(rng.exponential(0.02), 0.1))
    canvas.mark(area, depth > 0, "ice_crystal")


def crystalline_ice(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """A patch of devitrified ice: grains, walls, dark Bragg spots and the bright ones they cast."""
    radius = canvas.diameter * rng.uniform(2.0, 6.0)
    area, dx, dy = canvas.window(x, y, 1.6 * radius)
    r = outline(dx, dy, radius, rng, rough=0.15)
    r += 0.15 * mottle(canvas, dx, dy, canvas.diameter, rng)
    soft = smoothstep((1.1 - r) * np.float32(rng.uniform(1.5, 4.0)))
    grain = canvas.diameter * rng.uniform(0.5, 1.6)
    gap, tone = cells(dx, dy, grain, rng)
    uneven = np.clip(0.5 + 0.7 * mottle(canvas, dx, dy, 0.7 * grain, rng), 0, 2)
    wall = np.exp(-((gap / np.float32(rng.uniform(10.0, 30.0) + 1.5 * canvas.pixel_size)) ** 2)) * uneven
    veil = mottle(canvas, dx, dy, canvas.diameter * rng.uniform(0.15, 0.4), rng)
    veil += 0.7 * mottle(canvas, dx, dy, canvas.diameter * rng.uniform(0.6, 1.5), rng)
    strength = rng.uniform(0.4, 1.3)
    dark = veil * np.float32(0.012) + tone * np.float32(rng.uniform(0.0, 0.03))
    canvas.absorption[area] += soft * dark * np.float32(strength)
    canvas.phase[area] += soft * np.float32(strength) * (wall * np.float32(rng.uniform(-0.25, 0.35)))
    rough = mottle(canvas, dx, dy, rng.uniform(8.0, 25.0), rng) * np.float32(rng.uniform(0.01, 0.06))
    canvas.phase[area] += soft * rough * np.float32(strength)
    canvas.mark(area, r < 0.95, "crystalline_ice")
    spots = int(rng.poisson(0.2 * (radius / canvas.diameter) ** 2 * rng.uniform(0.5, 2.0))) + 1
    for _ in range(spots):
        angle, reach = rng.uniform(0, 2 * np.pi), 0.85 * radius * np.sqrt(rng.uniform()) / canvas.pixel_size
        _bragg_spot(canvas, x + reach * np.cos(angle), y + reach * np.sin(angle), strength, rng)


def _bragg_spot(canvas: Canvas, x: float, y: float, strength: float, rng: np.random.Generator) -> None:
    """A grain in the Bragg condition: a dark spot, fringes in it, and its bright ghost beside it."""
    size = canvas.diameter * rng.uniform(0.25, 0.7)
    angle, shift = rng.uniform(0, 2 * np.pi), canvas.diameter * rng.uniform(0.8, 2.0) / canvas.pixel_size
    dark = strength * rng.uniform(0.03, 0.16)
    ghost = (x + shift * np.cos(angle), y + shift * np.sin(angle), -0.6 * rng.uniform())
    for px, py, amount in ((x, y, 1.0), ghost):
        area, dx, dy = canvas.window(px, py, 2.5 * size)
        r = outline(dx, dy, size, rng, rough=0.15) + 0.2 * mottle(canvas, dx, dy, 0.5 * size, rng)
        spot = np.exp(-(np.abs(r) ** np.float32(rng.uniform(1.5, 3.0))))
        spot *= np.clip(1.0 + np.float32(0.35) * mottle(canvas, dx, dy, 0.35 * size, rng), 0, None)
        canvas.absorption[area] += spot * np.float32(amount * dark)
        if amount > 0:
            fringe = _fringes(canvas, dx, dy, rng) * np.float32(rng.uniform(0.0, 0.3) * dark)
            canvas.absorption[area] += spot * fringe
            canvas.phase[area] += spot * np.float32(ICE_VOLT * canvas.radian * rng.uniform(0.0, 60.0))
