"""The DeepPicker network: its settings, its score map, what a score means, and the patches that it learns from.

Wang et al. (2016), section 4.2: four convolutions, each with ReLU and max pooling, two fully connected
layers, dropout in the first, softmax over two units; patches of 64 x 64. The paper gives no kernels, maps or
units ("typically less than 10" for the kernels). Here the kernels are 5, 3, 3, 3, so that each pooling halves
an even map; the number of maps doubles with each pooling; and there are 128 units.

    layer    C1       S2       C3       S4       C5       S6      C7      S8     F9   F10
    output   8@60x60  8@30x30  16@28x28 16@14x14 32@12x12 32@6x6  64@4x4  64@2x2 128  2

Windows every 4 px share cells of S2 and S4, so these layers are computed once for the whole micrograph. The
later poolings keep every cell, and the layers after them are dilated by as much (1, 2, 4). The result equals
that of single windows (Giusti et al. 2013).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional

from pickeropt.errors import GeometryError, PickeroptError, ShotsError
from pickeropt.io.micrographs import micrograph_shape, read_micrograph
from pickeropt.models.views import ViewFrame, cut_boxes, make_view
from pickeropt.pickers.picker_records import PickedMicrograph, local_maxima
from pickeropt.prune.filters import relative_domains
from pickeropt.records import FloatArray, OnProgress

PATCH = 64
"""Side of a patch, px (section 4.3)."""
STEP = 4
"""px of the resampled picture from one window to the next (section 4.5)."""
KERNELS = (5, 3, 3, 3)
MAPS = (8, 16, 32, 64)
HIDDEN = 128
LAST_MAP = 2
"""Cells a side that the fully connected layers look at."""
PARTICLE = 1
"""Output unit of the particles."""
BAND = 96
"""Rows of windows that are scored together, so that the maps between stay small."""


class DeepPickerNetwork(nn.Module):
    """Patch to two logits.

    dropout : chance that a unit of the first fully connected layer is left out in training
    """

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        before = (1, *MAPS[:-1])
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, k) for i, o, k in zip(before, MAPS, KERNELS, strict=True))
        self.hidden = nn.Linear(MAPS[-1] * LAST_MAP**2, HIDDEN)
        self.output = nn.Linear(HIDDEN, 2)
        self.dropout = dropout
        for layer in (*self.convolutions, self.hidden):
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, patches: Tensor) -> Tensor:
        """(n, 1, 64, 64) -> logits (n, 2), of background and of particle."""
        x = patches
        for convolution in self.convolutions:  # the greatest cell is the same before ReLU and after
            x = functional.relu(functional.max_pool2d(convolution(x), 2))
        x = functional.relu(self.hidden(x.flatten(1)))
        logits: Tensor = self.output(functional.dropout(x, self.dropout, self.training))
        return logits

    def log_odds(self, view: Tensor) -> Tensor:
        """How likely a particle is in each window: ln(p / (1 - p)).

        view : (1, 1, h, w), h and w at least 64
        returns : (rows, columns) float32; [i, j] is of the window whose first px is [4 i, 4 j]
        """
        rows = (view.shape[-2] - PATCH) // STEP + 1
        bands = []
        for top in range(0, rows, BAND):
            last = min(top + BAND, rows) - 1
            bands.append(self._band(view[:, :, top * STEP : last * STEP + PATCH]))
        return torch.cat(bands)

    def _band(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        dilation, stride = 1, 1
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv2d)
            x = functional.conv2d(x, convolution.weight, convolution.bias, dilation=dilation)
            shares = stride < STEP  # windows still step over whole cells
            x = functional.relu(functional.max_pool2d(x, 2, 2 if shares else 1, dilation=dilation))
            stride, dilation = (2 * stride, 1) if shares else (stride, 2 * dilation)
        kernel = self.hidden.weight.reshape(HIDDEN, MAPS[-1], LAST_MAP, LAST_MAP)
        x = functional.relu(functional.conv2d(x, kernel, self.hidden.bias, dilation=dilation))
        weight, bias = self.output.weight, self.output.bias
        toward = (weight[PARTICLE] - weight[1 - PARTICLE])[None, :, None, None]
        odds = functional.conv2d(x, toward, (bias[PARTICLE] - bias[1 - PARTICLE])[None])
        return odds[0, 0]


@dataclass(frozen=True)
class DeepPickerSettings:
    """The paper's values where it has one (sections 4.3 and 4.5), else ours, marked so.

    particles : at most so many particles are learnt from, each species the same share
    box_diameters : side of the window in particle diameters; the paper says slightly larger than 1
    apart : windows; no negative is closer to a particle
    negatives : for each particle, of which an epoch sees one, always others; the paper says as many as
        particles, not whether always the same
    dropout : of the first fully connected layer; learning_rate : of stochastic gradient descent
    momentum, batch_size : ours
    turns : train on patches in all eight orientations; ours, the paper does not mention it
    epochs : at most; patience : epochs without a smaller validation error before it stops; ours
    large_domain : connected domains of the score map more than so many times the average are ice;
        0 leaves the cleaning step out
    peak_window : windows; picks are at least half of it apart
    extreme : standard deviations, both of a pixel from the mean and of a pick's number of such pixels
        from the mean number; 0 leaves this filter out
    calibrated : scores are the share of such candidates that are particles on the micrographs held back;
        else the network's own, as in the paper
    """

    particles: int = 10_000
    box_diameters: float = 1.4
    apart: float = 0.6
    negatives: int = 10
    dropout: float = 0.5
    learning_rate: float = 0.01
    momentum: float = 0.9
    batch_size: int = 32
    turns: bool = True
    epochs: int = 60
    patience: int = 8
    large_domain: float = 4.0
    peak_window: float = 0.8
    extreme: float = 3.0
    calibrated: bool = True

    def __post_init__(self) -> None:
        """Raises PickeroptError for a value out of range."""
        may_be_0 = ("dropout", "momentum", "large_domain", "extreme", "apart")
        for name, value in asdict(self).items():
            if not value >= 0 or not (value or name in may_be_0 or name in ("turns", "calibrated")):
                raise PickeroptError(f"{name} of DeepPicker is {value:g}; give a number above 0")
        for name in ("dropout", "momentum"):
            if not asdict(self)[name] < 1:
                raise PickeroptError(f"{name} of DeepPicker is {asdict(self)[name]:g}; give less than 1")


Calibration = tuple[float, float]
"""Slope and offset of the log odds, from the network's to those of a score."""
UNCALIBRATED: Calibration = (1.0, 0.0)
CALIBRATION = "calibration"
"""Its name beside the network's weights."""
MOST_ODDS = 700.0
"""Log odds beyond which a score is 0 or 1 in float64."""


def log_odds_of(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln(p / (1 - p)), finite: (n,)."""
    least = np.finfo(np.float64).tiny
    odds: NDArray[np.float64] = np.log(np.maximum(scores, least)) - np.log(np.maximum(1 - scores, 2.0**-53))
    return odds


def score_of(log_odds: NDArray[np.float64], scale: Calibration) -> NDArray[np.float64]:
    """Scores 0 to 1 of the network's log odds, (n,)."""
    scaled = np.clip(scale[0] * log_odds + scale[1], -MOST_ODDS, MOST_ODDS)
    scores: NDArray[np.float64] = 1 / (1 + np.exp(-scaled))
    return scores


def calibrated(score: float, scale: Calibration) -> float:
    """What a score of the uncalibrated network becomes, less a trifle, so that it still counts as reached."""
    return float(score_of(log_odds_of(np.array([score])), scale)[0]) * (1 - 1e-9)


Indices = NDArray[np.int64]


def cleaned(log_odds: NDArray[np.floating], large_domain: float) -> NDArray[np.float64]:
    """The map, NaN on connected domains above a score of 0.5 that are too large.

    large_domain : times the average size of the map's domains; 0 cleans nothing
    """
    kept = log_odds.astype(np.float64)
    if large_domain:
        kept[relative_domains(log_odds, 0.0) > large_domain] = np.nan
    return kept


def peaks(log_odds: NDArray[np.float64], peak_window: float) -> tuple[Indices, Indices, NDArray[np.float64]]:
    """Windows with the best score within a peak window, best first: rows, columns, log odds, (n,) each.

    peak_window : windows; peaks are more than half of it apart

    Inside an area of one and the same score, as empty pixels have, there is no peak.
    """
    flat = np.zeros(log_odds.shape, dtype=np.bool_)
    same_above, same_left = np.diff(log_odds, axis=0) == 0, np.diff(log_odds, axis=1) == 0
    flat[1:, 1:] = same_above[:, 1:] & same_left[1:, :]
    return local_maxima(np.where(flat, np.nan, log_odds), peak_window / 2 * PATCH / STEP, -np.inf)


def extreme_counts(view: Tensor, extreme: float) -> NDArray[np.int64]:
    """Pixels of each window that are more than `extreme` noise units from the grey level: (rows, columns).

    view : (1, 1, h, w), grey level 0 and noise 1
    """
    far = (view.abs() > extreme).double()
    sums = functional.pad(far[0, 0].cumsum(0).cumsum(1), (1, 0, 1, 0))
    counts = sums[PATCH:, PATCH:] - sums[:-PATCH, PATCH:] - sums[PATCH:, :-PATCH] + sums[:-PATCH, :-PATCH]
    return counts[::STEP, ::STEP].round().to(torch.int64).numpy()


def usual(counts: NDArray[np.int64], deviations: float) -> NDArray[np.bool_]:
    """Which candidates of a micrograph, (n,), have no more extreme pixels than the others have.

    deviations : standard deviations above the mean number of the candidates
    """
    if not len(counts):
        return np.ones(0, dtype=np.bool_)
    few: NDArray[np.bool_] = counts <= counts.mean() + deviations * counts.std()
    return few


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


def choose(material: Sequence[PickedMicrograph], box_diameters: float, count: int, seed: int) -> list[PickedMicrograph]:
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
        rows = np.concatenate([np.column_stack([np.full(usable[i].sum(), i), *usable[i].nonzero()]) for i in places])
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


def _on_micrograph(one: PickedMicrograph, box_diameters: float) -> NDArray[np.bool_]:
    height, width = micrograph_shape(one.path)
    half = box_diameters * one.diameter_px / 2
    last = np.array([width, height]) - 1 - half
    inside: NDArray[np.bool_] = np.all((one.coordinates >= half) & (one.coordinates <= last), axis=1)
    return inside


def cut_samples(
    material: Sequence[PickedMicrograph],
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
            what = f"{one.path}: no place is {apart:g} windows away from all of its {len(one.known)} particles"
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


def _centres_away(one: PickedMicrograph, view: Tensor, frame: ViewFrame, apart: float) -> Coordinates:
    """Centres of the scored windows that lie far enough from all known particles, (m, 2) x, y px."""
    shape = tuple((side - PATCH) // STEP + 1 for side in view.shape[-2:])
    centres = window_centres(frame, *(i.ravel().astype(np.int64) for i in np.indices(shape)))
    box_px = PATCH / np.array([frame.scale_x, frame.scale_y])
    distance = cKDTree(one.known / box_px).query(centres / box_px)[0]
    far: Coordinates = centres[distance >= apart]
    return far
