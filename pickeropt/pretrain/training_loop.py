"""The training loop, the same for all recipes: batches shared by processes, averages, log, saved state.

`torchrun` starts the processes and sets their rank in the environment. Each takes its share of every batch;
gradients are summed, so the result is that of one process up to rounding. Random numbers depend on the seed,
the step and the slot in the batch only, so no generator is saved. The state is one safetensors file, written
whole or not at all.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from pickeropt.errors import PickeroptError
from pickeropt.models.fitting import choose_device, read_state, write_state
from pickeropt.pretrain.learner import (
    MEASURED,
    TERMS,
    Learner,
    PretrainFolder,
    Recipe,
    Row,
    RunLog,
    open_tensorboard,
    report_row,
)
from pickeropt.pretrain.pretrain_config import OnProgress, PretrainConfig

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


def save_state(path: Path, step: int, learner: Learner, averages: Averages, optimiser: torch.optim.Optimizer) -> None:
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


@dataclass(frozen=True)
class ProcessGroup:
    """Which process this is, of how many."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports progress."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """This process's part of `count` things."""
        return range(self.rank, count, self.size)

    def add(self, values: Tensor) -> None:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            distributed.all_reduce(values)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum gradients over all processes; a parameter without one has zero, however many there are."""
        mine = list(parameters)
        for parameter in mine:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.size == 1:
            return
        gradients = [p.grad for p in mine if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))


@contextmanager
def join_process_group(device: str) -> Iterator[tuple[ProcessGroup, torch.device]]:
    """This process's place and device; a single one where torchrun did not start it.

    A process group that is there already is used and left. (Under torchrun one that has been destroyed
    cannot be made again for sure: the addresses of the first stay in the launcher's store.)
    Raises PickeroptError for a device that is not here.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if size < 2:
        yield ProcessGroup(), choose_device(device)
        return
    local = int(os.environ.get("LOCAL_RANK", rank))
    place = choose_device("auto" if device == "cuda" else device)
    if str(place) == "cuda":
        if local >= torch.cuda.device_count():
            there = f"{torch.cuda.device_count()} GPUs are here for process {local + 1}"
            raise PickeroptError(f"--device {device}: {there}; start fewer processes, or use --device cpu")
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    joined = distributed.is_initialized()
    if not joined:
        distributed.init_process_group("nccl" if place.type == "cuda" else "gloo", rank=rank, world_size=size)
    try:
        yield ProcessGroup(rank, size), place
    finally:
        if not joined:
            distributed.destroy_process_group()


class _Sum(torch.autograd.Function):
    """Sum over all processes that gradients flow through."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics are those of all processes' images together; on CPUs too."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        values = x.float()
        count = torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
        distributed.all_reduce(count)
        mean = _sum(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _sum(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total


def share_batch_norm(module: nn.Module) -> None:
    """Replace each batch norm in a module, in place; same weights and statistics."""
    for name, child in list(module.named_children()):
        if type(child) is nn.BatchNorm2d:
            shared = SharedBatchNorm(child.num_features, child.eps, child.momentum)
            shared.load_state_dict(child.state_dict())
            setattr(module, name, shared.train(child.training))
        else:
            share_batch_norm(child)


@dataclass
class TrainingRun:
    """A training: what it starts from, and once it is over what came of it.

    learner : trained in place; in the end it has the weights that are kept
    resumed_at : the step it took over from; rows : of the log, of the first process
    """

    learner: Learner
    recipe: Recipe
    config: PretrainConfig
    processes: ProcessGroup
    device: torch.device
    resumed_at: int = 0
    rows: list[Row] = field(default_factory=list)

    @property
    def figures(self) -> dict[str, float]:
        """The last row, less what differs from one machine to another."""
        last = self.rows[-1] if self.rows else {}
        return {name: value for name, value in last.items() if name not in ("step", "images_per_second")}


def train(run: TrainingRun, run_folder: PretrainFolder, on_progress: OnProgress) -> None:
    """All steps from the last saved one on, in place."""
    optimiser = run.recipe.optimiser(run.learner)
    highest = [group["lr"] for group in optimiser.param_groups]
    averages = start_averages(run.learner)
    run.resumed_at = load_state(run_folder.state, run.learner, averages, optimiser)
    log = RunLog(run_folder, run.resumed_at) if run.processes.first else None
    folder = run_folder.tensorboard if run.config.tensorboard and run.processes.first else None
    begun, sums = time.perf_counter(), torch.zeros(len(TERMS), device=run.device)
    with open_tensorboard(folder, run.resumed_at) as tensorboard:
        for step in range(run.resumed_at + 1, run.recipe.steps + 1):
            for group, rate in zip(optimiser.param_groups, highest, strict=True):
                group["lr"] = rate * run.recipe.rate(step)
            sums += _step(run, optimiser, step)
            if run.recipe.averaged:
                update_averages(averages, run.learner, step)
            on_progress("training", step, run.recipe.steps)
            if step % run.config.log_every and step < run.recipe.steps:
                continue
            run.processes.add(sums)
            row = _means(run, sums, step) | {"step": step, "learning_rate": optimiser.param_groups[0]["lr"]}
            row["images_per_second"] = float(sums[TERMS.index("samples")]) / (time.perf_counter() - begun)
            if step % run.config.validate_every == 0 or step == run.recipe.steps:
                row |= _measure(run, averages, step)
            if log is not None:
                log.add(row)
                report_row(tensorboard, row)
                if step % run.config.save_every == 0 or step == run.recipe.steps:
                    save_state(run_folder.state, step, run.learner, averages, optimiser)
            sums.zero_()
            begun = time.perf_counter()
    run.learner = _kept(run, averages)
    run.rows = log.rows if log is not None else []


def _step(run: TrainingRun, optimiser: torch.optim.Optimizer, step: int) -> Tensor:
    """One step of all processes; the terms of this one's share."""
    optimiser.zero_grad()
    terms = run.recipe.backward(run.learner, step, run.processes.share(run.config.schedule.batch_size))
    run.processes.add_gradients(run.learner.parameters())
    run.recipe.limit(run.learner)
    optimiser.step()
    return terms


def _measure(run: TrainingRun, averages: Averages, step: int) -> dict[str, float]:
    """Means over what is held back, by their column in the log."""
    if not run.recipe.held_back:
        return {}
    sums = run.recipe.measure(_kept(run, averages), run.processes.share(run.recipe.held_back))
    run.processes.add(sums)
    means = _means(run, sums, step)
    return {f"held_back_{name}": means[name] for name in run.recipe.measured if name in means}


def _kept(run: TrainingRun, averages: Averages) -> Learner:
    """The learner with the weights that are kept."""
    if not run.recipe.averaged:
        return run.learner
    kept = deepcopy(run.learner)
    with torch.no_grad():
        for name, parameter in kept.named_parameters():
            parameter.copy_(averages[name])
    return kept


def _means(run: TrainingRun, sums: Tensor, step: int) -> dict[str, float]:
    """Losses and accuracy of summed terms, by their column in the log, the loss as weighted at `step`."""
    total = dict(zip(TERMS, sums.tolist(), strict=True))
    weights = dict(zip(MEASURED, (1.0, *run.recipe.weights(step)), strict=False))
    means = {"loss": sum(weight * total[name] for name, weight in weights.items()) / total["samples"]}
    for name in run.recipe.measured:
        count = total["samples" if name == "rotation" else "labelled"]
        means |= {name: total[name] / count} if count else {}
    return means
