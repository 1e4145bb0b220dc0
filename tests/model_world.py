"""A model's geometry, a pretraining's head and the files of both, made up: for the tests of every room."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pickeropt.models.backbone import Backbone
from pickeropt.models.classifier import PickClassifier, save_checkpoint
from pickeropt.models.head import ModelSpec
from pickeropt.models.source_head import SourceHead

SPEC = ModelSpec(
    backbone="resnet18",
    stages=("layer1", "layer2"),
    channels=(64, 128),
    view_diameters=(24.0, 16.0),
    windows=(0.5, 1.2, 2.7),
    orientations=4,
    dense=True,
    box_diameters=2.7,
    centred=True,
    normalise="micrograph",
    loss_weights=(1.0, 0.3),
    class_names=("particle", "ice", "carbon"),
)
"""Small, dense, of two views."""

PARENTS = ("particle", "particle", "background", "contaminant", "carbon", "carbon")
SOURCES = ("big", "small", "empty_ice", "crack", "bar", "film")


def source_spec(**changes: object) -> ModelSpec:
    """What a pretraining's head looks at: one view, one stage, one branch."""
    one = replace(SPEC, stages=("layer1",), channels=(64,), view_diameters=(24.0,), orientations=1)
    return replace(one, **{"class_names": SOURCES, "loss_weights": (1.0,), **changes})


def source_head(spec: ModelSpec | None = None, parents: tuple[str, ...] = PARENTS) -> SourceHead:
    """A head of random weights."""
    spec = spec or source_spec()
    random = torch.Generator().manual_seed(1)
    weight = torch.randn(len(parents), spec.layout.width, generator=random) / spec.layout.width**0.5
    return SourceHead(parents, weight, torch.randn(len(parents), generator=random), spec)


def source_tensors() -> dict[str, Tensor]:
    """The head in a file of pretrain: float16, of six source classes, neither mean nor scale trivial."""
    width = source_spec().layout.width
    random = torch.Generator().manual_seed(2)
    tensors = {
        "head.mean": torch.randn(width, generator=random),
        "head.scale": torch.rand(width, generator=random) + 0.5,
        "head.branches.0.linear.weight": torch.randn(len(PARENTS), width, generator=random) / 8,
        "head.branches.0.linear.bias": torch.randn(len(PARENTS), generator=random),
    }
    return {name: tensor.half() for name, tensor in tensors.items()}


def source_metadata(spec: ModelSpec | None = None) -> dict[str, object]:
    """What pretrain says of it in JSON, as far as anyone reads it."""
    return {"spec": asdict(spec or source_spec()), "parents": list(PARENTS)}


def write_source(path: Path, tensors: Mapping[str, Tensor], described: object) -> Path:
    """A file as pretrain writes it."""
    save_file(dict(tensors), str(path), {"pickeropt": json.dumps(described)})
    return path


def random_model(path: Path, spec: ModelSpec, diameter_angstrom: float) -> Path:
    """A model whose probabilities are far from even: its head is scaled up."""
    torch.manual_seed(0)
    classifier = PickClassifier(spec, Backbone(spec.backbone, spec.stages)).eval()
    with torch.no_grad():
        for branch in classifier.head.branches:
            branch.linear.weight.mul_(6)
    save_checkpoint(path, classifier, diameter_angstrom, {})
    return path
