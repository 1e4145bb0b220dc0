"""Train a backbone to see in one pass what its teacher sees in eight, and to tell the source classes apart.

The teacher's maps are averaged over the eight orientations of a view; the student is to give that average in
any one orientation. Few shots need features that do not turn with the particle, and without this
those cost eight passes. Beside it a linear head tells the source classes (species, contaminants,
carbons) from pooled windows, by cross-entropy, the paper's pretraining task (Li et al. 2022, section 2.1).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pickeropt.models.backbone import Backbone, inference_copy
from pickeropt.models.orientations import EIGHT, averaged_maps, turn, turn_back
from pickeropt.models.pooling import integral_image, window_means
from pickeropt.pretrain.config import PretrainConfig
from pickeropt.pretrain.material import View
from pickeropt.training import inference_dtype

WINDOWS = (0.5, 1.2, 2.4)
"""Sides of the pooled windows in particle diameters."""

OnStep = Callable[[int, float, float], None]
"""Called with the step, the rotation loss and the class loss."""


def teach(teacher: Backbone, views: Sequence[View], device: torch.device) -> None:
    """Fill in each view's target maps, in place."""
    dtype = inference_dtype(device)
    network = inference_copy(teacher, device, dtype)
    for view in views:
        image = view.pixels[None, None].to(device=device, dtype=dtype)
        with torch.inference_mode():
            maps = averaged_maps(network, image, EIGHT)
        view.maps = tuple(m.half().cpu().clone() for m in maps)


def distil(
    student: Backbone, views: Sequence[View], config: PretrainConfig, device: torch.device, on_step: OnStep
) -> None:
    """Train `student` in place, in evaluation mode: batch norms keep their statistics."""
    rng = np.random.default_rng(config.seed)
    names = sorted({name for view in views for name in view.source_classes})
    student.eval().to(device).to(memory_format=torch.channels_last)
    torch.manual_seed(config.seed)
    head = nn.Linear(student.channels[-1] * len(WINDOWS), len(names)).to(device)
    spreads = _spreads(views)
    rates = (config.learning_rate, config.head_learning_rate)
    groups = [{"params": m.parameters(), "lr": r} for m, r in zip((student, head), rates, strict=True)]
    optimiser = torch.optim.AdamW(groups, weight_decay=1e-4)
    decline = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config.steps))
    for step in range(1, config.steps + 1):
        optimiser.zero_grad()
        rotation, classes = 0.0, 0.0
        for _ in range(config.batch):
            view, orientation = views[int(rng.integers(len(views)))], EIGHT[int(rng.integers(len(EIGHT)))]
            image = turn(view.pixels.float(), orientation) * math.exp(rng.normal(0, 0.1)) + rng.normal(
                0, 0.05
            )
            maps = _student_maps(student, image.to(device))
            turned = rotation_loss(maps, [turn(m.float(), orientation) for m in view.maps], spreads)
            back = turn_back(maps[-1], orientation)
            named = class_loss(head, back, view, names, student.strides[-1])
            ((turned + config.class_weight * named) / config.batch).backward()  # type: ignore[no-untyped-call]
            rotation, classes = rotation + turned.item() / config.batch, classes + named.item() / config.batch
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        decline.step()
        on_step(step, rotation, classes)


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 50) * (0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)


def _student_maps(student: Backbone, image: Tensor) -> list[Tensor]:
    batch = image[None, None].contiguous(memory_format=torch.channels_last)
    with torch.autocast(
        image.device.type, torch.bfloat16, enabled=inference_dtype(image.device) == torch.bfloat16
    ):
        maps = student(batch)
    return [m[0].float() for m in maps]


def _spreads(views: Sequence[View]) -> list[Tensor]:
    """For each stage the variance of each target channel, (c, 1, 1): every channel counts the same."""
    some = views[:80]
    return [
        torch.stack([view.maps[s].float().var((1, 2)) for view in some])
        .mean(0)
        .clamp(min=1e-4)[:, None, None]
        for s in range(len(some[0].maps))
    ]


def rotation_loss(maps: Sequence[Tensor], targets: Sequence[Tensor], spreads: Sequence[Tensor]) -> Tensor:
    """Mean squared distance to the targets in units of each channel's variance, averaged over stages."""
    terms = [
        ((m - t.to(m.device)).square() / s.to(m.device)).mean()
        for m, t, s in zip(maps, targets, spreads, strict=True)
    ]
    return torch.stack(terms).mean()


def class_loss(head: nn.Linear, feature_map: Tensor, view: View, names: Sequence[str], stride: int) -> Tensor:
    """Cross-entropy of the source class at each labelled point; 0 where the view has none."""
    if not view.source_classes:
        return torch.zeros((), device=feature_map.device)
    table = integral_image(feature_map)
    centres = view.points.to(feature_map.device) / stride
    pooled = [window_means(table, centres, window * view.diameter / stride) for window in WINDOWS]
    labels = torch.tensor([names.index(name) for name in view.source_classes], device=feature_map.device)
    return functional.cross_entropy(head(torch.cat(pooled, 1)), labels)
