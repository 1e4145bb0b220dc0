"""All that a run needs to go on, in one safetensors file, written whole or not at all.

What is random comes from the seed, the step and the place in the batch, so there is no generator to save.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from pickeropt.io.tables import write_bytes_atomically
from pickeropt.pretrain.learner import Learner

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
    tensors = {f"learner.{name}": value for name, value in learner.state_dict().items()}
    tensors |= {f"averages.{name}": value for name, value in averages.items()}
    for index, memory in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": v for name, v in memory.items() if isinstance(v, Tensor)}
    content = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_bytes_atomically(path, save(content, {"step": str(step)}))


def load_state(path: Path, learner: Learner, averages: Averages, optimiser: torch.optim.Optimizer) -> int:
    """Fill what `save_state` wrote into fresh objects, in place; returns the step, 0 where no file is."""
    if not path.is_file():
        return 0
    with safe_open(str(path), framework="pt") as file:
        step = int(file.metadata()["step"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    learner.load_state_dict(_part(tensors, "learner"))
    for name, value in _part(tensors, "averages").items():
        averages[name].copy_(value)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for key, value in _part(tensors, "optimiser").items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        # laid out as the parameter is, or the next step would round otherwise
        same_layout = value.shape == parameter.shape
        optimiser.state[parameter][name] = torch.empty_like(parameter).copy_(value) if same_layout else value
    return step


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(f"{prefix}."): v for n, v in tensors.items() if n.startswith(f"{prefix}.")}
