"""Features of the finished backbone at the points of all views, on disk until the head is fitted to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from pickeropt.io.tables import write_bytes_atomically
from pickeropt.models.backbone import Backbone, inference_copy
from pickeropt.models.fitting import inference_dtype
from pickeropt.models.orientations import EIGHT, averaged_maps
from pickeropt.pretrain.distil import point_features
from pickeropt.pretrain.learner import THINNING
from pickeropt.pretrain.loop import Run
from pickeropt.pretrain.pretrain_config import OnProgress
from pickeropt.pretrain.training_views import View, ViewStore, missing

ORIENTATIONS = (EIGHT[0], EIGHT[5])
"""Each view is seen in these: the plain one, and one that is turned and mirrored."""

MOST_POINTS = 500_000
"""Of all views together; of more, each view keeps a random share. At 1152 features they are 1.2 GB."""


@dataclass(frozen=True)
class Points:
    """features : (n, d) float16; labels : (n,) int64 source classes"""

    features: Tensor
    labels: Tensor


def feature_path(folder: Path, index: int) -> Path:
    """The file of a view's features."""
    return folder / f"{index:06d}.safetensors"


def write_features(run: Run, store: ViewStore, folder: Path, on_progress: OnProgress) -> None:
    """Features of all views that have none on disk yet, shared among the processes."""
    files = [feature_path(folder, index) for index in range(len(store))]
    wanted = list(missing(files))
    run.world.wait()  # nobody writes before everybody has looked, and the last state of the training is safe
    dtype = inference_dtype(run.device) if run.config.mixed_precision else torch.float32
    network = inference_copy(run.learner.backbone, run.device, dtype)
    most = max(1, MOST_POINTS // (len(store) * len(ORIENTATIONS)))
    for number, place in enumerate(run.world.share(len(wanted))):
        index = wanted[place]
        view = store.load(index)
        rng = np.random.default_rng([run.config.seed, THINNING, index])
        rows = torch.from_numpy(np.sort(rng.permutation(len(view.labels))[:most]))
        features = torch.cat([_features(network, view, rows, way) for way in ORIENTATIONS]).half()
        labels = view.labels[rows].repeat(len(ORIENTATIONS))
        write_bytes_atomically(files[index], save({"features": features, "labels": labels}))
        on_progress("describing views", number * run.world.size + 1, len(wanted))
    run.world.wait()


def _features(network: Backbone, view: View, rows: Tensor, orientation: tuple[int, bool]) -> Tensor:
    """(m, d) float32 on the CPU, of these points of a view seen in one orientation."""
    parameter = next(network.parameters())
    pixels = view.pixels[None, None].to(device=parameter.device, dtype=parameter.dtype)
    points = view.points[rows].to(parameter.device)
    with torch.no_grad():
        maps = [m.float() for m in averaged_maps(network, pixels, (orientation,))]
        return point_features(maps, network.strides, points, view.diameter, view.centred).cpu()


def read_points(folder: Path, indices: Sequence[int]) -> Points:
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
    return Points(features, torch.cat(labels))
