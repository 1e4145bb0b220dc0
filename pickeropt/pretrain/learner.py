"""What is trained, and the two ways to do it: each knows its samples, its loss and its optimiser."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pickeropt.models.backbone import Backbone
from pickeropt.pretrain.pretrain_config import Schedule

CUTTING, DRAWING, ORDER, THINNING = 0, 1, 2, 3
"""Streams of random numbers beside the seed."""

MEASURED = ("rotation", "classes", "parents", "accuracy", "parent_accuracy")
"""Three losses, the share of points whose source class is told right, and whose parent is."""

TERMS = (*MEASURED, "labelled", "samples")
"""What is summed over samples: all but the first over those with labels, whose number is the sixth."""

LEAD_IN = 50
"""Steps in which the default recipe's learning rate rises."""


class LinearHead(nn.Module):
    """forward : (n, width) features -> (n, classes) logits, linear in features less `mean` times `scale`."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear((features - self.mean) * self.scale)
        return logits


class Learner(nn.Module):
    """A backbone and its linear head over k source classes.

    width : of the features that the head sees
    """

    def __init__(self, backbone: Backbone, width: int, classes: int):
        super().__init__()
        self.backbone = backbone
        self.head = LinearHead(width, classes)


class Recipe(Protocol):
    """How a learner is trained.

    samples : how many there are to train on; held_back : how many to measure on
    steps : of the whole training
    averaged : whether a running average of the weights is what is kept
    measured : what of `MEASURED` it knows
    """

    samples: int
    held_back: int
    steps: int
    averaged: bool
    measured: tuple[str, ...]

    def optimiser(self, learner: Learner) -> torch.optim.Optimizer:
        """A fresh one, its groups at their highest learning rates."""

    def rate(self, step: int) -> float:
        """What learning rates are multiplied by at a step, from 1."""

    def weights(self, step: int) -> tuple[float, float]:
        """Of the cross-entropies of source classes and of their parents in the loss at a step, from 1."""

    def backward(self, learner: Learner, step: int, slots: Iterable[int]) -> Tensor:
        """Add the gradients of these slots of the step's batch to the learner's; their `TERMS`, (7,)."""

    def limit(self, learner: Learner) -> None:
        """What is done to the gradients of the whole batch before a step."""

    def measure(self, learner: Learner, indices: Iterable[int]) -> Tensor:
        """Terms of these samples that were held back, (7,), without gradients."""


def count_steps(schedule: Schedule, samples: int) -> int:
    """Steps of a schedule; epochs are of `samples`."""
    return schedule.steps or -(-schedule.epochs * samples // schedule.batch_size)


def cosine(step: int, steps: int) -> float:
    """A lead-in, then half a cosine down to almost nothing."""
    return min(1.0, step / LEAD_IN) * (0.5 * (1 + math.cos(math.pi * step / steps)) + 0.005)


def stairs(step: int, samples: int, batch_size: int) -> float:
    """x 0.1 every 7 epochs (Li et al. 2022, section 3.2)."""
    epoch = (step - 1) * batch_size // samples
    return float(0.1 ** (epoch // 7))


def slot_generator(seed: int, step: int, slot: int) -> np.random.Generator:
    """The random numbers of one place in one batch, whichever process works on it."""
    return np.random.default_rng([seed, DRAWING, step, slot])


class Order:
    """Which sample comes when: all of them in random order, again and again. Keeps nothing but a cache."""

    def __init__(self, seed: int, samples: int):
        self.seed, self.samples = seed, samples
        self._epoch, self._permutation = -1, np.zeros(0, dtype=np.int64)

    def __call__(self, position: int) -> int:
        """The sample at a position counted over all steps from 0."""
        epoch, place = divmod(position, self.samples)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, ORDER, epoch])
            self._epoch, self._permutation = epoch, rng.permutation(self.samples)
        return int(self._permutation[place])


def split(pieces: Sequence[int], one_in: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Samples to train on and to hold back, by the piece that each comes from: one piece in so many."""
    held = np.array(pieces, dtype=np.int64) % one_in == one_in - 1
    return np.flatnonzero(~held), np.flatnonzero(held)


def batches(indices: Iterable[int], size: int) -> Iterator[list[int]]:
    """Consecutive indices, `size` at a time."""
    waiting: list[int] = []
    for index in indices:
        waiting.append(index)
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
