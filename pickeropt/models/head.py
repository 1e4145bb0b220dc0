"""The multi-branch GAP classifier of PickerOptimizer (Li et al. 2022, section 2.1.3, Fig. 1C).

Branch 1 is GAP and a linear layer. Branch 2 halves the channels by a 1x1 convolution before
them. Branch 3, which the paper's section 3.4.2 tries, goes down to 128 channels by two. A 1x1
convolution without activation and a mean over positions commute, so the convolutions act on the
pooled features: the same function, and the pooling may be over any windows.

What a classifier looks at, apart from its weights; kept in the checkpoint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

NARROW = 128
"""Channels at the end of the third branch."""

LIMIT = 2.0
"""Of the default recipe: standardised features go no further than this from 0. Ten shots a class say
little about how far a feature may stray; a few that stray far on other micrographs would outvote all the
rest. The paper's recipe and pretraining learn from features as they are, without one."""


@dataclass(frozen=True)
class FeatureLayout:
    """How a feature vector is made up: for each map its channels, and how many windows of it are pooled.

    Features are ordered by map, then window, then channel.
    """

    channels: tuple[int, ...]
    windows: int

    @property
    def width(self) -> int:
        """Length of the feature vector."""
        return sum(self.channels) * self.windows


class PointwiseBranch(nn.Module):
    """1x1 convolutions on each map, pooled, and one linear layer over all windows.

    widths : for each map the channels after each 1x1 convolution; empty for branch 1
    """

    def __init__(self, layout: FeatureLayout, widths: Sequence[Sequence[int]], classes: int):
        super().__init__()
        self.layout = layout
        self.convolutions = nn.ModuleList()
        ends = []
        for channels, steps in zip(layout.channels, widths, strict=True):
            sizes = [channels, *steps]
            layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
            self.convolutions.append(nn.Sequential(*layers))
            ends.append(sizes[-1])
        self.linear = nn.Linear(sum(ends) * layout.windows, classes)

    def forward(self, features: Tensor) -> Tensor:
        """(n, d) -> (n, k) logits."""
        parts = torch.split(features, [c * self.layout.windows for c in self.layout.channels], dim=1)
        pooled = [
            convolution(part.reshape(-1, self.layout.windows, channels)).flatten(1)
            for convolution, part, channels in zip(self.convolutions, parts, self.layout.channels, strict=True)
        ]
        logits: Tensor = self.linear(torch.cat(pooled, 1))
        return logits


class BranchedHead(nn.Module):
    """Two or three branches on standardised features; each gives logits.

    layout : of the feature vectors
    classes : k
    branches : 2 or 3 (1 for pretraining, as in the paper)
    limit : standardised features are clamped to it on both sides; None where they are not

    forward : (n, d) features -> list of (n, k) logits, one a branch.
    Freshly initialised from uniform distributions (torch's default for linear layers).
    """

    def __init__(self, layout: FeatureLayout, classes: int, branches: int = 2, limit: float | None = None):
        super().__init__()
        self.limit = limit
        if not 1 <= branches <= 3:
            raise ValueError(f"{branches} branches: one, two or three")
        self.register_buffer("mean", torch.zeros(layout.width))
        self.register_buffer("scale", torch.ones(layout.width))
        steps: list[list[list[int]]] = [
            [[] for _ in layout.channels],
            [[c // 2] for c in layout.channels],
            [[max(c // 2, NARROW), NARROW] for c in layout.channels],
        ]
        self.branches = nn.ModuleList(PointwiseBranch(layout, s, classes) for s in steps[:branches])

    def standardise(self, features: Tensor, weights: Tensor | None = None) -> None:
        """Take mean and spread from the training features (n, d); channels that never vary stay silent.

        weights : (n,) what each counts for; all alike where none are given
        """
        share = features.new_ones(len(features)) if weights is None else weights
        share = (share / share.sum())[:, None]
        first = features[0]  # a channel that never varies is exactly so
        mean = (share * (features - first)).sum(0)
        spread = (share * (features - first - mean).square()).sum(0).sqrt()
        self.mean = first + mean
        self.scale = torch.where(spread > 1e-6, 1 / spread.clamp(min=1e-6), torch.zeros_like(spread))

    def forward(self, features: Tensor) -> list[Tensor]:
        x = (features - self.mean) * self.scale
        if self.limit is not None:
            x = x.clamp(-self.limit, self.limit)
        return [branch(x) for branch in self.branches]


def multi_loss(
    logits: Sequence[Tensor], labels: Tensor, loss_weights: Sequence[float], class_weights: Tensor
) -> Tensor:
    """Weighted sum of one cross-entropy a branch (Eq. 3 of the paper; the weights are the user's).

    logits : one (n, k) a branch; labels : (n,) int; class_weights : (k,), mean over the weighted shots
    """
    terms = [functional.cross_entropy(z, labels, weight=class_weights) for z in logits]
    return torch.stack([w * term for w, term in zip(loss_weights, terms, strict=True)]).sum()


def joint_logits(logits: Sequence[Tensor], loss_weights: Sequence[float]) -> Tensor:
    """All branches read at inference: their logits averaged with the loss weights, (n, k)."""
    total = torch.stack([w * z for w, z in zip(loss_weights, logits, strict=True)]).sum(0)
    return total / sum(loss_weights)


@dataclass(frozen=True)
class ModelSpec:
    """The geometry of a pick classifier.

    backbone, stages, channels : the ResNet, the residual stages whose maps are pooled, their channels
    view_diameters : size of the particle in each view of the micrograph, px
    windows : sides of the pooled square windows in particle diameters; empty for plain GAP over the box
    orientations : turns and mirrors averaged over, 1 to 8
    dense : whether the network passes over whole micrographs, so that the cost does not grow with
        the picks, or over one box a pick
    box_diameters : side of a box in particle diameters (boxes only)
    centred : whether each map is freed of its micrograph's typical feature
    normalise : "micrograph" or "box", whose grey level and noise scale the pixels
    loss_weights : one a branch
    parents : of the source classes of the pretraining whose prior is used (`source_head.py`); none: ()
    prior_weight : weight of the source prior's logits beside the branches
    carbon_weight : weight of the prior's evidence for carbon on top of that (`source_head.carbon_evidence`)
    carbon_limit : upper limit of that evidence; files without it were fitted with 10
    contaminant_share : share of that evidence that the class `contaminant` gets as well, 0 to 1
    carbon_share : share of that evidence that P(particle) is subject to, 0 to 1
    limit : standardised features go no further than this from 0 into the branches; None: as they are
    """

    backbone: str
    stages: tuple[str, ...]
    channels: tuple[int, ...]
    view_diameters: tuple[float, ...]
    windows: tuple[float, ...]
    orientations: int
    dense: bool
    box_diameters: float
    centred: bool
    normalise: str
    loss_weights: tuple[float, ...]
    class_names: tuple[str, ...]
    parents: tuple[str, ...] = ()
    prior_weight: float = 0.0
    carbon_weight: float = 0.0
    carbon_limit: float = 10.0
    contaminant_share: float = 0.0
    carbon_share: float = 1.0
    limit: float | None = None

    @property
    def layout(self) -> FeatureLayout:
        """Order of the feature vector: view, stage, window, channel."""
        return FeatureLayout(self.channels * len(self.view_diameters), max(1, len(self.windows)))

    @property
    def passes(self) -> str:
        """Forward passes in words, for tables."""
        count = len(self.view_diameters) * self.orientations
        plural = "es" if count > 1 else ""
        return f"{count} pass{plural} a micrograph" if self.dense else f"{count} pass{plural} a pick"

    def box_px(self, view_diameter: float) -> int:
        """Side of a box in view px, of the form 32 k + 1 so that its centre falls on a cell."""
        return round(self.box_diameters * view_diameter / 32) * 32 + 1


FORMER_FIELDS = {
    "lean": "prior_weight",
    "carbon_lean": "carbon_weight",
    "carbon_most": "carbon_limit",
    "carbon_alike": "contaminant_share",
}
"""Fields of a spec as files of earlier versions name them, and as they are called now."""


def spec_of(values: Mapping[str, Any]) -> ModelSpec:
    """A spec from the JSON of a file, also of an earlier version. Raises ValueError for unknown or missing fields."""
    if not isinstance(values, Mapping):
        raise ValueError("the spec is no set of fields")
    values = {FORMER_FIELDS.get(name, name): value for name, value in values.items()}
    known = {field.name for field in fields(ModelSpec)}
    needed = {field.name for field in fields(ModelSpec) if field.default is MISSING}
    if not needed <= set(values) <= known:
        raise ValueError(f"fields {sorted((set(values) - known) | (needed - set(values)))} do not match")
    arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return ModelSpec(**arguments)
