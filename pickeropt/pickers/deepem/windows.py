"""Windows to learn from: particles, and places away from them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from pickeropt.datasets.boxes import cut_boxes
from pickeropt.errors import GeometryError
from pickeropt.io.micrographs import read_micrograph
from pickeropt.models.views import ViewFrame, make_view
from pickeropt.pickers.deepem.settings import DeepEMSettings
from pickeropt.pickers.records import Labelled
from pickeropt.records import FloatArray

Coordinates = NDArray[np.float64]
TRIES = 200
"""Places drawn for each that is wanted."""


@dataclass(frozen=True)
class Sight:
    """A micrograph as the network sees it.

    view : (1, 1, H, W) in units of the micrograph's own noise, nothing added at its edges
    frame : where its pixels lie on the micrograph
    """

    view: Tensor
    frame: ViewFrame

    def windows(self, coordinates: Coordinates, box: int) -> Tensor:
        """(n, 1, box, box) about centres (n, 2) x, y in micrograph px."""
        return cut_boxes(self.view, self.frame, coordinates, box)

    def inside(self, coordinates: Coordinates, box: int) -> NDArray[np.bool_]:
        """Which windows lie inside the micrograph, (n,)."""
        first = self.frame.to_view(coordinates).round() - box // 2
        bounds = torch.tensor(self.view.shape[-2:]) - box
        result: NDArray[np.bool_] = ((first >= 0) & (first <= bounds)).all(dim=1).numpy()
        return result

    def on_micrograph(self, rows_columns: NDArray[np.float64]) -> Coordinates:
        """(n, 2) y, x in view px -> (n, 2) x, y in micrograph px."""
        y, x = rows_columns[:, 0], rows_columns[:, 1]
        frame = self.frame
        return np.column_stack([(x + 0.5) / frame.scale_x - 0.5, (y + 0.5) / frame.scale_y - 0.5])


def see(pixels: FloatArray, diameter_px: float, settings: DeepEMSettings) -> Sight:
    """A micrograph resampled to the size of the box, its grey level 0 and its noise 1.

    By micrograph, not by window: so that all windows are pieces of one image and can pass together.
    Raises GeometryError where particle or box do not fit the micrograph.
    """
    padded, frame = make_view(pixels, diameter_px, settings.diameter())
    rows, columns = (round(frame.scale_y * pixels.shape[0]), round(frame.scale_x * pixels.shape[1]))
    box = settings.layers().box
    if min(rows, columns) < box:
        side = settings.box_diameters * diameter_px
        raise GeometryError(
            f"a box of {side:.0f} px ({settings.box_diameters:g} diameters) does not fit a micrograph of "
            f"{pixels.shape[1]} x {pixels.shape[0]} px; check --diameter (Å) and --pixel-size (Å/px)"
        )
    view = padded[:, :, frame.top : frame.top + rows, frame.left : frame.left + columns].contiguous()
    return Sight(view, ViewFrame(frame.scale_y, frame.scale_x, 0, 0))


def sight_of(one: Labelled, settings: DeepEMSettings) -> Sight:
    """The micrograph of labelled particles. Raises MicrographError, GeometryError."""
    return see(read_micrograph(one.path).pixels, one.diameter_px, settings)


def away(
    sight: Sight, particles: Coordinates, distance: float, box: int, count: int, rng: np.random.Generator
) -> Coordinates:
    """Up to `count` centres of windows inside the micrograph, uniform where no particle is near.

    distance : px of the micrograph, least from any of the `particles`
    returns : (n, 2) x, y px; fewer than `count`, or none, where there is too little room
    """
    rows, columns = sight.view.shape[-2:]
    tries = rng.integers(0, [rows - box + 1, columns - box + 1], (TRIES * count, 2)) + box // 2
    centres = sight.on_micrograph(tries.astype(np.float64))
    if len(particles) and count:
        centres = centres[cKDTree(particles).query(centres)[0] >= distance]
    return centres[:count]


@dataclass(frozen=True)
class Windows:
    """particles, others : (n, 1, box, box), windows with a particle in their middle, and without"""

    particles: Tensor
    others: Tensor

    def joined(self, more: "Windows") -> "Windows":
        """Both sets as one."""
        return Windows(torch.cat([self.particles, more.particles]), torch.cat([self.others, more.others]))


def windows_of(one: Labelled, settings: DeepEMSettings, rng: np.random.Generator) -> Windows:
    """The particles of a micrograph whose windows lie inside it, and as many windows without."""
    sight, box = sight_of(one, settings), settings.layers().box
    centres = one.coordinates[sight.inside(one.coordinates, box)]
    distance = settings.negative_distance * one.diameter_px
    empty = away(sight, one.known, distance, box, len(centres), rng)
    return Windows(sight.windows(centres, box), sight.windows(empty, box))
