"""Painters of contaminants; those of ice are in `ice`.

Each adds one to the canvas at x, y px and marks where it lies; sizes as in `ice`.
"""

from collections.abc import Callable

import numpy as np

from pickeropt.datasets.simulate import ice
from pickeropt.datasets.simulate.canvas import Canvas
from pickeropt.datasets.simulate.ice import WHOLE, outline, random_path

PROTEIN_PATH = 2500.0
"""Å, mean free path of bulk protein or lipid."""
GOLD_VOLT, GOLD_PATH = 22.0, 250.0

Painter = Callable[[Canvas, float, float, np.random.Generator], None]


def paint_contaminant(canvas: Canvas, kind: str, x: float, y: float, rng: np.random.Generator) -> None:
    """Add one contaminant of `kind` (of CONTAMINANT_KINDS) at x, y px of the padded canvas."""
    PAINTERS[kind](canvas, x, y, rng)


def _gold_bead(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    radius = rng.uniform(35.0, 75.0)
    for _ in range(int(rng.integers(1, 4))):
        area, dx, dy = canvas.window(x, y, 1.2 * radius)
        thick = 2 * np.sqrt(np.clip(np.float32(radius**2) - dx * dx - dy * dy, 0, None))
        canvas.add_matter(area, thick, GOLD_VOLT, GOLD_PATH)
        canvas.mark_disc(x, y, max(1.2 * radius, 0.35 * canvas.diameter), "gold_bead")
        x, y = rng.normal((x, y), 1.3 * canvas.diameter / canvas.pixel_size)


def _vesicle(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """A lipid bilayer shell of 45 Å in projection."""
    radius = canvas.diameter * rng.uniform(0.6, 1.8)
    area, dx, dy = canvas.window(x, y, 1.5 * radius + 60.0)
    r = outline(dx, dy, radius, rng, rough=0.07) * np.float32(radius)
    outer = np.sqrt(np.clip(np.float32((radius + 22.0) ** 2) - r * r, 0, None))
    inner = np.sqrt(np.clip(np.float32(max(radius - 22.0, 0.0) ** 2) - r * r, 0, None))
    canvas.add_matter(area, 2 * (outer - inner), 1.6, PROTEIN_PATH)
    canvas.mark(area, r < radius + 22.0, "vesicle")


def _fibre(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """A filament: beads on a curve, wound as two strands."""
    radius = rng.uniform(25.0, 50.0)
    length = canvas.diameter * rng.uniform(3.0, 9.0)
    steps = int(length / 8.0)
    axis = random_path(x, y, steps, 8.0 / canvas.pixel_size, 1.3, rng)
    side = np.gradient(axis, axis=0)[:, ::-1] * np.array([-1.0, 1.0]) * (canvas.pixel_size / 8.0)
    phase = 2 * np.pi * np.arange(steps) * 8.0 / rng.uniform(150.0, 400.0)
    for strand in (0.0, np.pi):
        offset = (0.5 * radius * np.sin(phase + strand) / canvas.pixel_size)[:, None] * side
        cloud = np.repeat(axis + offset, 20, axis=0)
        cloud = cloud + rng.normal(0, 0.4 * radius / canvas.pixel_size, cloud.shape)
        canvas.add_spots(cloud, np.full(len(cloud), 0.7 * np.pi * radius**2 * 8.0 / 20.0))
    for px, py in axis[:: max(1, int(radius / 16.0))]:
        canvas.mark_disc(px, py, radius * 1.3, "fibre")


def _aggregate(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """Copies of the particle stuck together, overlapping, with dense material between."""
    count = int(rng.integers(8, 36))
    spread = 0.16 * canvas.diameter / canvas.pixel_size * np.sqrt(count)
    stretch = rng.uniform(0.6, 1.5)
    for px, py in rng.normal(0, (spread * stretch, spread / stretch), (count, 2)):
        keep = rng.uniform(size=len(canvas.species.points)) < rng.uniform(0.7, 1.0)
        canvas.add_molecule(x + px, y + py, rng, keep)
        canvas.mark_disc(x + px, y + py, 0.45 * canvas.diameter, "aggregate")


def _denatured(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """Unfolded protein: a diffuse random coil without a shape that recurs."""
    size = canvas.diameter * rng.uniform(0.35, 1.0)
    count = int(np.clip(size**2 / 4.0, 800, 8000))
    walk = np.cumsum(rng.normal(size=(count, 2)), axis=0)
    walk -= walk.mean(axis=0)
    walk *= size / (2.0 * canvas.pixel_size * walk.std())
    cloud = walk + rng.normal(0, 22.0 / canvas.pixel_size, walk.shape) + np.array([x, y])
    canvas.add_spots(cloud, np.full(count, rng.uniform(25.0, 70.0) * size**2 * 2.5 / count))
    for px, py in cloud[::20]:
        canvas.mark_disc(px, py, 0.15 * canvas.diameter, "denatured")


def _network(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """Branching strands of denatured protein, lumps where they meet."""
    step, nodes = 0.2 * canvas.diameter / canvas.pixel_size, [(x, y)]
    sheet = np.zeros(canvas.shape, dtype=np.float32)
    for _ in range(int(rng.integers(3, 8))):
        start = nodes[int(rng.integers(len(nodes)))]
        strand = random_path(*start, int(rng.integers(8, 26)), step, 1.0, rng)
        nodes.extend((float(px), float(py)) for px, py in strand[::3])
        for px, py in strand:
            width = canvas.diameter * rng.uniform(0.12, 0.35)
            area, dx, dy = canvas.window(px, py, 1.7 * width)
            r = outline(dx, dy, width, rng, rough=0.2)
            sheet[area] = np.maximum(sheet[area], np.clip(3.0 * (1.2 - r), 0, 1) * rng.uniform(0.5, 1.0))
            canvas.mark(area, r < 1.2, "network")
    canvas.add_matter(WHOLE, sheet * np.float32(rng.uniform(50.0, 160.0)), 1.8, PROTEIN_PATH)


def _fragment(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """A broken particle: what lies on one side of a random plane."""
    normal = rng.normal(size=3)
    height = canvas.species.points @ normal
    keep = height > np.quantile(height, rng.uniform(0.55, 0.8))
    canvas.add_molecule(x, y, rng, keep)
    canvas.mark_disc(x, y, 0.4 * canvas.diameter, "fragment")


PAINTERS: dict[str, Painter] = {
    "ice_ball": ice.ice_ball,
    "ice_cluster": ice.ice_cluster,
    "ice_crystal": ice.ice_crystal,
    "crystalline_ice": ice.crystalline_ice,
    "ethane": ice.ethane,
    "gold_bead": _gold_bead,
    "vesicle": _vesicle,
    "fibre": _fibre,
    "aggregate": _aggregate,
    "denatured": _denatured,
    "network": _network,
    "fragment": _fragment,
    "crack": ice.crack,
    "bubble": ice.bubble,
}
