"""Our recipe: rotation distillation on views of several scales, source classes and parents beside it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pickeropt.models.fitting import inference_dtype
from pickeropt.models.orientations import EIGHT, turn, turn_back
from pickeropt.pretrain.distil import channel_spreads, head_scales, point_features, rotation_loss
from pickeropt.pretrain.learner import (
    MEASURED,
    TERMS,
    Learner,
    Order,
    cosine,
    count_steps,
    slot_generator,
    split,
)
from pickeropt.pretrain.parents import Parents, even_weights
from pickeropt.pretrain.pretrain_config import PretrainConfig
from pickeropt.pretrain.training_views import View, ViewStore

STAGES = ("layer2", "layer3")
"""Those of finetune's default recipe."""

FEWEST = 8
"""Points of a parent on a view from which on it counts as much as any other."""


@dataclass(frozen=True)
class Sample:
    """A view as it is shown: turned, brighter by `gain`, shifted by `offset`."""

    view: View
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
        """A head that says nothing yet, of features with about unit variance."""
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
                sample = Sample(self.labelled.load(int(self.held[index])), EIGHT[5])
                terms += self._losses(learner, [sample], self._full)[1]
        return terms

    def _draw(self, step: int, slot: int) -> Sample:
        rng = slot_generator(self.config.seed, step, slot)
        if len(self.unlabelled) and rng.random() < self.config.unlabelled_share:
            view = self.unlabelled.load(int(rng.integers(len(self.unlabelled))))
        else:
            position = (step - 1) * self.batch_size + slot
            view = self.labelled.load(int(self.training[self._order(position)]))
        orientation = EIGHT[int(rng.integers(len(EIGHT)))]
        return Sample(view, orientation, math.exp(rng.normal(0, 0.1)), float(rng.normal(0, 0.05)))

    def _bundles(self, samples: list[Sample]) -> list[list[Sample]]:
        """What passes at once: views of one size on a GPU, one by one on a CPU, where that is faster."""
        if self.device.type == "cpu":
            return [[sample] for sample in samples]
        sides = sorted({sample.view.pixels.shape[0] for sample in samples})
        return [[s for s in samples if s.view.pixels.shape[0] == side] for side in sides]

    def _losses(
        self, learner: Learner, samples: list[Sample], weights: tuple[float, float]
    ) -> tuple[Tensor, Tensor]:
        """The summed loss of views of one size, and their terms."""
        images = [
            turn(s.view.pixels.to(self.device).float(), s.orientation) * s.gain + s.offset for s in samples
        ]
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
        self, learner: Learner, maps: list[Tensor], sample: Sample, weights: tuple[float, float]
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
        told = [(r * shares).sum() for r in right]
        terms = torch.stack([rotation.detach(), classes.detach(), parents.detach(), *told, one, one])
        return rotation + weights[0] * classes + weights[1] * parents, terms
