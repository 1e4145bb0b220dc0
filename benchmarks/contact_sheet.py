"""Simulated junk beside real micrographs: a PNG to look at and a table of plain numbers.

    python benchmarks/contact_sheet.py --out sheet.png [--real DIR] [--variants 8] [--seed 0]

One row a contaminant or carbon kind, one micrograph a column, each cut about the middle of the
junk; then the real micrographs of DIR (PNG, JPEG or MRC). For every kind the table gives, of boxes
of two particle diameters centred on junk and relative to boxes of the same micrograph's own
background: the mean in background deviations, the deviation as a multiple, and the slope of the
radial power spectrum less the background's. `REAL_BOXES` are centres by eye in micrographs of
the MicAssess set (MIT); those that DIR lacks are left out.
"""

import argparse
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from pickeropt.datasets.simulate import (
    CARBON_KINDS,
    CONTAMINANT_KINDS,
    SOURCE_NAMES,
    SimulatedMicrograph,
    SimulationConfig,
    make_species,
    simulate_micrograph,
)
from pickeropt.io.micrographs import read_micrograph

Image8 = NDArray[np.uint8]
Floats = NDArray[np.float32]
CELL = 180
"""px of the sheet a cell."""
BOX = 32
"""px of a measured box: two to three particles at the 6 to 8 Å/px of the real thumbnails."""
BIN = 2
"""Simulated at 4 Å/px, then binned, as the real thumbnails were."""
REAL_BOXES: dict[str, tuple[tuple[str, int, int], ...]] = {
    "19may13c_grid4e_8_00084gr_00025sq": (
        ("ice_ball", 61, 136), ("ice_ball", 21, 237), ("ice_ball", 55, 415), ("ice_ball", 370, 193),
    ),
    "18dec17a_grid3_00105gr": (("ice_ball", 412, 126),),
    "18apr26h": (
        ("film", 60, 60), ("film", 100, 250), ("film", 60, 420), ("film", 150, 440),
        ("rim_edge", 208, 215), ("rim_edge", 222, 370), ("rim_edge", 225, 60),
    ),
    "19jun18a_grid4e_9_00106gr": (
        ("ethane", 243, 137), ("ethane", 256, 315), ("ethane", 425, 274), ("ethane", 81, 404),
        ("ethane", 274, 420), ("ethane", 163, 312), ("ethane", 331, 368), ("ethane", 344, 178),
    ),
    "20feb19c": (
        ("network", 120, 200), ("network", 215, 380), ("network", 200, 100),
        ("network", 55, 285), ("network", 240, 330), ("ice_cluster", 146, 20), ("ice_cluster", 272, 65),
    ),
    "19apr30a": (
        ("gold_edge", 30, 300), ("gold_edge", 100, 400), ("gold_edge", 60, 450), ("gold_edge", 160, 440),
        ("gold_edge", 20, 200),
    ),
    "18jul13c": (
        ("crystalline_ice", 318, 271), ("crystalline_ice", 391, 237), ("crystalline_ice", 73, 328),
        ("crystalline_ice", 387, 340), ("crystalline_ice", 200, 150), ("crystalline_ice", 250, 400),
    ),
    "19aug17a": (
        ("crystalline_ice", 284, 347), ("crystalline_ice", 203, 328), ("crystalline_ice", 273, 440),
        ("crystalline_ice", 112, 155), ("crystalline_ice", 150, 60), ("crystalline_ice", 400, 300),
    ),
    "18jan09b": (
        ("ethane", 126, 45), ("ethane", 395, 52), ("ethane", 132, 140), ("ethane", 186, 236),
        ("ethane", 100, 286), ("ethane", 434, 190), ("ethane", 263, 432), ("ethane", 300, 467),
    ),
    "19nov08e": (("aggregate", 340, 413), ("aggregate", 385, 380), ("aggregate", 218, 266)),
}  # fmt: skip


def simulate(kind: str, seed: int) -> SimulatedMicrograph:
    """A micrograph with a single piece of junk of the kind in it, and few particles."""
    carbon = kind in CARBON_KINDS
    config = SimulationConfig(
        shape=(768, 768),
        diameter_angstrom=(110.0, 150.0, 200.0)[seed % 3],
        occupancy=(0.08, 0.2),
        dose=(8.0, 25.0),
        defocus_um=(1.0, 3.0),
        contaminants=(0, 0) if carbon else (1, 1),
        contaminant_kinds=() if carbon else (kind,),
        carbon_probability=float(carbon),
        carbon_kinds=(kind,) if carbon else (),
        filtered_probability=0.0,
    )
    return simulate_micrograph(config, make_species(0)[seed % 14], np.random.default_rng(seed))


def binned(image: Floats, by: int = BIN) -> Floats:
    """Mean of squares of `by` px."""
    h, w = (side // by * by for side in image.shape)
    result: Floats = image[:h, :w].reshape(h // by, by, w // by, by).mean((1, 3))
    return result


def grey(image: Floats) -> Image8:
    """8 bits: the median is the middle, the ends are 5 deviations of the brighter half away."""
    middle, high = np.percentile(image, [50.0, 84.0])
    scaled = (image - middle) / max(5.0 * float(high - middle), 1e-6)
    return np.asarray(np.clip(127.5 + 127.5 * scaled, 0, 255), dtype=np.uint8)


def cut(image: NDArray[np.uint8], x: int, y: int, side: int) -> Image8:
    """A square of `side` px as near to x, y as the frame allows."""
    left = int(np.clip(x - side // 2, 0, image.shape[1] - side))
    top = int(np.clip(y - side // 2, 0, image.shape[0] - side))
    return image[top : top + side, left : left + side]


def slope(box: Floats) -> float:
    """Slope of log power against log frequency, from a twelfth to nine tenths of Nyquist."""
    window = np.hanning(box.shape[0])
    power = np.abs(np.fft.rfft2((box - box.mean()) * window[:, None] * window[None, :])) ** 2
    k = np.hypot(np.fft.fftfreq(box.shape[0])[:, None], np.fft.rfftfreq(box.shape[1])[None, :])
    edges = np.geomspace(0.04, 0.45, 9)
    rings = [power[(k >= low) & (k < high)].mean() for low, high in pairwise(edges)]
    return float(np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), np.log(np.array(rings) + 1e-9), 1)[0])


def measure(image: Floats, centres: list[tuple[int, int]], empty: list[tuple[int, int]]) -> NDArray[np.float64]:
    """(n, 3): darkness, relative deviation and relative slope of boxes at the centres."""

    def boxes(points: list[tuple[int, int]]) -> list[Floats]:
        return [
            image[y - BOX // 2 : y + BOX // 2, x - BOX // 2 : x + BOX // 2]
            for x, y in points
            if BOX // 2 <= x <= image.shape[1] - BOX // 2 and BOX // 2 <= y <= image.shape[0] - BOX // 2
        ]

    ground = boxes(empty)
    if not ground:
        return np.zeros((0, 3))
    mean, spread = np.median([b.mean() for b in ground]), np.median([b.std() for b in ground])
    level = np.median([slope(b) for b in ground])
    rows = [((b.mean() - mean) / spread, b.std() / spread, slope(b) - level) for b in boxes(centres)]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def simulated_row(kind: str, variants: int, seed: int) -> tuple[list[Image8], NDArray[np.float64], float]:
    """Cuts of every variant, their numbers, and CPU seconds a micrograph."""
    rng, index = np.random.default_rng(seed), SOURCE_NAMES.index(kind)
    pictures, numbers, spent = [], [np.zeros((0, 3))], 0.0
    for number in range(variants):
        start = time.process_time()
        sim = simulate(kind, seed + number)
        spent += time.process_time() - start
        image, where = binned(sim.pixels), sim.source_map[::BIN, ::BIN] == index
        inner = np.argwhere(where[BOX // 2 : -BOX // 2, BOX // 2 : -BOX // 2]) + BOX // 2
        free = np.argwhere(ndimage.distance_transform_edt(sim.mask[::BIN, ::BIN] < 2) > 0.7 * BOX)
        if not len(inner) or not len(free):
            continue
        y, x = inner[rng.integers(len(inner))] if kind in CARBON_KINDS else np.median(inner, axis=0).astype(int)
        pictures.append(cut(grey(image), int(x), int(y), CELL))
        picked = [(int(c), int(r)) for r, c in inner[rng.integers(len(inner), size=4)]]
        empty = [(int(c), int(r)) for r, c in free[rng.integers(len(free), size=60)]]
        numbers.append(measure(image, picked, empty))
    return pictures, np.concatenate(numbers), spent / max(variants, 1)


def real_rows(paths: list[Path]) -> dict[str, NDArray[np.float64]]:
    """Numbers of the boxes by eye; background is the half of a grid nearest the median."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    for path in paths:
        for key, marks in REAL_BOXES.items():
            if not path.name.startswith(key):
                continue
            image = load(path)
            middle, (h, w) = float(np.median(image)), image.shape
            grid = [(x, y) for x in range(24, w - 24, 24) for y in range(24, h - 24, 24)]
            away = [p for p in grid if all(np.hypot(p[0] - x, p[1] - y) > 48 for _, x, y in marks)]
            away.sort(key=lambda p: abs(_mean(image, p) - middle))
            away = away[: max(8, len(away) // 2)]
            for kind in {kind for kind, _, _ in marks}:
                centres = [(x, y) for name, x, y in marks if name == kind]
                found.setdefault(kind, []).append(measure(image, centres, away))
    return {kind: np.concatenate(parts) for kind, parts in found.items()}


def _mean(image: Floats, point: tuple[int, int]) -> float:
    x, y = point
    return float(image[y - 16 : y + 16, x - 16 : x + 16].mean())


def load(path: Path) -> Floats:
    """Pixels of a PNG, JPEG or MRC micrograph."""
    if path.suffix.lower() in (".mrc", ".mrcs"):
        return np.asarray(read_micrograph(path).pixels, dtype=np.float32)
    return np.asarray(Image.open(path).convert("L"), dtype=np.float32)


def sheet(rows: list[tuple[str, list[Image8]]], real: list[tuple[str, Image8]], columns: int) -> Image.Image:
    """Rows of cells with their name, the real micrographs to the right, full size."""
    beside = max(1, int(np.ceil(len(real) / max(1, len(rows) * CELL // 512))))
    page = Image.new("L", (columns * CELL + (beside * 516 if real else 0), len(rows) * CELL))
    draw = ImageDraw.Draw(page)
    for row, (name, pictures) in enumerate(rows):
        for column, picture in enumerate(pictures):
            page.paste(Image.fromarray(picture).crop((0, 0, CELL - 2, CELL - 2)), (column * CELL, row * CELL))
        draw.text((4, row * CELL + 2), name, fill=255)
    for number, (name, image) in enumerate(real):
        place = (columns * CELL + 4 + number % beside * 516, number // beside * 516)
        page.paste(Image.fromarray(image[:512, :512]), place)
        draw.text(place, name[:60], fill=255)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--variants", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=[*CONTAMINANT_KINDS, *CARBON_KINDS])
    options = parser.parse_args()
    suffixes = {".png", ".jpg", ".jpeg", ".mrc"}
    paths = sorted(p for p in options.real.rglob("*") if p.suffix.lower() in suffixes) if options.real else []
    marked = real_rows(paths)
    rows = []
    print("Median and 10th to 90th percentile of boxes: mean in background deviations; deviation over the")
    print("background's; slope of the log power spectrum less the background's. Then the real ones.")
    print("| kind | mean | deviation | slope | real: mean / deviation / slope | CPU s a micrograph |")
    print("|---|---|---|---|---|---|")
    for kind in options.kinds:
        pictures, numbers, spent = simulated_row(kind, options.variants, options.seed)
        rows.append((kind, pictures))
        real = " / ".join(_summary(marked[kind][:, i]) for i in range(3)) if kind in marked else ""
        cells = " | ".join(_summary(numbers[:, i]) for i in range(3))
        print(f"| {kind} | {cells} | {real} | {spent:.2f} |", flush=True)
    real_images = [(path.name, grey(load(path))) for path in paths]
    sheet(rows, real_images, options.variants).save(options.out)


def _summary(values: NDArray[np.float64]) -> str:
    """Median and the tenth and ninetieth percentiles."""
    if not len(values):
        return "none"
    low, middle, high = np.percentile(values, [10, 50, 90])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
