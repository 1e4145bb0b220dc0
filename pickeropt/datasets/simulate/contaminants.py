"""Painters of contaminants that are not ice; see `ice`, `crystals` and `contaminants_protein`.

Each adds one to the canvas at x, y px and marks where it lies; sizes as in `ice`.
"""

from collections.abc import Callable

import numpy as np

from pickeropt.datasets.simulate import contaminants_protein as protein
from pickeropt.datasets.simulate import crystals, ice
from pickeropt.datasets.simulate.canvas import Canvas
from pickeropt.datasets.simulate.contaminants_protein import PROTEIN_PATH
from pickeropt.datasets.simulate.ice import outline, random_path
from pickeropt.datasets.simulate.species import Points
from pickeropt.datasets.simulate.texture import add_grain

GOLD_VOLT, GOLD_PATH = 22.0, 250.0
PER_STEP = 50
"""Blobs in every 8 Å of a filament."""

Painter = Callable[[Canvas, float, float, np.random.Generator], None]


def paint_contaminant(canvas: Canvas, kind: str, x: float, y: float, rng: np.random.Generator) -> None:
    """Add one contaminant of `kind` (of CONTAMINANT_KINDS) at x, y px of the padded canvas."""
    PAINTERS[kind](canvas, x, y, rng)


def _gold_bead(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """Fiducial beads of one size: alone, scattered, or packed in a dense cluster."""
    radius = rng.uniform(22.0, 80.0)
    count = int(rng.choice((1, 3, 14), p=(0.4, 0.35, 0.25)) * rng.uniform(1.0, 2.0))
    packed = rng.uniform() < 0.5
    apart = 0.85 * radius * np.sqrt(count) if packed else 1.3 * canvas.diameter
    for px, py in rng.normal((x, y), apart / canvas.pixel_size, (count, 2)) if count > 1 else ((x, y),):
        size = radius * rng.lognormal(0.0, 0.08)
        area, dx, dy = canvas.window(px, py, 1.4 * size)
        r = outline(dx, dy, size, rng, rough=0.08)
        thick = np.float32(2 * size) * np.sqrt(np.clip(1 - r * r, 0, None))
        canvas.add_matter(area, thick, GOLD_VOLT, GOLD_PATH * rng.uniform(0.7, 1.8))
        canvas.mark_disc(px, py, max(1.2 * size, 0.35 * canvas.diameter), "gold_bead")


def _vesicle(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """Shells of one to three lipid bilayers in projection: round, dented, nested or full."""
    radius = canvas.diameter * float(np.exp(rng.uniform(np.log(0.5), np.log(2.6))))
    area, dx, dy = canvas.window(x, y, 1.5 * radius + 60.0)
    r = outline(dx, dy, radius, rng, rough=rng.uniform(0.01, 0.1)) * np.float32(radius)
    layers = int(rng.choice((1, 2, 3), p=(0.7, 0.2, 0.1)))
    for layer in range(layers):
        size = radius * (1.0 - layer * rng.uniform(0.12, 0.4))
        if size < 40.0:
            break
        for leaflet in (-17.0, 17.0):
            outer = np.sqrt(np.clip(np.float32((size + leaflet + 7.0) ** 2) - r * r, 0, None))
            inner = np.sqrt(np.clip(np.float32((size + leaflet - 7.0) ** 2) - r * r, 0, None))
            canvas.add_matter(area, 2 * (outer - inner), rng.uniform(1.5, 3.5), PROTEIN_PATH)
    if rng.uniform() < 0.4:
        full = np.float32(rng.uniform(0.03, 0.15)) * np.sqrt(np.clip(np.float32(radius**2) - r * r, 0, None))
        canvas.add_matter(area, full, 2.0, PROTEIN_PATH)
        add_grain(canvas, area, np.sqrt(full / np.float32(60.0)) * np.float32(0.05), rng)
    canvas.mark(area, r < radius + 24.0, "vesicle")


def _fibre(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """Filaments: a helix of two strands, a hollow tube, a thin thread, alone or in a bundle."""
    style = str(rng.choice(("helix", "tube", "thread"), p=(0.5, 0.2, 0.3)))
    radius = {
        "helix": rng.uniform(25.0, 60.0),
        "tube": rng.uniform(70.0, 130.0),
        "thread": rng.uniform(12.0, 28.0),
    }
    turn = {"helix": 1.3, "tube": 0.4, "thread": 4.0}[style]
    steps = int(canvas.diameter * rng.uniform(3.0, 12.0) / 8.0)
    axis = random_path(x, y, steps, 8.0 / canvas.pixel_size, turn, rng)
    copies = int(rng.choice((1, 2, 5), p=(0.7, 0.2, 0.1)))
    side = rng.normal(0, 1, 2)
    for copy in range(copies):
        offset = side * copy * radius[style] * rng.uniform(1.0, 2.0) / canvas.pixel_size
        _strand(canvas, axis + offset, style, radius[style], rng)


def _strand(canvas: Canvas, axis: Points, style: str, radius: float, rng: np.random.Generator) -> None:
    """One filament of `radius` Å about the axis (m, 2) px in steps of 8 Å."""
    side = np.gradient(axis, axis=0)[:, ::-1] * np.array([-1.0, 1.0]) * (canvas.pixel_size / 8.0)
    phase = 2 * np.pi * np.arange(len(axis)) * 8.0 / rng.uniform(150.0, 500.0)
    if style == "tube":
        angle = rng.uniform(0, 2 * np.pi, (len(axis), PER_STEP))
        across = (radius * np.sin(angle) + rng.normal(0, 5.0, angle.shape))[..., None]
    else:
        twist = 0.5 * radius * np.sin(phase[:, None] + np.pi * (np.arange(PER_STEP) % 2)[None, :])
        across = (twist + rng.normal(0, 0.4 * radius, twist.shape))[..., None]
    cloud = (axis[:, None, :] + across * side[:, None, :] / canvas.pixel_size).reshape(-1, 2)
    cloud += rng.normal(0, 4.0 / canvas.pixel_size, cloud.shape)
    matter = np.pi * (radius**2 - (radius - 35.0) ** 2) if style == "tube" else np.pi * radius**2
    canvas.add_spots(cloud, np.full(len(cloud), rng.uniform(0.8, 1.8) * matter * 8.0 / PER_STEP))
    reach = max(radius * 1.2, 25.0)
    for px, py in axis[:: max(1, int(reach / 16.0))]:
        canvas.mark_disc(px, py, reach, "fibre")


PAINTERS: dict[str, Painter] = {
    "ice_ball": ice.ice_ball,
    "ice_cluster": ice.ice_cluster,
    "ice_crystal": crystals.ice_crystal,
    "crystalline_ice": crystals.crystalline_ice,
    "ethane": ice.ethane,
    "gold_bead": _gold_bead,
    "vesicle": _vesicle,
    "fibre": _fibre,
    "aggregate": protein.aggregate,
    "denatured": protein.denatured,
    "network": protein.network,
    "fragment": protein.fragment,
    "crack": ice.crack,
    "bubble": ice.bubble,
}
