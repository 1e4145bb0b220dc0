"""The DeepEM network: its settings, its layers, their initial weights, and the scan of a whole micrograph.

Zhu, Ouyang & Mao, BMC Bioinformatics 18, 348 (2017), Table 1 and "Training of the DeepEM network". The initial
weights of the paper, between 0 and 1, do not learn: with positive weights only, every sigmoid of C3 and C5
sums hundreds of positive numbers, is 1 to the last bit, and has no gradient. `initialise` replaces them.

The scan gives the scores of windows cut at each position, rotated four ways and passed through the network,
but computes once what windows share:

- Rotating the kernels of all layers replaces rotating a window, because every pool divides its input without
  remainder. Four sets of kernels pass over one micrograph.
- Windows start at multiples of the step. Where a pool divides the step, one pooling of the whole map serves
  all windows. Where it does not (a pool of 3 and a step of 20), the map is pooled once for each shift that
  some window needs, and these maps continue as one batch.
- The last pool and the output are one linear function of the last map: a convolution with the output's
  weights spread over the pool, at the stride of the step.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pickeropt.errors import GeometryError, PickeroptError

LEAST_OUTPUT, MOST_OUTPUT = 0.7, 0.9
"""What a convolution leaves of the side of its input, in general (the paper)."""
SHARES = (98 / 112, 40 / 49, 14 / 20)
"""What C1, C3 and C5 leave in the inflammasome's network, the one with pools of 2 only."""
LEAST_BOX = 40
"""px; below it no even output lies within `LEAST_OUTPUT` and `MOST_OUTPUT` any more."""


@dataclass(frozen=True)
class Geometry:
    """Sides of the input, of the three kernels C1, C3, C5 and of the three pools S2, S4, S6, px.

    Raises GeometryError for kernels that do not fit and pools that leave a rest.
    """

    box: int
    kernels: tuple[int, int, int]
    pools: tuple[int, int, int]

    def __post_init__(self) -> None:
        side = self.box
        for number, (kernel, pool) in enumerate(zip(self.kernels, self.pools, strict=True)):
            output = side - kernel + 1
            if kernel < 1 or pool < 1 or output < 1:
                raise GeometryError(
                    f"kernel {kernel} px and pool {pool} px of layer C{2 * number + 1} do not fit its input "
                    f"of {side} px; give smaller ones, or none and take those of the rule"
                )
            if output % pool:
                raise GeometryError(
                    f"layer C{2 * number + 1} gives {output} px, which a pool of {pool} px does not divide; "
                    f"change its kernel of {kernel} px by {output % pool}"
                )
            side = output // pool

    def sides(self) -> Iterator[int]:
        """Sides of C1, S2, C3, S4, C5, S6, px, as in the columns of Table 1."""
        side = self.box
        for kernel, pool in zip(self.kernels, self.pools, strict=True):
            yield side - kernel + 1
            side = (side - kernel + 1) // pool
            yield side


PUBLISHED = {
    "klh": Geometry(272, (51, 21, 10), (3, 2, 2)),
    "19s": Geometry(160, (20, 10, 4), (3, 2, 2)),
    "26s": Geometry(150, (31, 15, 10), (2, 2, 2)),
    "inflammasome": Geometry(112, (15, 10, 7), (2, 2, 2)),
}
"""Table 1 of the paper, by data set."""


def derived(box: int) -> Geometry:
    """The geometry of any box: pools of 2, and outputs in the proportions of the inflammasome's.

    Each output is the even number nearest to its share of `SHARES` within 70 to 90 % of its input.
    Raises GeometryError for a box below `LEAST_BOX`.
    """
    if box < LEAST_BOX:
        raise GeometryError(f"a box of {box} px is too small for six layers; give {LEAST_BOX} px or more")
    side, kernels = box, []
    for share in SHARES:
        fitting = [n for n in range(2, side, 2) if LEAST_OUTPUT * side <= n <= MOST_OUTPUT * side]
        output = min(fitting, key=lambda n: abs(n - share * side))
        kernels.append(side - output + 1)
        side = output // 2
    return Geometry(box, (kernels[0], kernels[1], kernels[2]), (2, 2, 2))


MAPS = (6, 12, 12)
"""Feature maps of C1, C3 and C5 (Table 1)."""
LEAST_SPREAD = 1e-6
"""A map that varies less over the windows is left unscaled."""


class DeepEMNetwork(nn.Module):
    """Eight layers: input, three convolutions and three mean pools in turn, and a fully connected output.

    Sigmoid after each convolution and at the output; none after a pool.
    """

    def __init__(self, geometry: Geometry, maps: tuple[int, int, int] = MAPS):
        super().__init__()
        self.geometry, self.maps = geometry, maps
        inputs = (1, *maps[:2])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, kernel)
            for before, after, kernel in zip(inputs, maps, geometry.kernels, strict=True)
        )
        self.pools = nn.ModuleList(nn.AvgPool2d(pool) for pool in geometry.pools)
        *_, last = geometry.sides()
        self.output = nn.Linear(maps[2] * last**2, 1)

    def forward(self, windows: Tensor) -> Tensor:
        """Scores between 0 and 1, (n,), of windows (n, 1, box, box)."""
        return self.logits(windows).sigmoid()

    def logits(self, windows: Tensor) -> Tensor:
        """The output before its sigmoid, (n,)."""
        x = windows
        for convolution, pool in zip(self.convolutions, self.pools, strict=True):
            x = pool(convolution(x).sigmoid())
        result: Tensor = self.output(x.flatten(1))[:, 0]
        return result

    def turned_scores(self, windows: Tensor) -> Tensor:
        """The mean score over four turns by 90°, (n,): as recognition has it."""
        turns = [self(torch.rot90(windows, quarter, (2, 3))) for quarter in range(4)]
        return torch.stack(turns).mean(dim=0)


@torch.no_grad()
def initialise(network: DeepEMNetwork, windows: Tensor, seed: int, spread: float) -> None:
    """Draw the weights, in place, so that every sigmoid works in its curved part.

    windows : (n, 1, box, box), some of those it will learn from
    spread : standard deviation of a map before its sigmoid, over these windows

    Weights are normal deviates; layer by layer each map's weights are then scaled, and its bias set, so
    that over these windows its values before the sigmoid have mean 0 and the standard deviation `spread`
    (after Mishkin & Matas, ICLR 2016). The output starts at zero weights: at a score of 1/2 for all.
    """
    generator = torch.Generator().manual_seed(int(np.random.default_rng([seed, 1]).integers(2**62)))
    x = windows
    for convolution, pool in zip(network.convolutions, network.pools, strict=True):
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        convolution.weight.copy_(torch.randn(convolution.weight.shape, generator=generator))
        convolution.bias.zero_()
        before = convolution(x)
        mean, deviation = before.mean((0, 2, 3)), before.std((0, 2, 3))
        scale = torch.where(deviation > LEAST_SPREAD, spread / deviation, torch.ones_like(deviation))
        convolution.weight.mul_(scale[:, None, None, None])
        convolution.bias.copy_(-mean * scale)
        x = pool(convolution(x).sigmoid())
    nn.init.zeros_(network.output.weight)
    nn.init.zeros_(network.output.bias)


STEP = 20
"""px of the raster scan (the preprint's recognition process, step 4)."""
LEAST_STEP_BOX = 112
"""px; the smallest box that the paper scans by `STEP`."""
DERIVED = "derived"


@dataclass(frozen=True)
class DeepEMSettings:
    """px are those of the box, after the micrograph is resampled.

    geometry : "derived" for the rule, or one of `PUBLISHED`: box and layers of that data set
    box : side of the window, px; the micrograph is resampled so that the particle fits
    box_diameters : the same side in particle diameters (KLH: 272 px of 2.2 Å for 40 nm)
    kernels, pools : of the three levels, in place of the rule's; kernels of 0 are the rule's
    step : of the raster, px; 0 is the paper's 20, and its share of the smallest published box where the
        box is smaller still
    epochs : passes over windows in four turns; least_steps : gradient steps of a round at the least
    batch : windows of a step, half of them particles
    spread : of the initial values before each sigmoid (`network.initialise`)
    negative_distance : diameters; windows without a particle lie that far from any known one at least
    rounds : of the learning cycle after the first training; target_error : the learning error below which it
        ends (`training.learning_error`; the paper: about 95 % right at 0.5)
    separation : diameters; no two picks are that close
    std_range : picks whose pixels deviate less or more than the particles learnt from are none: by how
        many of their own standard deviations theirs may lie from their mean; 0 sets no window
    """

    geometry: str = DERIVED
    box: int = 64
    box_diameters: float = 1.5
    kernels: tuple[int, int, int] = (0, 0, 0)
    pools: tuple[int, int, int] = (2, 2, 2)
    step: int = 0
    learning_rate: float = 1.0
    epochs: int = 5
    least_steps: int = 1500
    batch: int = 50
    spread: float = 1.0
    negative_distance: float = 0.5
    rounds: int = 2
    target_error: float = 0.05
    separation: float = 0.5
    std_range: float = 4.0

    def __post_init__(self) -> None:
        """Raises PickeroptError for a value out of range, GeometryError for layers that do not fit."""
        if self.geometry not in (DERIVED, *PUBLISHED):
            names = ", ".join((DERIVED, *PUBLISHED))
            raise PickeroptError(f"DeepEM's geometry is {self.geometry!r}; give one of {names}")
        above = ("box_diameters", "learning_rate", "spread", "separation")
        at_least = {
            "std_range": 0,
            "target_error": 0,
            "step": 0,
            "epochs": 1,
            "least_steps": 0,
            "batch": 2,
            "rounds": 0,
            "negative_distance": 0,
        }
        for name in above:
            if not getattr(self, name) > 0:
                raise PickeroptError(f"DeepEM's {name} is {getattr(self, name):g}; give a number above 0")
        for name, least in at_least.items():
            if not getattr(self, name) >= least:
                raise PickeroptError(f"DeepEM's {name} is {getattr(self, name):g}; give {least} or more")
        for name in ("kernels", "pools"):
            sizes = getattr(self, name)
            if len(sizes) != 3 or min(sizes) < 0:
                given = ",".join(map(str, sizes))
                raise PickeroptError(f"DeepEM's {name} are {given}; give three sizes in px, such as 9,7,4")
        self.layers()

    def layers(self) -> Geometry:
        """Box, kernels and pools."""
        if self.geometry != DERIVED:
            return PUBLISHED[self.geometry]
        return Geometry(self.box, self.kernels, self.pools) if any(self.kernels) else derived(self.box)

    def scan_step(self) -> int:
        """Step of the raster, px: as given, 20, or for a box below 112 px 20/112 of it in steps of 4 px."""
        box = self.layers().box
        share = max(4, 4 * (STEP * box // LEAST_STEP_BOX // 4))
        return self.step or (STEP if box >= LEAST_STEP_BOX else share)

    def diameter(self) -> float:
        """Of the particle after resampling, px."""
        return self.layers().box / self.box_diameters


def settings_from(values: Mapping[str, Any]) -> DeepEMSettings:
    """Settings as JSON gives them back: lists are tuples again, names that are not known are left out."""
    names = {field.name for field in fields(DeepEMSettings)}
    kept: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items() if n in names}
    return DeepEMSettings(**kept)


BAND_PX = 2**21
"""Pixels of a band of rows that pass at once: bounds memory at about 0.5 GB."""


@torch.inference_mode()
def scan(network: DeepEMNetwork, view: Tensor, step: int) -> Tensor:
    """Mean score over four turns of the windows at every `step` px.

    view : (1, 1, H, W), at least a box each way
    returns : (rows, columns) float32 on the CPU; the window of cell (i, j) starts at view pixel
        (i * step, j * step), and all windows lie inside the view
    """
    box = network.geometry.box
    height, width = view.shape[-2:]
    rows = (height - box) // step + 1
    band = max(1, (BAND_PX // width - box) // step + 1, (2 * box) // step)
    scores = []
    for top in range(0, rows, band):
        count = min(band, rows - top)
        part = view[:, :, top * step : (top + count - 1) * step + box]
        turns = [_pass(network, part, step, quarter).sigmoid() for quarter in range(4)]
        scores.append(torch.stack(turns).mean(dim=0).cpu())
    return torch.cat(scores).float()


def _pass(network: DeepEMNetwork, view: Tensor, step: int, quarter: int) -> Tensor:
    """Logits (rows, columns) of all windows turned by `quarter` times 90°."""
    box = network.geometry.box
    shape = [(side - box) // step + 1 for side in view.shape[-2:]]
    # phases: first window and stride among the windows, of each map in the batch, along either axis
    maps, phases = view, [(0, 1)]
    for convolution, pool in zip(network.convolutions[:2], network.geometry.pools[:2], strict=True):
        maps = _convolved(convolution, maps, quarter)
        maps, phases, step = _pooled(maps, phases, step, pool)
    last = network.convolutions[2]
    maps = _convolved(last, maps, quarter)
    logits = functional.conv2d(maps, _head(network, quarter), network.output.bias, stride=step)
    result = logits.new_empty(shape)
    for index, (down, across) in enumerate((d, a) for d in phases for a in phases):
        place = result[down[0] :: down[1], across[0] :: across[1]]
        place.copy_(logits[index, 0, : place.shape[0], : place.shape[1]])
    return result


def _convolved(convolution: nn.Module, maps: Tensor, quarter: int) -> Tensor:
    assert isinstance(convolution, nn.Conv2d)
    kernel = torch.rot90(convolution.weight, -quarter, (2, 3)).contiguous()
    return functional.conv2d(maps, kernel, convolution.bias).sigmoid_()


def _pooled(
    maps: Tensor, phases: list[tuple[int, int]], step: int, pool: int
) -> tuple[Tensor, list[tuple[int, int]], int]:
    """The maps pooled for every shift of the pool that a window needs, the new phases, and the new step.

    Window n of a phase starts at n * step, which lies `(n * step) % pool` px into a pool. Those with the same
    remainder, every `turns`-th, share one pooled map.
    """
    turns = pool // math.gcd(step, pool)
    if turns == 1:
        return functional.avg_pool2d(maps, pool), phases, step // pool
    starts = [first * step for first in range(turns)]
    shifted = functional.pad(maps, (0, starts[-1], 0, starts[-1]))
    height, width = maps.shape[-2:]
    pooled = [functional.avg_pool2d(shifted[:, :, y : y + height, x : x + width], pool) for y in starts for x in starts]
    return _in_order(pooled, len(phases), turns), _split(phases, turns), turns * step // pool


def _in_order(pooled: list[Tensor], before: int, turns: int) -> Tensor:
    """The batches of all shifts as one, rows of phases before columns: (d, turn, a, turn)."""
    stacked = torch.stack(pooled)
    shape = stacked.shape[2:]
    by_phase = stacked.reshape(turns, turns, before, before, *shape)
    return by_phase.permute(2, 0, 3, 1, 4, 5, 6).reshape(-1, *shape)


def _split(phases: list[tuple[int, int]], turns: int) -> list[tuple[int, int]]:
    return [(first + turn * stride, stride * turns) for first, stride in phases for turn in range(turns)]


def _head(network: DeepEMNetwork, quarter: int) -> Tensor:
    """(1, maps, side, side): last pool and output as one kernel over the last convolution's map."""
    pool = network.geometry.pools[2]
    *_, side = network.geometry.sides()
    weights = network.output.weight.view(1, -1, side, side)
    spread = weights.repeat_interleave(pool, 2).repeat_interleave(pool, 3) / pool**2
    return torch.rot90(spread, -quarter, (2, 3)).contiguous()
