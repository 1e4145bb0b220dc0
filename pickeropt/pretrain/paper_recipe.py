"""The paper's recipe (Li et al. 2022, sections 2.1, 3.2): boxes, GAP, a linear layer, all weights by SGD."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pickeropt.models.fitting import inference_dtype
from pickeropt.models.initial import unfold_batch_norm
from pickeropt.pretrain.learner import (
    TERMS,
    Learner,
    Order,
    batches,
    count_steps,
    slot_generator,
    split,
    stairs,
)
from pickeropt.pretrain.pretrain_config import PretrainConfig
from pickeropt.pretrain.training_set import DataSet
from pickeropt.pretrain.training_views import box_groups, fitted_box

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
    grid = functional.affine_grid(
        torch.from_numpy(theta).to(boxes.dtype), list(boxes.shape), align_corners=False
    )
    return functional.grid_sample(boxes, grid, mode="bilinear", padding_mode="border", align_corners=False)
