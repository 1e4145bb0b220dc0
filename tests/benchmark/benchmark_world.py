"""Small data sets on disk for the tests of the benchmark: discs on noise."""

import numpy as np

from pickeropt.io.labels import LabelRows, labels_content
from pickeropt.io.micrographs import write_mrc

SIDE, DIAMETER = 48, 32
"""px of a box, and of its particle at 1 Å/px."""
KINDS = {"particle": -3.0, "carbon": 3.0, "background": 0.0}
"""What a disc adds to noise of 1."""


def boxes(kind, count, seed=0):
    """(count, SIDE, SIDE) float32"""
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    disc = np.hypot(rows, columns) < DIAMETER / 2
    noise = np.random.default_rng([seed, list(KINDS).index(kind)]).normal(0, 1, (count, SIDE, SIDE))
    return (noise + KINDS[kind] * disc).astype(np.float32)


def class_folder(folder, count=18, shuffled=False, kinds=("particle", "background")):
    """One stack a class; shuffled: every class has as many discs as the other."""
    stacks = {kind: boxes(kind, count) for kind in kinds}
    if shuffled:
        every = np.concatenate(list(stacks.values()))
        every = every[np.random.default_rng(1).permutation(len(every))]
        stacks = dict(zip(stacks, np.split(every, len(stacks)), strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    for kind, stack in stacks.items():
        write_mrc(folder / f"{kind}.mrcs", stack, 2.0)
    return folder


def micrographs(folder, count=4, each=4, side=256):
    """The labels of `count` micrographs at 2 Å/px: `each` dark discs, bright ones and empty places.

    Particles of `apo` on the first half of the micrographs, of `bact` on the others; carbon and background.
    """
    rng = np.random.default_rng(0)
    places = [(48 + 60 * (i % 4), 40 + 56 * (i // 4)) for i in range(3 * each)]
    rows = []
    y, x = np.mgrid[:side, :side]
    for number in range(count):
        pixels = rng.normal(0, 1, (side, side))
        for i, (px, py) in enumerate(places):
            kind = list(KINDS)[i % 3]
            pixels += KINDS[kind] * (np.hypot(x - px, y - py) < DIAMETER / 2)
            source = ("apo" if number < count / 2 else "bact") if kind == "particle" else kind
            rows.append((f"m{number}.mrc", px, py, kind, source))
        write_mrc(folder / f"m{number}.mrc", pixels.astype(np.float32), 2.0)
    return write_star(folder / "labels.star", rows)


def write_star(path, rows, diameter=2.0 * DIAMETER):
    """rows: micrograph, x, y, class, source"""
    names, xs, ys, kinds, sources = zip(*rows, strict=True)
    points = np.column_stack([xs, ys]).astype(np.float64)
    path.write_bytes(labels_content(path, LabelRows(names, points, kinds, sources, np.full(len(names), diameter))))
    return path
