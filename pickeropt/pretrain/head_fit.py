"""The source head, fitted to features of the finished backbone at the points of all views.

Linear on standardised features, by the cross-entropy of the parents and a little of the source classes',
with the ridge that does best on what is held back. Features stay on disk until the head is fitted.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor, nn

from pickeropt.files import write_bytes_atomically
from pickeropt.models.backbone import Backbone, inference_copy
from pickeropt.models.features import EIGHT, averaged_maps
from pickeropt.models.fitting import inference_dtype
from pickeropt.pretrain.learner import (
    FITTED,
    THINNING,
    LinearHead,
    PretrainFolder,
    open_tensorboard,
    report_row,
    write_log,
)
from pickeropt.pretrain.pretrain_recipes import DistilRecipe, point_features
from pickeropt.pretrain.training_loop import TrainingRun
from pickeropt.pretrain.training_set import Parents, even_weights
from pickeropt.pretrain.training_views import TrainingView, ViewStore, missing
from pickeropt.records import PARTICLE, OnProgress

ORIENTATIONS = (EIGHT[0], EIGHT[5])
"""Of each view: as it is, and turned and mirrored."""

MOST_POINTS = 500_000
"""Of all views together; of more, each view keeps a random share. At 1152 features they are 1.2 GB."""


@dataclass(frozen=True)
class PointFeatures:
    """features : (n, d) float16; labels : (n,) int64 source classes"""

    features: Tensor
    labels: Tensor


def feature_path(folder: Path, index: int) -> Path:
    """The file of a view's features."""
    return folder / f"{index:06d}.safetensors"


def write_features(run: TrainingRun, store: ViewStore, folder: Path, on_progress: OnProgress) -> None:
    """Features of all views that have none on disk yet, shared among the processes."""
    files = [feature_path(folder, index) for index in range(len(store))]
    wanted = list(missing(files))
    run.processes.wait()  # nobody writes before all have listed the files, and the last state of the training is safe
    dtype = inference_dtype(run.device) if run.config.mixed_precision else torch.float32
    network = inference_copy(run.learner.backbone, run.device, dtype)
    most = max(1, MOST_POINTS // (len(store) * len(ORIENTATIONS)))
    for number, place in enumerate(run.processes.share(len(wanted))):
        index = wanted[place]
        view = store.load(index)
        rng = np.random.default_rng([run.config.seed, THINNING, index])
        rows = torch.from_numpy(np.sort(rng.permutation(len(view.labels))[:most]))
        features = torch.cat([_features(network, view, rows, way) for way in ORIENTATIONS]).half()
        labels = view.labels[rows].repeat(len(ORIENTATIONS))
        write_bytes_atomically(files[index], save({"features": features, "labels": labels}))
        on_progress("describing views", number * run.processes.size + 1, len(wanted))
    run.processes.wait()


def _features(network: Backbone, view: TrainingView, rows: Tensor, orientation: tuple[int, bool]) -> Tensor:
    """(m, d) float32 on the CPU, of these points of a view in one orientation."""
    parameter = next(network.parameters())
    pixels = view.pixels[None, None].to(device=parameter.device, dtype=parameter.dtype)
    points = view.points[rows].to(parameter.device)
    with torch.no_grad():
        maps = [m.float() for m in averaged_maps(network, pixels, (orientation,))]
        return point_features(maps, network.strides, points, view.diameter, view.centred).cpu()


def read_points(folder: Path, indices: Sequence[int]) -> PointFeatures:
    """Those of some views, at least one, in one block."""
    files = [feature_path(folder, index) for index in indices]
    shapes = []
    for file in files:
        with safe_open(str(file), framework="pt") as opened:
            shapes.append(opened.get_slice("features").get_shape())
    features = torch.empty(sum(rows for rows, _ in shapes), shapes[0][1], dtype=torch.float16)
    labels, start = [], 0
    for file in files:
        tensors = load_file(str(file))
        stop = start + len(tensors["labels"])
        features[start:stop] = tensors["features"]
        labels.append(tensors["labels"])
        start = stop
    return PointFeatures(features, torch.cat(labels))


RIDGES = (1e-3, 3e-3, 1e-2, 3e-2)
"""Weights of |weights|²/2 beside the mean loss that are tried."""

UNTRIED_RIDGE = 1e-2
"""Where nothing is held back to choose by."""

SOURCE_WEIGHT = 0.03
"""Of the source classes' cross-entropy beside the parents'."""

FARTHEST = 1.5
"""Standardised features are clamped to this while the head is fitted, to limit outliers."""

BATCH = 2048
RATE = 3e-3
LEAST_SPREAD = 1e-4
"""A feature that varies less gets weight 0; its scale would not fit float16."""

CHUNK = 8192


def fit_source_head(
    run: TrainingRun, recipe: DistilRecipe, run_folder: PretrainFolder, on_progress: OnProgress
) -> None:
    """Fit the learner's head to the features of the training views, and amend the last row of the log.

    All processes describe the views; the first one fits, on the CPU, so that its learner is the one to keep.
    """
    write_features(run, recipe.labelled, run_folder.features, on_progress)
    if run.processes.first:
        training = read_points(run_folder.features, recipe.training.tolist())
        held = read_points(run_folder.features, recipe.held.tolist()) if len(recipe.held) else None
        figures = _choose(run, training, held, recipe.parents, on_progress)
        last = run.rows.pop() if run.rows else {"step": recipe.steps}  # someone may have removed the log
        run.rows.append({**last, **figures})
        write_log(run_folder, run.rows)
        folder = run_folder.tensorboard if run.config.tensorboard else None
        with open_tensorboard(folder, recipe.steps) as tensorboard:
            report_row(tensorboard, {"step": recipe.steps, **figures})
    run.processes.wait()


def _choose(
    run: TrainingRun, training: PointFeatures, held: PointFeatures | None, parents: Parents, on_progress: OnProgress
) -> dict[str, float]:
    """Give the learner the head with the ridge that does best on what is held back; `FITTED` of it."""
    ridges = RIDGES if held is not None and len(held.labels) else (UNTRIED_RIDGE,)
    mean, scale = standardisation(training.features)
    best: tuple[float, LinearHead, dict[str, float]] | None = None
    for number, ridge in enumerate(ridges):
        head = deepcopy(run.learner.head).cpu()
        head.mean.copy_(mean)
        head.scale.copy_(scale)
        fit_linear(head, training, parents, ridge, run.config.head_steps, run.config.seed)
        head.half().float()  # as it is kept
        found = held_back_figures(head, held, parents) if held is not None and len(held.labels) else {}
        merit = sum(found.values())
        if best is None or merit > best[0]:
            best = merit, head, {FITTED[0]: ridge, **found}
        on_progress("fitting the head", number + 1, len(ridges))
    assert best is not None
    run.learner.head = best[1].to(run.device)
    return best[2]


def standardisation(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and what makes the spread 1, of features (n, d); 0 for one that does not vary."""
    mean = torch.stack([part.double().sum(0) for part in torch.split(features, CHUNK)]).sum(0) / len(features)
    squares = [(part.double() - mean).square().sum(0) for part in torch.split(features, CHUNK)]
    spread = (torch.stack(squares).sum(0) / len(features)).sqrt()
    scale = torch.where(spread > LEAST_SPREAD, 1 / spread.clamp(min=LEAST_SPREAD), 0.0)
    return mean.float(), scale.float()


def fit_linear(head: LinearHead, points: PointFeatures, parents: Parents, ridge: float, steps: int, seed: int) -> None:
    """Fit the linear layer of a standardised head on the CPU, in place, from zero, by AdamW on batches.

    Parents count the same. The same arguments give the same weights.
    """
    kinds = parents.labels(points.labels)
    weights = even_weights(kinds, 1)
    nn.init.zeros_(head.linear.weight)
    nn.init.zeros_(head.linear.bias)
    optimiser = torch.optim.AdamW(head.linear.parameters(), lr=RATE, weight_decay=0)
    generator = torch.Generator().manual_seed(seed)
    count = len(points.labels)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = RATE * (1 - step / steps) + 1e-5
        rows = torch.randint(count, (min(BATCH, count),), generator=generator)
        standardised = (points.features[rows].float() - head.mean) * head.scale
        logits = head.linear(standardised.clamp(-FARTHEST, FARTHEST))
        share = weights[rows] / weights[rows].sum()
        classes, by_parent = parents.losses(logits, points.labels[rows], share)
        loss = by_parent + SOURCE_WEIGHT * classes + ridge / 2 * head.linear.weight.square().sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def held_back_figures(head: LinearHead, points: PointFeatures, parents: Parents) -> dict[str, float]:
    """Macro-F1 of the parents that occur, AUC of particle against rest where both do; nothing is clamped.

    The AUC is of the log odds of particle.
    """
    with torch.no_grad():
        logits = torch.cat([parents.logits(head(part.float())) for part in torch.split(points.features, CHUNK)])
    kinds = parents.labels(points.labels).numpy()
    figures = {FITTED[1]: float(f1_score(kinds, logits.argmax(1).numpy(), average="macro"))}
    if PARTICLE in parents.names and len(parents.names) > 1:
        which = parents.names.index(PARTICLE)
        others = [column for column in range(len(parents.names)) if column != which]
        odds = (logits[:, which] - torch.logsumexp(logits[:, others], 1)).numpy()
        if 0 < np.count_nonzero(kinds == which) < len(kinds):
            figures[FITTED[2]] = float(roc_auc_score(kinds == which, odds))
    return figures
