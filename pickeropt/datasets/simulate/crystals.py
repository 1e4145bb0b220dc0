"""Painters of crystals: hexagonal and cubic ice, needles, and patches of devitrified ice."""

import numpy as np

from pickeropt.datasets.simulate.canvas import Canvas
from pickeropt.datasets.simulate.ice import ICE_VOLT, add_ice, outline
from pickeropt.datasets.simulate.texture import bend_contours, cells, mottle, polygon, smoothstep, waves
from pickeropt.records import FloatArray

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
