"""What the default recipe minimises.

The teacher's maps are averaged over the eight orientations of a view; the student is to give that average
in any one orientation. Few shots need features that do not turn with the particle, and without this those
cost eight passes; and what the teacher knows is kept. Beside it a linear head tells the source classes
(species, contaminants, carbons) from pooled windows of all stages, by cross-entropy, as Li et al. 2022,
section 2.1; and by that of their parents, whose probability is the sum over their source classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pickeropt.models.features import typical_feature
from pickeropt.pretrain.training_views import ViewStore

WINDOWS = (0.5, 1.2, 2.7)
"""Sides of the pooled windows in particle diameters: those of finetune's default recipe, so that it can
use the head."""

SCALES = (1, 2, 4)
"""Cells over which the difference from the teacher is averaged before it is squared: 1 is a cell itself.
Few shots see means over windows, in which errors that differ from cell to cell do not count."""

SAMPLE = 80
"""Views whose maps give the spread of each channel."""

Spreads = Sequence[Sequence[Tensor]]
"""By stage and scale, (c, 1, 1): the variance of each channel of the teacher's maps."""


def at_scales(feature_map: Tensor) -> list[Tensor]:
    """(c, h, w) -> means over squares of `SCALES` cells, half overlapping; as many as fit the map."""
    fitting = [scale for scale in SCALES if scale <= min(feature_map.shape[1:])]
    return [
        feature_map if scale == 1 else functional.avg_pool2d(feature_map[None], scale, stride=scale // 2)[0]
        for scale in fitting
    ]


def without_mean(feature_map: Tensor, centred: bool) -> Tensor:
    """(c, h, w) less its mean over the map, where features count from their micrograph's level."""
    return feature_map - feature_map.mean((1, 2), keepdim=True) if centred else feature_map


def channel_spreads(store: ViewStore, device: torch.device) -> list[list[Tensor]]:
    """Variance of each channel at each stage and scale, over some views: all channels count the same."""
    step = max(1, len(store) // SAMPLE)
    views = [store.load(index) for index in range(0, len(store), step)]
    spreads = []
    for stage in range(len(views[0].maps)):
        pooled = [at_scales(without_mean(view.maps[stage].float(), view.centred)) for view in views]
        # a map that is smaller than a scale has no value there
        by_scale = [[p[s] for p in pooled if s < len(p)] for s in range(len(SCALES))]
        spreads.append([_variance(maps).to(device) for maps in by_scale if maps])
    return spreads


def _variance(maps: Sequence[Tensor]) -> Tensor:
    """(c, 1, 1) variance over all maps (c, h, w), each map counting the same."""
    mean = torch.stack([m.mean((1, 2)) for m in maps]).mean(0)
    square = torch.stack([m.square().mean((1, 2)) for m in maps]).mean(0)
    return (square - mean.square()).clamp(min=1e-5)[:, None, None]


def rotation_loss(
    maps: Sequence[Tensor], targets: Sequence[Tensor], spreads: Spreads, centred: bool
) -> Tensor:
    """Mean squared distance of maps (c, h, w) to the targets, in units of each channel's variance.

    Averaged over cells and channels, then scales, then stages; of centred maps the mean does not count.
    """
    terms = []
    for m, target, spread in zip(maps, targets, spreads, strict=True):
        pooled = at_scales(without_mean(m - target, centred))
        parts = [(p.square() / s).mean() for p, s in zip(pooled, spread, strict=False)]
        terms.append(torch.stack(parts).mean())
    return torch.stack(terms).mean()


def point_features(
    maps: Sequence[Tensor], strides: Sequence[int], points: Tensor, diameter: float, centred: bool
) -> Tensor:
    """What the head sees of n points: the same as `models.features.dense_features` gives.

    maps : one (c, h, w) a stage; points : (n, 2) y, x and diameter in view px
    returns : (n, d) by stage, window, channel
    """
    parts = [
        window_features(m, points / stride, diameter / stride, centred)
        for m, stride in zip(maps, strides, strict=True)
    ]
    return torch.cat(parts, 1)


def head_scales(spreads: Spreads) -> Tensor:
    """(d,) that bring window features near unit variance: from the spread at the coarsest scale."""
    return torch.cat([stage[-1].flatten().rsqrt().repeat(len(WINDOWS)) for stage in spreads])


def window_features(feature_map: Tensor, centres: Tensor, diameter: float, centred: bool) -> Tensor:
    """The features of one stage.

    feature_map : (c, h, w); centres : (n, 2) y, x and diameter in cells
    returns : (n, c * windows) by window, channel

    By matrix products, because integral images are not summed in one order on every device.
    """
    if centred:
        feature_map = feature_map - typical_feature(feature_map)[:, None, None]
    height, width = feature_map.shape[1:]
    parts = []
    for window in WINDOWS:
        rows = window_weights(centres[:, 0], window * diameter, height)
        columns = window_weights(centres[:, 1], window * diameter, width)
        across = torch.tensordot(columns, feature_map, ([1], [2]))  # (n, c, h)
        parts.append((across * rows[:, None]).sum(2))
    return torch.cat(parts, 1)


def window_weights(centres: Tensor, side: float, cells: int) -> Tensor:
    """(n, cells): share of each cell in a window of `side` cells around each centre (n,), cut at the edge."""
    middle = (centres + 0.5).clamp(0.5, cells - 0.5)[:, None]
    low, high = (middle - side / 2).clamp(min=0), (middle + side / 2).clamp(max=cells)
    starts = torch.arange(cells, device=centres.device)
    covered = (torch.minimum(high, starts + 1) - torch.maximum(low, starts)).clamp(min=0)
    return (covered / (high - low)).to(torch.float32)
