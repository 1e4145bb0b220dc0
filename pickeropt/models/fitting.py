"""Seeds, devices, precision and fitting: knows no cryo-EM."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor, nn

from pickeropt.errors import PickeroptError
from pickeropt.files import write_bytes_atomically
from pickeropt.models.head import BranchedHead, multi_loss

OPTIMISER = "optimiser"


def write_state(
    path: Path, step: int, parts: Mapping[str, Mapping[str, Tensor]], optimiser: torch.optim.Optimizer
) -> None:
    """Named sets of tensors and the optimiser's memory after `step` steps."""
    tensors = {f"{part}.{name}": value for part, those in parts.items() for name, value in those.items()}
    for index, memory in optimiser.state_dict()["state"].items():
        tensors |= {f"{OPTIMISER}.{index}.{name}": v for name, v in memory.items() if isinstance(v, Tensor)}
    content = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_bytes_atomically(path, save(content, {"step": str(step)}))


def read_state(path: Path, optimiser: torch.optim.Optimizer) -> tuple[int, dict[str, dict[str, Tensor]]]:
    """The step and the sets of tensors that `write_state` wrote, (0, {}) where no file is.

    optimiser : fresh, of the same parameters; its memory is filled in place
    """
    if not path.is_file():
        return 0, {}
    parts: dict[str, dict[str, Tensor]] = {}
    with safe_open(str(path), framework="pt") as file:
        step = int(file.metadata()["step"])
        for key in file.keys():  # noqa: SIM118
            part, _, name = key.partition(".")
            parts.setdefault(part, {})[name] = file.get_tensor(key)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for key, value in parts.pop(OPTIMISER, {}).items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        # laid out as the parameter is, or the next step would round otherwise
        same_layout = value.shape == parameter.shape
        optimiser.state[parameter][name] = torch.empty_like(parameter).copy_(value) if same_layout else value
    return step, parts


BFLOAT16_CAPABILITY = (8, 0)
"""Of the first GPUs with instructions for bfloat16, NVIDIA's Ampere."""


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (libraries that still draw from the global one)
    torch.manual_seed(seed)


def choose_device(name: str) -> torch.device:
    """``auto`` is the first GPU where there is one, else the CPU.

    Raises PickeroptError for a device that is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise PickeroptError(f"--device {name}: no such device; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise PickeroptError(f"--device {name}: torch sees {torch.cuda.device_count()} GPUs; use --device auto or cpu")
    if device.type not in ("cpu", "cuda"):
        raise PickeroptError(f"--device {name}: only cpu and cuda are supported; use --device auto")
    return device


def inference_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs and on CPUs with the instructions for it (twice as fast), float32 elsewhere.

    `torch.cuda.is_bf16_supported` says yes of older GPUs too, which emulate it and are slower with it.
    """
    if device.type == "cuda":
        recent = torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY
        return torch.bfloat16 if recent else torch.float32
    capable = _has_bf16_instructions() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if capable else torch.float32


def _has_bf16_instructions() -> bool:
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def rooted_weights(labels: Tensor, classes: int) -> Tensor:
    """(k,) what a shot of each class counts for: one over the root of their number; 0 for a class without.

    Four shots beside thirty of each other class count for less than those, but for more than their number.
    """
    counts = torch.bincount(labels, minlength=classes).float()
    return torch.where(counts > 0, counts.clamp(min=1).rsqrt(), torch.zeros_like(counts))


def shares_of_classes(labels: Tensor, weights: Tensor) -> Tensor:
    """(k,) share that each class has of the weighted shots; of a class without shots that of the least."""
    totals = torch.bincount(labels, minlength=len(weights)).float() * weights
    totals = totals.clamp(min=float(totals[totals > 0].min()))
    return totals / totals.sum()


def fit_head(
    head: BranchedHead,
    features: Tensor,
    labels: Tensor,
    loss_weights: Sequence[float],
    decay: float,
    prior: Tensor | None = None,
) -> None:
    """Fit the branches to fixed features: multi-loss plus decay/2 |weights|², by L-BFGS on all shots at once.

    features : (n, d); labels : (n,) int; prior : (n, k) logits that every branch starts from
    Shots count by `rooted_weights`, also in the mean and spread that standardise the features. The logits are
    those of classes that are equally likely, whatever their numbers: the log of what each class counts for is
    added to them while they are fitted.
    The same input gives the same weights, whatever the machine's
    number of threads up to rounding. Biases are not decayed.
    """
    class_weights = rooted_weights(labels, _classes(head))
    head.standardise(features, class_weights[labels])
    before = shares_of_classes(labels, class_weights).log()
    if prior is not None:
        before = before + prior
    weights = [p for name, p in head.named_parameters() if name.endswith("weight")]
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = multi_loss([z + before for z in head(features)], labels, loss_weights, class_weights)
        loss = loss + decay / 2 * torch.stack([w.square().sum() for w in weights]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]


def _classes(head: BranchedHead) -> int:
    branch = head.branches[0]
    classes: int = branch.linear.out_features  # type: ignore[union-attr, assignment]
    return classes


@dataclass(frozen=True)
class SgdSchedule:
    """Stochastic gradient descent, the learning rate x `factor` every `step` epochs.

    The defaults are those of the paper's fine-tuning (section 3.2).
    """

    epochs: int = 30
    batch_size: int = 24
    learning_rate: float = 0.01
    momentum: float = 0.9
    step: int = 7
    factor: float = 0.1


def train_sgd(
    model: nn.Module,
    loss_of: Callable[[NDArray[np.int64]], Tensor],
    count: int,
    schedule: SgdSchedule,
    seed: int,
    on_epoch: Callable[[int, float], None],
) -> None:
    """Train `model` in place.

    loss_of : from the indices of a batch, of `count` samples, to its loss
    on_epoch : called with the epoch (from 1) and its mean loss
    """
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=schedule.learning_rate, momentum=schedule.momentum)
    decline = torch.optim.lr_scheduler.StepLR(optimiser, schedule.step, schedule.factor)
    for epoch in range(1, schedule.epochs + 1):
        order = rng.permutation(count)
        losses = []
        for start in range(0, count, schedule.batch_size):
            loss = loss_of(order[start : start + schedule.batch_size])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(loss.item())
        decline.step()
        on_epoch(epoch, float(np.mean(losses)))


@dataclass(frozen=True)
class Quality:
    """Accuracy, macro-F1 over the classes that occur, and F1 of each class by its index."""

    accuracy: float
    macro_f1: float
    per_class: dict[int, float]


def quality(labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> Quality:
    """What predictions (n,) are worth against labels (n,), n > 0."""
    present = sorted(set(labels.tolist()))
    each = f1_score(labels, predicted, labels=present, average=None, zero_division=0)
    return Quality(
        float(accuracy_score(labels, predicted)),
        float(np.mean(each)),
        dict(zip(present, map(float, each), strict=True)),
    )


def fit_temperature(probability: Callable[[float], Tensor], positive: Tensor) -> float:
    """The temperature at which held-out shots are likeliest (Guo et al. 2017).

    A handful of shots all told right does not make a classifier certain: as in Platt's scaling (2000),
    n positives count as (n + 1) / (n + 2) positive, negatives likewise.

    probability : from a temperature to P(positive), (n,)
    positive : (n,) bool; positives and negatives count the same
    returns : between 1/8 and 2, in steps of a twelfth of an octave; 1 where one side has no shot
    """
    if positive.all() or not positive.any():
        return 1.0

    def loss(temperature: float) -> float:
        p = probability(temperature).clamp(1e-6, 1 - 1e-6)
        return _smoothed_loss(p[positive]) + _smoothed_loss(1 - p[~positive])

    return min((2 ** (step / 12) for step in range(-36, 13)), key=loss)


def _smoothed_loss(right: Tensor) -> float:
    """Mean cross-entropy of P(right), (n,), against targets of (n + 1) / (n + 2)."""
    target = (len(right) + 1) / (len(right) + 2)
    return -float(target * right.log().mean() + (1 - target) * (1 - right).log().mean())
