"""Painters of contaminants other than ice, damaged protein included: aggregates, denatured blobs, fragments.

Each adds one to the canvas at x, y px and marks where it lies; sizes as in `ice`.
"""

from collections.abc import Callable

import numpy as np

from pickeropt.datasets.simulate import ice
from pickeropt.datasets.simulate import ice as crystals
from pickeropt.datasets.simulate.canvas import Canvas, add_grain, cells, mottle, smoothstep
from pickeropt.datasets.simulate.ice import outline, random_path
from pickeropt.datasets.simulate.species import Points
from pickeropt.records import FloatArray

PROTEIN_PATH = 2500.0
"""Å, mean free path of bulk protein or lipid."""
PROTEIN_GRAIN = 0.05
"""rad of phase noise in a 4 Å pixel of 100 Å of unfolded protein; by eye."""


def aggregate(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """Molecules stuck together: a heap, or a branched growth; whole, broken or glued with protein."""
    count = int(np.exp(rng.uniform(np.log(5), np.log(60))))
    step = canvas.diameter / canvas.pixel_size
    if rng.uniform() < 0.5:
        spread, stretch = 0.16 * step * np.sqrt(count), rng.uniform(0.5, 2.0)
        places = rng.normal(0, (spread * stretch, spread / stretch), (count, 2))
    else:
        places = np.zeros((count, 2))
        late = rng.uniform(0.0, 0.9)
        for index in range(1, count):
            parent = int(rng.integers(int(late * (index - 1)), index))
            angle = rng.uniform(0, 2 * np.pi)
            reach = step * rng.uniform(0.3, 0.75)
            places[index] = places[parent] + reach * np.array([np.cos(angle), np.sin(angle)])
        places -= places.mean(axis=0)
    whole = rng.uniform(0.3, 1.0)
    glue = rng.uniform(0.0, 90.0) if rng.uniform() < 0.6 else 0.0
    for px, py in places:
        keep = rng.uniform(size=len(canvas.species.points)) < rng.uniform(whole, 1.0)
        canvas.add_molecule(x + px, y + py, rng, keep)
        canvas.mark_disc(x + px, y + py, 0.45 * canvas.diameter, "aggregate")
        if glue > 0:
            area, dx, dy = canvas.window(x + px, y + py, 0.8 * canvas.diameter)
            sheet = smoothstep((1.0 - outline(dx, dy, 0.5 * canvas.diameter, rng, 0.2)) * np.float32(2.0))
            add_protein(canvas, area, sheet * np.float32(glue * rng.uniform(0.2, 1.0)), rng)


def add_protein(canvas: Canvas, area: tuple[slice, slice], thickness: FloatArray, rng: np.random.Generator) -> None:
    """Add unfolded protein of `thickness` Å with its grain."""
    canvas.add_matter(area, thickness, 1.8, PROTEIN_PATH)
    add_grain(canvas, area, np.sqrt(thickness / np.float32(100.0)) * np.float32(PROTEIN_GRAIN), rng)


def denatured(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """Unfolded protein: a random coil, a soft uneven blob, or blobs run together."""
    if rng.uniform() < 0.4:
        _coil(canvas, x, y, rng)
        return
    full = rng.uniform(40.0, 220.0)
    for _ in range(int(rng.choice((1, 2, 4), p=(0.5, 0.3, 0.2)))):
        size = canvas.diameter * rng.uniform(0.25, 1.1)
        area, dx, dy = canvas.window(x, y, 2.2 * size)
        r = outline(dx, dy, size, rng, rough=rng.uniform(0.15, 0.45))
        soft = smoothstep((1.15 - r) * np.float32(rng.uniform(1.2, 6.0)))
        lumps = mottle(canvas, dx, dy, rng.uniform(20.0, 60.0), rng) * np.float32(rng.uniform(0.1, 0.5))
        lumps += mottle(canvas, dx, dy, 0.5 * size, rng) * np.float32(rng.uniform(0.0, 0.4))
        add_protein(canvas, area, soft * np.clip(1 + lumps, 0, None) * np.float32(full), rng)
        canvas.mark(area, r < 1.05, "denatured")
        x, y = rng.normal((x, y), 0.8 * size / canvas.pixel_size)


def _coil(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """A diffuse random coil without a shape that recurs."""
    size = canvas.diameter * rng.uniform(0.35, 1.2)
    count = int(np.clip(size**2 / 4.0, 800, 8000))
    walk = np.cumsum(rng.normal(size=(count, 2)), axis=0)
    walk -= walk.mean(axis=0)
    walk *= size / (2.0 * canvas.pixel_size * walk.std())
    cloud = walk + rng.normal(0, rng.uniform(6.0, 22.0) / canvas.pixel_size, walk.shape) + np.array([x, y])
    canvas.add_spots(cloud, np.full(count, rng.uniform(25.0, 80.0) * size**2 * 2.5 / count))
    for px, py in cloud[::20]:
        canvas.mark_disc(px, py, 0.15 * canvas.diameter, "denatured")


def network(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """A web of denatured protein: a torn mesh with holes, or branching strands; dark knots."""
    if rng.uniform() < 0.35:
        _strands(canvas, x, y, rng)
        return
    radius = canvas.diameter * rng.uniform(1.2, 4.5)
    area, dx, dy = canvas.window(x, y, 1.5 * radius)
    hole = canvas.diameter * rng.uniform(0.7, 2.2)
    gap, _ = cells(dx, dy, hole, rng, warp=0.35)
    thick = np.float32(hole * rng.uniform(0.06, 0.16)) * (1.0 + 0.5 * mottle(canvas, dx, dy, 0.5 * hole, rng))
    torn = 1.0 - outline(dx, dy, radius, rng, 0.2) + 0.35 * mottle(canvas, dx, dy, 1.2 * hole, rng)
    thick += np.float32(hole) * np.clip(torn * np.float32(3.0), -3.0, 0.0)
    edge = np.float32(rng.uniform(8.0, 35.0))
    sheet = smoothstep(np.asarray((thick - 0.5 * gap) / edge + 0.5, dtype=np.float32))
    knots = np.clip(mottle(canvas, dx, dy, 0.4 * hole, rng) - np.float32(0.9), 0, 2)
    knots *= np.float32(rng.uniform(0, 2))
    full = np.float32(rng.uniform(40.0, 180.0))
    add_protein(canvas, area, sheet * full * (1.0 + knots), rng)
    near = thick + np.float32(0.12 * canvas.diameter) - 0.5 * gap
    canvas.mark(area, (near > 0) & (torn > -0.05), "network")


def _strands(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """Branching strands, lumps where they meet."""
    step, nodes = 0.2 * canvas.diameter / canvas.pixel_size, [(x, y)]
    sheet = np.zeros(canvas.shape, dtype=np.float32)
    for _ in range(int(rng.integers(3, 8))):
        start = nodes[int(rng.integers(len(nodes)))]
        strand = random_path(*start, int(rng.integers(8, 26)), step, 1.5, rng)
        nodes.extend((float(px), float(py)) for px, py in strand[::3])
        for px, py in strand:
            width = canvas.diameter * rng.uniform(0.1, 0.35)
            area, dx, dy = canvas.window(px, py, 1.7 * width)
            r = outline(dx, dy, width, rng, rough=0.2)
            sheet[area] = np.maximum(sheet[area], np.clip(3.0 * (1.2 - r), 0, 1) * rng.uniform(0.5, 1.0))
            canvas.mark(area, r < 1.2, "network")
    area, _, _ = canvas.window(x, y, 10.0 * canvas.diameter)
    add_protein(canvas, area, sheet[area] * np.float32(rng.uniform(50.0, 160.0)), rng)


def fragment(canvas: Canvas, x: float, y: float, rng: np.random.Generator) -> None:
    """A broken particle: a slab or a corner of it, alone or its pieces flung apart."""
    points = canvas.species.points
    normal = rng.normal(size=3)
    height = points @ normal
    if rng.uniform() < 0.6:
        parts = [height > np.quantile(height, rng.uniform(0.35, 0.65))]
    else:
        cuts = np.sort(rng.uniform(0.15, 0.85, int(rng.integers(1, 3))))
        parts = [np.searchsorted(np.quantile(height, cuts), height) == piece for piece in range(len(cuts) + 1)]
    apart = 0.0 if len(parts) == 1 else canvas.diameter * rng.uniform(0.3, 0.8) / canvas.pixel_size
    for keep in parts:
        px, py = rng.normal((x, y), apart) if apart else (x, y)
        if keep.any():
            canvas.add_molecule(float(px), float(py), rng, keep)
            canvas.mark_disc(float(px), float(py), 0.4 * canvas.diameter, "fragment")
    if rng.uniform() < 0.8:
        area, dx, dy = canvas.window(x, y, 1.2 * canvas.diameter)
        smear = smoothstep((1.2 - outline(dx, dy, canvas.diameter * rng.uniform(0.4, 0.7), rng, 0.3)) * np.float32(1.5))
        add_protein(canvas, area, smear * np.float32(rng.uniform(25.0, 90.0)), rng)


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
    "aggregate": aggregate,
    "denatured": denatured,
    "network": network,
    "fragment": fragment,
    "crack": ice.crack,
    "bubble": ice.bubble,
}
