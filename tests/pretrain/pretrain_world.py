"""Tiny data sets and weights for the tests of pretrain: two kinds of discs, stripes and empty noise."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from pickeropt.io.labels import LabelRows, labels_content
from pickeropt.io.micrographs import read_micrograph, write_mrc
from pickeropt.models.backbone import Backbone
from pickeropt.models.features import describe_micrograph
from pickeropt.models.head import ModelSpec
from pickeropt.pretrain.pretrain_config import PretrainConfig
from pickeropt.pretrain.training_set import read_data_set
from pickeropt.records import DEFAULT_CLASSES

CLASSES = {"big": "particle", "small": "particle", "empty_ice": "background", "stripes": "carbon"}
SIDE, PIXEL_SIZE, DIAMETER = 112, 4.0, 64.0  # px, Å/px, Å: 16 px


def patch(name: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """(size, size) float32 of what is at a point, on noise."""
    rows, columns = np.mgrid[:size, :size] - size // 2
    shapes = {
        "big": np.hypot(rows, columns) < 8,
        "small": np.hypot(rows, columns) < 4,
        "empty_ice": rows * 0,
        "stripes": columns % 6 < 3,
    }
    return (rng.standard_normal((size, size)) - 2.0 * shapes[name]).astype(np.float32)


def make_micrographs(folder: Path, count: int = 4) -> Path:
    """A simulated data set; micrograph i has discs of kind i % 2, and stripes where i % 4 > 1."""
    rng = np.random.default_rng(0)
    names, points, sources = [], [], []
    for number in range(count):
        pixels = rng.standard_normal((SIDE, SIDE)).astype(np.float32)
        kinds = [("big", "small")[number % 2]] * 2 + ["empty_ice", "stripes"][: 1 + (number % 4 > 1)]
        for place, kind in enumerate(kinds):
            y, x = 28 + 56 * (place // 2), 28 + 56 * (place % 2)
            pixels[y - 12 : y + 12, x - 12 : x + 12] = patch(kind, 24, rng)
            names.append(f"micrographs/m{number}.mrc")
            points.append((x, y))
            sources.append(kind)
        write_mrc(folder / f"micrographs/m{number}.mrc", pixels, PIXEL_SIZE)
    rows = LabelRows(
        tuple(names),
        np.array(points, dtype=np.float64),
        tuple(CLASSES[kind] for kind in sources),
        tuple(sources),
        np.full(len(names), DIAMETER),
    )
    (folder / "truth.star").write_bytes(labels_content(folder / "truth.star", rows))
    return folder


def make_folders(folder: Path, count: int = 6, micrographs: bool = True) -> Path:
    """Class folders of boxes of 24 px, 1.5 diameters; box i of each class from micrograph i."""
    rng = np.random.default_rng(1)
    classes = {}
    for name, parent in CLASSES.items():
        boxes = np.stack([patch(name, 24, rng) for _ in range(count)])
        write_mrc(folder / f"{name}.mrcs", boxes, PIXEL_SIZE)
        entry = "EMPIAR-1" if name in ("big", "stripes") else name
        classes[name] = {"count": count, "class": parent, "entry": entry}
        if micrographs:
            classes[name]["micrographs"] = [f"{entry}-{i}.mrc" for i in range(count)]
    described = {"format": "pickeropt class folders 1", "classes": classes, "box_diameters": 1.5}
    if micrographs:
        described["grey"] = "units of the micrograph's noise from its median"
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def make_weights(path: Path) -> Path:
    """What stands for the ImageNet weights: random, up to layer3."""
    torch.manual_seed(1)
    backbone = Backbone("resnet18", ("layer3",))
    save_file({n: v.contiguous() for n, v in backbone.body.state_dict().items()}, str(path))
    return path


def tiny(weights: Path, recipe: str = "default", **changes: object) -> PretrainConfig:
    """A few steps on small views."""
    config = PretrainConfig(
        recipe=recipe,
        weights=weights,
        device="cpu",
        steps=8,
        batch_size=3 if recipe == "default" else 6,
        learning_rate=0.02 if recipe == "default" else 0.1,
        view_px=65,
        view_diameters=(14.0, 20.0),
        box_px=33,
        head_steps=20,
        held_back=4,
        log_every=2,
        save_every=4,
        validate_every=4,
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def of_points(folder: Path, backbone: Backbone, spec: ModelSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of all points of the first three micrographs, seen at 17 px, and the number of each class."""
    spec = replace(spec, view_diameters=(17.0,))
    data = read_data_set(folder, ())
    parents = torch.tensor([DEFAULT_CLASSES.index(parent) for parent in data.classes.parents])
    features, labels = [], []
    for m in data.micrographs[:3]:
        pixels = read_micrograph(m.path).pixels
        features.append(describe_micrograph(backbone, spec, pixels, m.diameter_px, m.coordinates))
        labels.append(parents[torch.from_numpy(m.labels)])
    return torch.cat(features), torch.cat(labels)
