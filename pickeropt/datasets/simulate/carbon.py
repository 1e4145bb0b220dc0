"""Painters of the support: edges of holey carbon and gold, strands and continuous film.

Each is a signed distance in Å (positive inside the support) turned into a thickness.
"""

from collections.abc import Callable

import numpy as np

from pickeropt.datasets.simulate.canvas import Canvas, smooth_field
from pickeropt.datasets.simulate.config import SOURCE_NAMES
from pickeropt.datasets.simulate.contaminants import GOLD_PATH, GOLD_VOLT
from pickeropt.records import FloatArray

CARBON_VOLT, CARBON_PATH = 9.0, 3000.0
"""V and Å; the free path is set by eye to the darkness of carbon in real micrographs."""
CARBON_GRAIN = 0.05
"""rad of phase noise in a 4 Å pixel of a 150 Å film: the rough grain of amorphous carbon, set by eye."""

Distance = Callable[[Canvas, FloatArray, FloatArray, np.random.Generator], FloatArray]


def paint_carbon(canvas: Canvas, kind: str, rng: np.random.Generator) -> None:
    """Add a support of `kind` (of CARBON_KINDS) to the canvas, and mark it."""
    h, w = canvas.shape
    dx = (np.arange(w, dtype=np.float32)[None, :] - np.float32(w / 2)) * np.float32(canvas.pixel_size)
    dy = (np.arange(h, dtype=np.float32)[:, None] - np.float32(h / 2)) * np.float32(canvas.pixel_size)
    turn = np.float32(rng.uniform(0, 2 * np.pi))
    across, along = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    inside = DISTANCES[kind](canvas, across, along, rng)
    if kind == "gold_edge":
        _add_gold(canvas, inside, rng)
    else:
        _add_carbon(canvas, kind, inside, rng)
    canvas.source[inside > 0] = SOURCE_NAMES.index(kind)


def _add_carbon(canvas: Canvas, kind: str, inside: FloatArray, rng: np.random.Generator) -> None:
    """Amorphous carbon: a ramp at the edge, thickness that wanders, a rough grain."""
    full = rng.uniform(50.0, 120.0) if kind == "film" else rng.uniform(80.0, 220.0)
    ramp = canvas.diameter * 6.0 if kind == "film" else rng.uniform(25.0, 90.0)
    profile = np.clip(inside / np.float32(ramp), 0.0, 1.0)
    profile = profile * profile * (3.0 - 2.0 * profile)
    rough = smooth_field(canvas.shape, 90.0 / canvas.pixel_size, rng) * np.float32(rng.uniform(0.02, 0.12))
    thickness = profile * (1.0 + rough) * np.float32(full)
    if kind == "rim_edge":
        width = rng.uniform(60.0, 160.0)
        bump = np.exp(-(((inside - np.float32(1.5 * width)) / np.float32(width)) ** 2)) * profile
        thickness += bump * np.float32(full * rng.uniform(0.5, 1.2))
    whole = (slice(0, canvas.shape[0]), slice(0, canvas.shape[1]))
    canvas.add_matter(whole, thickness, CARBON_VOLT, CARBON_PATH * rng.uniform(0.6, 2.0))
    grain = rng.standard_normal(canvas.shape, dtype=np.float32)
    strength = np.float32(CARBON_GRAIN * 4.0 / canvas.pixel_size * rng.uniform(0.7, 1.6))
    canvas.phase += grain * strength * np.sqrt(np.clip(thickness, 0, None) / np.float32(150.0))


def _add_gold(canvas: Canvas, inside: FloatArray, rng: np.random.Generator) -> None:
    """Polycrystalline gold: nearly black grains, each with its own diffraction."""
    grains = smooth_field(canvas.shape, canvas.diameter * rng.uniform(0.3, 0.7) / canvas.pixel_size, rng)
    levels = np.floor(grains * 2.0) * np.float32(0.25)
    thickness = np.clip(inside * 3.0, 0.0, np.float32(rng.uniform(250.0, 400.0)))
    whole = (slice(0, canvas.shape[0]), slice(0, canvas.shape[1]))
    canvas.add_matter(whole, thickness * (1.0 + 0.3 * levels), 0.3 * GOLD_VOLT, GOLD_PATH)


def _reach(canvas: Canvas, rng: np.random.Generator) -> np.float32:
    """Å from the centre of the field to an edge that covers a fifth or so of it."""
    half = 0.5 * (min(canvas.shape) - 2 * canvas.pad) * canvas.pixel_size
    return np.float32(half * rng.uniform(0.25, 1.0))


def _hole(canvas: Canvas, across: FloatArray, along: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Outside of a round hole of 0.6 to 1.3 µm, but never smaller than the field."""
    half = 0.5 * min(canvas.shape) * canvas.pixel_size
    radius = np.float32(max(rng.uniform(6000.0, 13000.0), half * rng.uniform(1.2, 2.0)))
    edge = _reach(canvas, rng)
    wobble = smooth_field(canvas.shape, 700.0 / canvas.pixel_size, rng) * np.float32(12.0)
    result: FloatArray = np.hypot(across + (radius - edge), along) - radius + wobble
    return result


def _straight(canvas: Canvas, across: FloatArray, along: FloatArray, rng: np.random.Generator) -> FloatArray:
    result: FloatArray = across - _reach(canvas, rng) + along * np.float32(0)
    return result


def _ragged(canvas: Canvas, across: FloatArray, along: FloatArray, rng: np.random.Generator) -> FloatArray:
    scale = canvas.diameter * rng.uniform(0.5, 1.5) / canvas.pixel_size
    wobble = smooth_field(canvas.shape, scale, rng) * np.float32(canvas.diameter * rng.uniform(0.2, 0.5))
    return _hole(canvas, across, along, rng) + wobble


def _bar(canvas: Canvas, across: FloatArray, along: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The bridge between two holes."""
    half = np.float32(canvas.diameter * rng.uniform(1.0, 2.5))
    curve = along * along / np.float32(2.0 * rng.uniform(6000.0, 13000.0))
    result: FloatArray = half + curve - np.abs(across - _reach(canvas, rng))
    return result


def _lacey(canvas: Canvas, across: FloatArray, along: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Wandering strands of uneven width."""
    scale = canvas.diameter * rng.uniform(5.0, 9.0) / canvas.pixel_size
    field = smooth_field(canvas.shape, scale, rng)
    rise, run = np.gradient(field, canvas.pixel_size)
    width = np.float32(canvas.diameter * rng.uniform(0.3, 0.8))
    result: FloatArray = width - np.abs(field) / np.maximum(np.hypot(rise, run), np.float32(1e-5))
    return result


def _film(canvas: Canvas, across: FloatArray, along: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Continuous film that sets in without an edge."""
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
