"""The micrograph as DeepPicker sees it, and the windows that it learns from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from pickeropt.datasets.boxes import cut_boxes
from pickeropt.errors import GeometryError, ShotsError
from pickeropt.io.micrographs import micrograph_shape, read_micrograph
from pickeropt.models.views import ViewFrame, make_view
from pickeropt.pickers.deeppicker.network import PATCH, STEP
from pickeropt.pickers.records import Labelled, OnProgress
from pickeropt.records import FloatArray

Coordinates = NDArray[np.float64]


@dataclass(frozen=True)
class Samples:
    """patches : (n, 1, 64, 64) float32; labels : (n,) int64, 1 is a particle"""

    patches: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def window_view(pixels: FloatArray, diameter_px: float, box_diameters: float) -> tuple[Tensor, ViewFrame]:
    """Resample a micrograph so that the window fills 64 px, and normalise it by its own level and noise.

    returns : (1, 1, h, w) without replicated edges, and its frame
    Raises GeometryError where the window does not fit the micrograph, or the noise cannot be measured.

    The patches need no normalisation of their own, which the paper does not mention either, so that
    windows share their pixels.
    """
    height, width = pixels.shape
    box = box_diameters * diameter_px
    if box > min(height, width):
        what = f"a window of {box:.0f} px ({box_diameters:g} particle diameters) does not fit a micrograph"
        remedy = "check --diameter (Å) and --pixel-size (Å/px)"
        raise GeometryError(f"{what} of {width} x {height} px; {remedy}")
    view, frame = make_view(pixels, diameter_px, PATCH / box_diameters)
    rows, columns = round(height * frame.scale_y), round(width * frame.scale_x)
    inside = view[:, :, frame.top : frame.top + rows, frame.left : frame.left + columns]
    return inside, ViewFrame(frame.scale_y, frame.scale_x, 0, 0)


def window_centres(frame: ViewFrame, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Coordinates:
    """x, y in micrograph px of the centres, pixel 32, of windows of the score map: (n, 2)."""
    x = (columns * STEP + PATCH // 2 + 0.5 - frame.left) / frame.scale_x - 0.5
    y = (rows * STEP + PATCH // 2 + 0.5 - frame.top) / frame.scale_y - 0.5
    return np.column_stack([x, y]).astype(np.float64)


def choose(material: Sequence[Labelled], box_diameters: float, count: int, seed: int) -> list[Labelled]:
    """At most `count` particles whose window lies on the micrograph, the rest of them as `others`.

    Micrographs with particles of one diameter are one species; each species gives the same number, or all
    that it has (section 4.3).
    """
    usable = [_on_micrograph(one, box_diameters) for one in material]
    species = np.unique([one.diameter_angstrom for one in material], return_inverse=True)[1]
    available = np.bincount(species, weights=[flags.sum() for flags in usable]).astype(np.int64)
    rng = np.random.default_rng([seed, 11])
    for kind, share in enumerate(equal_shares(available, count)):
        places = [i for i in range(len(usable)) if species[i] == kind]
        rows = np.concatenate(
            [np.column_stack([np.full(usable[i].sum(), i), *usable[i].nonzero()]) for i in places]
        )
        for micrograph, row in rng.permutation(rows)[share:].tolist():
            usable[micrograph][row] = False
    return [
        replace(
            one,
            coordinates=one.coordinates[flags],
            others=np.concatenate([one.others, one.coordinates[~flags]]),
        )
        for one, flags in zip(material, usable, strict=True)
    ]


def equal_shares(available: NDArray[np.int64], total: int) -> list[int]:
    """How many to take of each, as equal as what there is allows: (k,), at most `total` together."""
    shares = np.zeros(len(available), dtype=np.int64)
    for rank, kind in enumerate(np.argsort(available, kind="stable").tolist()):
        shares[kind] = min(available[kind], (total - shares.sum()) // (len(available) - rank))
    return [int(share) for share in shares]


def _on_micrograph(one: Labelled, box_diameters: float) -> NDArray[np.bool_]:
    height, width = micrograph_shape(one.path)
    half = box_diameters * one.diameter_px / 2
    last = np.array([width, height]) - 1 - half
    inside: NDArray[np.bool_] = np.all((one.coordinates >= half) & (one.coordinates <= last), axis=1)
    return inside


def cut_samples(
    material: Sequence[Labelled],
    box_diameters: float,
    apart: float,
    negatives: int,
    seed: int,
    on_progress: OnProgress,
) -> Samples:
    """A patch of each particle, then of windows without one.

    apart : windows; the centres of the negatives are at least so far from every known particle
    negatives : for each particle, from its own micrograph; the same window twice only where there are too few
    Raises GeometryError as `window_view` does; ShotsError where there are particles but no place for a
    negative.
    """
    positives, others = [], []
    for index, one in enumerate(material):
        on_progress("read micrographs", index, len(material))
        if not len(one.coordinates):
            continue
        view, frame = window_view(read_micrograph(one.path).pixels, one.diameter_px, box_diameters)
        rng = np.random.default_rng([seed, 12, index])
        away = _centres_away(one, view, frame, apart)
        if not len(away):
            what = (
                f"{one.path}: no place is {apart:g} windows away from all of its {len(one.known)} particles"
            )
            raise ShotsError(f"{what}; check --diameter (Å), or leave this micrograph out")
        count = negatives * len(one.coordinates)
        drawn = away[rng.choice(len(away), count, replace=len(away) < count)]
        positives.append(cut_boxes(view, frame, one.coordinates, PATCH))
        others.append(cut_boxes(view, frame, drawn, PATCH))
    on_progress("read micrographs", len(material), len(material))
    if not positives:
        return Samples(torch.empty(0, 1, PATCH, PATCH), torch.empty(0, dtype=torch.int64))
    patches = torch.cat([*positives, *others])
    labels = torch.zeros(len(patches), dtype=torch.int64)
    labels[: sum(map(len, positives))] = 1
    return Samples(patches, labels)


def _centres_away(one: Labelled, view: Tensor, frame: ViewFrame, apart: float) -> Coordinates:
    """Centres of the scored windows that lie far enough from all known particles, (m, 2) x, y px."""
    shape = tuple((side - PATCH) // STEP + 1 for side in view.shape[-2:])
    centres = window_centres(frame, *(i.ravel().astype(np.int64) for i in np.indices(shape)))
    box_px = PATCH / np.array([frame.scale_x, frame.scale_y])
    distance = cKDTree(one.known / box_px).query(centres / box_px)[0]
    far: Coordinates = centres[distance >= apart]
    return far
