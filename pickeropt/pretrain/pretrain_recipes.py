"""The two training recipes: samples, loss and optimiser of each.

`DistilRecipe`, the default, is rotation distillation. The teacher's maps are averaged over the eight
orientations of a view; the student learns to give that average from any one orientation. This makes features
independent of the particle's in-plane rotation in one pass and keeps what the teacher has learnt. A linear
head classifies the source classes from pooled windows of all stages by cross-entropy (Li et al. 2022, section
2.1), and their parents, whose probability is the sum over their source classes.

`PaperRecipe` is that of Li et al. 2022, sections 2.1 and 3.2: boxes, GAP, a linear layer, all weights by SGD.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pickeropt.models.backbone import unfold_batch_norm
from pickeropt.models.features import EIGHT, turn, turn_back, typical_feature
from pickeropt.models.fitting import inference_dtype
from pickeropt.pretrain.learner import (
    MEASURED,
    TERMS,
    Learner,
    Order,
    batches,
    cosine,
    count_steps,
    slot_generator,
    split,
    stairs,
)
from pickeropt.pretrain.pretrain_config import PretrainConfig
from pickeropt.pretrain.training_set import DataSet, Parents, even_weights
from pickeropt.pretrain.training_views import TrainingView, ViewStore, box_groups, fitted_box

WINDOWS = (0.5, 1.2, 2.7)
"""Sides of the pooled windows in particle diameters: those of finetune's default recipe, so that it can
use the head."""

SCALES = (1, 2, 4)
"""Cells over which the difference from the teacher is averaged before it is squared: 1 is a cell itself.
Few-shot classifiers use means over windows, in which errors that differ from cell to cell do not count."""

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


def rotation_loss(maps: Sequence[Tensor], targets: Sequence[Tensor], spreads: Spreads, centred: bool) -> Tensor:
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
        window_features(m, points / stride, diameter / stride, centred) for m, stride in zip(maps, strides, strict=True)
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


STAGES = ("layer2", "layer3")
"""Those of finetune's default recipe."""

FEWEST = 8
"""Points of a parent on a view from which on it counts as much as any other."""


@dataclass(frozen=True)
class AugmentedView:
    """A view with its augmentation: turned, brighter by `gain`, shifted by `offset`."""

    view: TrainingView
    orientation: tuple[int, bool]
    gain: float = 1.0
    offset: float = 0.0


class DistilRecipe:
    """Implements `learner.Recipe`. Batch norms keep their statistics: views of a batch share nothing."""

    averaged = True
    measured: tuple[str, ...] = MEASURED

    def __init__(
        self,
        labelled: ViewStore,
        unlabelled: ViewStore,
        parents: Parents,
        config: PretrainConfig,
        device: torch.device,
    ):
        self.labelled, self.unlabelled, self.parents = labelled, unlabelled, parents
        self.config, self.device, self.batch_size = config, device, config.schedule.batch_size
        self.training, self.held = split(labelled.pieces, config.held_back)
        self.samples, self.held_back = len(self.training), len(self.held)
        self.steps = count_steps(config.schedule, self.samples)
        self._order = Order(config.seed, self.samples)
        self._spreads = channel_spreads(labelled, device)
        self._mixed = config.mixed_precision and inference_dtype(device) == torch.bfloat16

    def start_head(self, learner: Learner) -> None:
        """A head with zero weights, of features with about unit variance."""
        learner.head.scale.copy_(head_scales(self._spreads))
        nn.init.zeros_(learner.head.linear.weight)
        nn.init.zeros_(learner.head.linear.bias)

    def optimiser(self, learner: Learner) -> torch.optim.Optimizer:
        """AdamW."""
        learner.eval()
        groups = [
            {"params": learner.backbone.parameters(), "lr": self.config.schedule.learning_rate},
            {"params": learner.head.parameters(), "lr": self.config.head_learning_rate},
        ]
        return torch.optim.AdamW(groups, weight_decay=1e-4)

    def rate(self, step: int) -> float:
        """A cosine."""
        return cosine(step, self.steps)

    def weights(self, step: int) -> tuple[float, float]:
        """None while the rotation term is alone."""
        alone = step <= self.config.distil_first * self.steps
        return (0.0, 0.0) if alone else self._full

    @property
    def _full(self) -> tuple[float, float]:
        return self.config.class_weight, self.config.parent_weight

    def backward(self, learner: Learner, step: int, slots: Iterable[int]) -> Tensor:
        """Gradients of the batch's mean loss."""
        samples = [self._draw(step, slot) for slot in slots]
        terms = torch.zeros(len(TERMS), device=self.device)
        for bundle in self._bundles(samples):
            losses, found = self._losses(learner, bundle, self.weights(step))
            (losses / self.batch_size).backward()  # type: ignore[no-untyped-call]
            terms += found
        return terms

    def limit(self, learner: Learner) -> None:
        """The backbone's gradient no longer than 1."""
        nn.utils.clip_grad_norm_(learner.backbone.parameters(), 1.0)

    def measure(self, learner: Learner, indices: Iterable[int]) -> Tensor:
        """In one orientation that is not the plain one."""
        terms = torch.zeros(len(TERMS), device=self.device)
        with torch.no_grad():
            for index in indices:
                sample = AugmentedView(self.labelled.load(int(self.held[index])), EIGHT[5])
                terms += self._losses(learner, [sample], self._full)[1]
        return terms

    def _draw(self, step: int, slot: int) -> AugmentedView:
        rng = slot_generator(self.config.seed, step, slot)
        if len(self.unlabelled) and rng.random() < self.config.unlabelled_share:
            view = self.unlabelled.load(int(rng.integers(len(self.unlabelled))))
        else:
            position = (step - 1) * self.batch_size + slot
            view = self.labelled.load(int(self.training[self._order(position)]))
        orientation = EIGHT[int(rng.integers(len(EIGHT)))]
        return AugmentedView(view, orientation, math.exp(rng.normal(0, 0.1)), float(rng.normal(0, 0.05)))

    def _bundles(self, samples: list[AugmentedView]) -> list[list[AugmentedView]]:
        """What passes at once: views of one size on a GPU, one by one on a CPU, where that is faster."""
        if self.device.type == "cpu":
            return [[sample] for sample in samples]
        sides = sorted({sample.view.pixels.shape[0] for sample in samples})
        return [[s for s in samples if s.view.pixels.shape[0] == side] for side in sides]

    def _losses(
        self, learner: Learner, samples: list[AugmentedView], weights: tuple[float, float]
    ) -> tuple[Tensor, Tensor]:
        """The summed loss of views of one size, and their terms."""
        images = [turn(s.view.pixels.to(self.device).float(), s.orientation) * s.gain + s.offset for s in samples]
        batch = torch.stack(images)[:, None].contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._mixed):
            maps = learner.backbone(batch)
        losses, terms = [], []
        for number, sample in enumerate(samples):
            loss, found = self._loss(learner, [m[number].float() for m in maps], sample, weights)
            losses.append(loss)
            terms.append(found)
        return torch.stack(losses).sum(), torch.stack(terms).sum(0)

    def _loss(
        self, learner: Learner, maps: list[Tensor], sample: AugmentedView, weights: tuple[float, float]
    ) -> tuple[Tensor, Tensor]:
        view, turned = sample.view, sample.orientation
        targets = [turn(m.to(self.device).float(), turned) for m in view.maps]
        rotation = rotation_loss(maps, targets, self._spreads, view.centred)
        none, one = torch.zeros_like(rotation), torch.ones_like(rotation)
        if not len(view.labels) or not any(weights):
            return rotation, torch.stack([rotation.detach(), *[none] * 5, one])
        back, strides = [turn_back(m, turned) for m in maps], learner.backbone.strides
        points, labels = view.points.to(self.device), view.labels.to(self.device)
        logits = learner.head(point_features(back, strides, points, view.diameter, view.centred))
        kinds = self.parents.labels(labels)
        shares = even_weights(kinds, FEWEST)
        classes, parents = self.parents.losses(logits, labels, shares)
        right = [logits.argmax(1) == labels, self.parents.logits(logits).argmax(1) == kinds]
        accuracies = [(r * shares).sum() for r in right]
        terms = torch.stack([rotation.detach(), classes.detach(), parents.detach(), *accuracies, one, one])
        return rotation + weights[0] * classes + weights[1] * parents, terms


MEASURED_AT_ONCE = 64


class PaperRecipe:
    """Implements `learner.Recipe`. Batch norms learn their statistics, over the whole batch."""

    averaged = False
    measured: tuple[str, ...] = ("classes", "accuracy")

    def __init__(self, data: DataSet, config: PretrainConfig, device: torch.device):
        self.config, self.device, self.batch_size = config, device, config.schedule.batch_size
        diameter = config.box_px / data.box_diameters
        fitted = [fitted_box(box, data, diameter, config.box_px) for box in data.boxes]
        self.boxes = torch.cat(fitted).half()
        self.labels = torch.tensor([box.label for box in data.boxes])
        self._training, self._held = split(box_groups(data.boxes), config.held_back)
        self.samples, self.held_back = len(self._training), len(self._held)
        self.steps = count_steps(config.schedule, self.samples)
        self._order = Order(config.seed, self.samples)
        self._mixed = config.mixed_precision and inference_dtype(device) == torch.bfloat16

    def unfold(self, learner: Learner) -> None:
        """Give batch norms that were folded into the convolutions real statistics, the function unchanged."""
        some = self.boxes[self._training[:: max(1, self.samples // 64)]]
        unfold_batch_norm(learner.backbone, some.float().to(self.device))

    def optimiser(self, learner: Learner) -> torch.optim.Optimizer:
        """SGD with momentum 0.9."""
        learner.train()
        return torch.optim.SGD(learner.parameters(), lr=self.config.schedule.learning_rate, momentum=0.9)

    def rate(self, step: int) -> float:
        """Stairs of seven epochs."""
        return stairs(step, self.samples, self.batch_size)

    def weights(self, step: int) -> tuple[float, float]:
        """Source classes alone."""
        return 1.0, 0.0

    def backward(self, learner: Learner, step: int, slots: Iterable[int]) -> Tensor:
        """Gradients of the batch's mean cross-entropy."""
        mine = list(slots)
        chosen = self._training[[self._order((step - 1) * self.batch_size + slot) for slot in mine]]
        generators = [slot_generator(self.config.seed, step, slot) for slot in mine]
        loss, terms = self._loss(learner, turned(self.boxes[chosen].float(), generators), self.labels[chosen])
        (loss / self.batch_size).backward()  # type: ignore[no-untyped-call]
        return terms

    def limit(self, learner: Learner) -> None:
        """Not at all."""

    def measure(self, learner: Learner, indices: Iterable[int]) -> Tensor:
        """Boxes as they are."""
        terms = torch.zeros(len(TERMS), device=self.device)
        learner.eval()
        with torch.no_grad():
            for some in batches(indices, MEASURED_AT_ONCE):
                chosen = self._held[some]
                terms += self._loss(learner, self.boxes[chosen].float(), self.labels[chosen])[1]
        learner.train()
        return terms

    def _loss(self, learner: Learner, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The summed cross-entropy of boxes, and their terms."""
        batch = boxes.to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._mixed):
            maps = learner.backbone(batch)
        logits, labels = learner.head(maps[-1].float().mean((2, 3))), labels.to(self.device)
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        right = (logits.argmax(1) == labels).float().sum()
        count = torch.full_like(right, len(labels))
        none = torch.zeros_like(right)
        return loss, torch.stack([none, loss.detach(), none, right, none, count, count])


def turned(boxes: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
    """Boxes (n, 1, s, s) flipped either way at random and turned by any angle, edges replicated."""
    theta = np.zeros((len(boxes), 2, 3))
    for number, rng in enumerate(generators):
        angle, flips = rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0], 2)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        theta[number, :, :2] = flips[:, None] * rotation
    grid = functional.affine_grid(torch.from_numpy(theta).to(boxes.dtype), list(boxes.shape), align_corners=False)
    return functional.grid_sample(boxes, grid, mode="bilinear", padding_mode="border", align_corners=False)
