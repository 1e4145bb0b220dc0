"""All that a run needs to go on, in one safetensors file, written whole or not at all.

What is random comes from the seed, the step and the place in the batch, so there is no generator to save.
"""

from pathlib import Path

import torch
from torch import Tensor

from pickeropt.pretrain.learner import Learner
from pickeropt.training_state import read_state, write_state

MOST_AVERAGED = 0.995
"""Share of the old average that is kept at a step, at most; less in the first ones."""

Averages = dict[str, Tensor]
"""A running average of each parameter."""


def start_averages(learner: Learner) -> Averages:
    """The weights as they are."""
    return {name: p.detach().clone() for name, p in learner.named_parameters()}


def update_averages(averages: Averages, learner: Learner, step: int) -> None:
    """After `step` steps, from 1, in place."""
    keep = min(MOST_AVERAGED, (step + 1) / (step + 10))
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            averages[name].lerp_(parameter, 1 - keep)


def save_state(
    path: Path, step: int, learner: Learner, averages: Averages, optimiser: torch.optim.Optimizer
) -> None:
    """Weights, averages and the optimiser's memory after `step` steps."""
    write_state(path, step, {"learner": learner.state_dict(), "averages": averages}, optimiser)


def load_state(path: Path, learner: Learner, averages: Averages, optimiser: torch.optim.Optimizer) -> int:
    """Fill what `save_state` wrote into fresh objects, in place; returns the step, 0 where no file is."""
    step, parts = read_state(path, optimiser)
    if step:
        learner.load_state_dict(parts["learner"])
        for name, value in parts["averages"].items():
            averages[name].copy_(value)
    return step
