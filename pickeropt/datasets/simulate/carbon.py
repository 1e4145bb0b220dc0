"""Painters of the support: edges of holey carbon and gold, strands and continuous carbon film.

Each is a signed distance in Å (positive inside the support) turned into a thickness.
"""

from collections.abc import Callable

import numpy as np

from pickeropt.datasets.simulate.canvas import Canvas, add_grain, bend_contours, cells, smooth_field, smoothstep
from pickeropt.datasets.simulate.contaminants import GOLD_PATH, GOLD_VOLT
from pickeropt.datasets.simulate.ice import ICE_PATH, ICE_VOLT, WHOLE
from pickeropt.datasets.simulate.simulation_config import SOURCE_NAMES
from pickeropt.records import FloatArray

CARBON_VOLT, CARBON_PATH = 9.0, 3000.0
"""V and Å; the free path is set by eye to the darkness of carbon in real micrographs."""
CARBON_GRAIN = 0.075
"""rad of phase noise in a 4 Å pixel of a 150 Å film: the rough grain of amorphous carbon, set by eye."""

Distance = Callable[[Canvas, FloatArray, FloatArray, np.random.Generator], FloatArray]


def paint_carbon(
    canvas: Canvas, kind: str, rng: np.random.Generator, material: np.random.Generator | None = None
) -> None:
    """Add a support of `kind` (of CARBON_KINDS) to the canvas, and mark it.

    material : draws what the support is made of, its thickness, grain and rim, where several micrographs share
        one; else `rng` does, which always draws where it lies
    """
    material = material or rng
    h, w = canvas.shape
    dx = (np.arange(w, dtype=np.float32)[None, :] - np.float32(w / 2)) * np.float32(canvas.pixel_size)
    dy = (np.arange(h, dtype=np.float32)[:, None] - np.float32(h / 2)) * np.float32(canvas.pixel_size)
    turn = np.float32(rng.uniform(0, 2 * np.pi))
    across, along = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    inside = DISTANCES[kind](canvas, across, along, rng)
    if kind == "gold_edge":
        inside = _add_gold(canvas, dx, dy, inside, rng, material)
    else:
        _add_carbon(canvas, kind, inside, rng, material)
    if rng.uniform() < 0.6 and kind != "film":
        _add_meniscus(canvas, inside, rng)
    canvas.source[inside > 0] = SOURCE_NAMES.index(kind)


def _add_carbon(
    canvas: Canvas, kind: str, inside: FloatArray, rng: np.random.Generator, material: np.random.Generator
) -> None:
    """Amorphous carbon: a ramp at the edge, thickness that wanders, a rough grain, a rim, ice on it."""
    film = kind == "film"
    full = material.uniform(25.0, 130.0) if film else float(np.exp(material.uniform(np.log(70.0), np.log(320.0))))
    ramp = canvas.diameter * material.uniform(0.3, 6.0) if film else float(np.exp(material.uniform(2.3, 4.8)))
    profile = smoothstep(inside / np.float32(ramp))
    rough = smooth_field(canvas.shape, material.uniform(60.0, 300.0) / canvas.pixel_size, rng)
    thickness = profile * (1.0 + rough * np.float32(material.uniform(0.01, 0.12))) * np.float32(full)
    rims = {"rim_edge": 1.0, "hole_edge": 0.5, "ragged_edge": 0.3, "lacey": 0.5, "bar": 0.4}
    if material.uniform() < rims.get(kind, 0.0):
        thickness += _rim(canvas, inside, full, kind, rng, material)
    dark = float(np.exp(material.uniform(np.log(0.25), np.log(1.6))))
    canvas.add_matter(WHOLE, thickness, CARBON_VOLT, CARBON_PATH / dark)
    strength = np.float32(CARBON_GRAIN * float(np.exp(material.uniform(np.log(0.6), np.log(2.4)))))
    add_grain(canvas, WHOLE, np.sqrt(np.clip(thickness, 0, None) / np.float32(150.0)) * strength, rng)
    if material.uniform() < 0.4:
        clumps = smooth_field(canvas.shape, material.uniform(8.0, 30.0) / canvas.pixel_size, rng)
        canvas.phase += clumps * profile * np.float32(material.uniform(0.02, 0.1))


def _rim(
    canvas: Canvas,
    inside: FloatArray,
    full: float,
    kind: str,
    rng: np.random.Generator,
    material: np.random.Generator,
) -> FloatArray:
    """The thicker lip of a hole, Å of carbon: soft and wide, or a hard narrow one; uneven along it."""
    strong = kind == "rim_edge"
    width = material.uniform(40.0, 180.0) if strong else material.uniform(20.0, 80.0)
    height = full * (material.uniform(0.5, 1.5) if strong else material.uniform(0.15, 0.7))
    hard = np.exp(-(np.abs(inside / np.float32(width) - 1.2) ** np.float32(material.choice((2.0, 4.0)))))
    uneven = 1.0 + np.float32(material.uniform(0, 0.35)) * smooth_field(
        canvas.shape, material.uniform(1.0, 5.0) * width / canvas.pixel_size, rng
    )
    return np.asarray(hard * np.clip(uneven, 0, None) * np.float32(height) * (inside > 0), dtype=np.float32)


def _add_meniscus(canvas: Canvas, inside: FloatArray, rng: np.random.Generator) -> None:
    """Ice that grows thicker towards the support, on the free side only."""
    reach = np.float32(canvas.diameter * rng.uniform(0.5, 4.0))
    swell = np.exp(np.minimum(inside, 0) / reach) * np.float32(rng.uniform(50.0, 400.0))
    canvas.absorption += swell * np.float32(0.5 / ICE_PATH)
    canvas.phase += swell * np.float32(0.15 * ICE_VOLT * canvas.radian)


def _add_gold(
    canvas: Canvas,
    dx: FloatArray,
    dy: FloatArray,
    inside: FloatArray,
    rng: np.random.Generator,
    material: np.random.Generator,
) -> FloatArray:
    """Polycrystalline gold: nearly black grains that bulge over the edge, walls, bend contours.

    Returns the distance with the bulges.
    """
    grain = material.uniform(180.0, 700.0)
    gap, tone = cells(dx, dy, grain, rng, warp=0.1)
    bulge = tone * np.float32(grain * material.uniform(0.1, 0.3))
    inside = inside + bulge * smoothstep(gap / np.float32(0.3 * grain))
    profile = smoothstep(inside / np.float32(material.uniform(20.0, 60.0)))
    full = material.uniform(180.0, 500.0)
    thickness = profile * np.float32(full) * np.clip(1.0 + np.float32(material.uniform(0.1, 0.35)) * tone, 0.3, 2)
    canvas.add_matter(WHOLE, thickness, 0.3 * GOLD_VOLT, GOLD_PATH)
    wall = np.exp(-((gap / np.float32(material.uniform(8.0, 25.0))) ** 2)) * profile
    contour = bend_contours(canvas, dx, dy, grain * material.uniform(0.4, 1.2), rng) * profile
    contour *= np.clip(0.6 + tone, 0, 1.5)
    canvas.absorption += wall * np.float32(material.uniform(-0.15, 0.4)) + contour * np.float32(
        material.uniform(0.1, 0.7)
    )
    add_grain(canvas, WHOLE, profile * np.float32(material.uniform(0.05, 0.25)), rng)
    if material.uniform() < 0.4:
        skin = smoothstep((inside + np.float32(material.uniform(60.0, 300.0))) / np.float32(15.0)) * (1 - profile)
        canvas.add_matter(WHOLE, skin * np.float32(material.uniform(15.0, 70.0)), CARBON_VOLT, CARBON_PATH)
    return inside


def _reach(canvas: Canvas, rng: np.random.Generator) -> np.float32:
    """Å from the centre of the field to an edge that covers a fifth or so of it."""
    half = 0.5 * (min(canvas.shape) - 2 * canvas.pad) * canvas.pixel_size
    return np.float32(half * rng.uniform(0.25, 1.0))


def _wobble(canvas: Canvas, rng: np.random.Generator) -> FloatArray:
    """Å by which an edge that should be smooth strays: long waves and a fine fray."""
    long = smooth_field(canvas.shape, rng.uniform(300.0, 900.0) / canvas.pixel_size, rng)
    fine = smooth_field(canvas.shape, rng.uniform(15.0, 60.0) / canvas.pixel_size, rng)
    return long * np.float32(rng.uniform(3.0, 25.0)) + fine * np.float32(rng.exponential(6.0))


def _hole(canvas: Canvas, across: FloatArray, along: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Outside of a round hole of 0.6 to 1.3 µm, but never smaller than the field."""
    half = 0.5 * min(canvas.shape) * canvas.pixel_size
    radius = np.float32(max(rng.uniform(6000.0, 13000.0), half * rng.uniform(1.2, 2.0)))
    edge = _reach(canvas, rng)
    result: FloatArray = np.hypot(across + (radius - edge), along) - radius + _wobble(canvas, rng)
    return result


def _straight(canvas: Canvas, across: FloatArray, along: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A straight edge, clean or frayed, or the corner of two."""
    result: FloatArray = across - _reach(canvas, rng) + along * np.float32(0)
    if rng.uniform() < 0.35:
        slope = np.float32(rng.uniform(0.3, 1.5))
        corner = (across + along * slope) / np.sqrt(1 + slope * slope) - _reach(canvas, rng)
        result = np.maximum(result, corner) if rng.uniform() < 0.6 else np.minimum(result, corner + result.max())
    fray = smooth_field(canvas.shape, rng.uniform(15.0, 80.0) / canvas.pixel_size, rng)
    return result + fray * np.float32(rng.exponential(8.0))


def _ragged(canvas: Canvas, across: FloatArray, along: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A torn edge: notches and tongues of several sizes, round or in straight rips."""
    hole = _hole(canvas, across, along, rng)
    if rng.uniform() < 0.4:
        size = canvas.diameter * rng.uniform(0.8, 3.0)
        dx, dy = across[:1] - across[0, 0], along[:, :1] - along[0, 0]
        turned = max(float(np.ptp(dx)), float(np.ptp(dy)), 1.0)
        span = np.linspace(0, turned, canvas.shape[1], dtype=np.float32)[None, :]
        drop = np.linspace(0, turned, canvas.shape[0], dtype=np.float32)[:, None]
        gap, tone = cells(span, drop, size, rng, warp=0.05)
        return hole + tone * np.float32(0.5 * size) + np.minimum(gap, np.float32(0.1 * size))
    for _ in range(2):
        scale = canvas.diameter * rng.uniform(0.2, 1.6)
        fray = smooth_field(canvas.shape, scale / canvas.pixel_size, rng)
        hole = hole + fray * np.float32(scale * rng.uniform(0.15, 0.45))
    return hole


def _bar(canvas: Canvas, across: FloatArray, along: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The bridge between two holes."""
    half = np.float32(canvas.diameter * rng.uniform(0.7, 3.0))
    curve = along * along / np.float32(2.0 * rng.uniform(6000.0, 13000.0))
    result: FloatArray = half + curve - np.abs(across - _reach(canvas, rng)) + _wobble(canvas, rng)
    return result


def _lacey(canvas: Canvas, across: FloatArray, along: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Wandering strands of uneven width."""
    scale = canvas.diameter * rng.uniform(2.5, 9.0) / canvas.pixel_size
    field = smooth_field(canvas.shape, scale, rng)
    rise, run = np.gradient(field, canvas.pixel_size)
    width = canvas.diameter * rng.uniform(0.3, 0.8) * (1 + 0.25 * smooth_field(canvas.shape, 0.5 * scale, rng))
    strand = np.abs(field) / np.maximum(np.hypot(rise, run), np.float32(1e-5))
    result: FloatArray = width.astype(np.float32) - strand + _wobble(canvas, rng) * np.float32(0.4)
    return result


def _film(canvas: Canvas, across: FloatArray, along: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Continuous film that sets in with a soft edge or a crisp one."""
    scale = canvas.diameter * 6.0 / canvas.pixel_size
    bend = smooth_field(canvas.shape, scale, rng) * np.float32(canvas.diameter)
    result: FloatArray = across + bend + np.float32(canvas.diameter * rng.uniform(-3.0, 2.0))
    return result


DISTANCES: dict[str, Distance] = {
    "hole_edge": _hole,
    "straight_edge": _straight,
    "ragged_edge": _ragged,
    "rim_edge": _hole,
    "bar": _bar,
    "lacey": _lacey,
    "film": _film,
    "gold_edge": _ragged,
}
