"""One micrograph with its picks, as picked and as classified."""

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import ndimage

from pickeropt.evaluate.scored import micrograph_stem
from pickeropt.evaluate.table import read_table
from pickeropt.io.micrographs import read_micrograph
from pickeropt.records import PARTICLE, FloatArray

SIDE = 7.0
"""Inches of the longer side of a micrograph in the figure."""
PICKED, KEPT = "#F0E442", "#56B4E9"
REJECTED = (("#E69F00", "s"), ("#D55E00", "D"), ("#CC79A7", "^"), ("#009E73", "v"), ("#FFFFFF", "P"))
"""Colour and marker of rejected classes in turn: Okabe and Ito's, told apart by shape as well."""


def overlay_png(micrograph: Path, scores_csv: Path, diameter_px: float) -> bytes:
    """A PNG of two panels: all picks of the micrograph, and the same by what they were taken for.

    diameter_px : of the particle; the circles have it, and the image is smoothed by a tenth
    """
    table = read_table(scores_csv, ("micrograph", "x", "y", "class", "kept"))
    stem = micrograph_stem(micrograph.name)
    here = np.array([micrograph_stem(name) == stem for name in table.columns["micrograph"]], dtype=np.bool_)
    xy = np.column_stack([table.numbers("x"), table.numbers("y")])[here]
    kept = table.numbers("kept")[here] > 0
    names = np.array(table.columns["class"])[here]
    pixels = ndimage.gaussian_filter(read_micrograph(micrograph).pixels, diameter_px / 10)
    width = 2 * SIDE * pixels.shape[1] / max(pixels.shape)
    figure = Figure(figsize=(width, SIDE + 0.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    before, after = figure.subplots(1, 2)
    for axes in (before, after):
        _show(axes, pixels)
    size = (0.9 * diameter_px * SIDE * 72 / max(pixels.shape)) ** 2
    before.scatter(*xy.T, s=size, facecolors="none", edgecolors=PICKED, linewidths=1.2)
    before.set_title(f"{micrograph.name}: {len(xy)} picks")
    after.set_title(f"{int(kept.sum())} kept, {int((~kept).sum())} rejected")
    after.scatter(
        *xy[kept].T, s=size, facecolors="none", edgecolors=KEPT, linewidths=1.6, label=f"kept ({kept.sum()})"
    )
    for number, name in enumerate(dict.fromkeys(sorted(names[~kept], key=lambda n: (n == PARTICLE, n)))):
        color, marker = REJECTED[number % len(REJECTED)]
        rows = ~kept & (names == name)
        what = "unsure particle" if name == PARTICLE else name
        label = f"rejected as {what} ({rows.sum()})"
        after.scatter(
            *xy[rows].T,
            s=0.3 * size,
            marker=marker,
            facecolors="none",
            edgecolors=color,
            linewidths=1.6,
            label=label,
        )
    figure.legend(loc="outside lower center", ncols=5, frameon=False, markerscale=0.6, fontsize=11)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _show(axes: Axes, pixels: FloatArray) -> None:
    """Grey about the median by the noise, so that dark carbon does not hide the particles."""
    level = float(np.median(pixels))
    noise = max(1.4826 * float(np.median(np.abs(pixels - level))), 1e-6)
    axes.imshow(pixels, cmap="gray", vmin=level - 5 * noise, vmax=level + 4 * noise, interpolation="nearest")
    axes.set_axis_off()
