"""Several processes as one: sums over them, and batch norm over all their images.

`torchrun` starts the processes and says in the environment which is which. Each takes its share of every
batch; gradients are summed, so the result is that of one process up to rounding.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from pickeropt.errors import PickeroptError
from pickeropt.models.fitting import choose_device


@dataclass(frozen=True)
class World:
    """Which process this is, of how many."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
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
def join_world(device: str) -> Iterator[tuple[World, torch.device]]:
    """This process's place and device; a single one where torchrun did not start it.

    A process group that is there already is used and left. (Under torchrun one that has been destroyed
    cannot be made again for sure: the addresses of the first stay in the launcher's store.)
    Raises PickeroptError for a device that is not here.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if size < 2:
        yield World(), choose_device(device)
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
        yield World(rank, size), place
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
