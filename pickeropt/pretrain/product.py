"""The file that a pretraining leaves: a backbone, and the head that tells the source classes.

float16 safetensors. The backbone has timm's names, so `--init PATH` takes the file as it is. The head has
the names of `models.head.BranchedHead` with one branch and ``head.`` before them. The metadata's
``pickeropt`` is JSON:

    backbone, stages    of the whole network
    spec                `ModelSpec` fields of the head, to make a `PickClassifier` of the source classes
    parents             particle, background, contaminant or carbon: the parent of each of `spec.class_names`
    provenance          recipe, data, seed, steps, figures, versions
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from pickeropt import __version__
from pickeropt.models.classifier import with_sorted_metadata
from pickeropt.models.spec import ModelSpec
from pickeropt.pretrain.distil import WINDOWS
from pickeropt.pretrain.learner import Learner, LinearHead
from pickeropt.pretrain.pretrain_config import PretrainConfig
from pickeropt.pretrain.training_set import DataSet

FORMAT = "pickeropt backbone 1"
VIEW_DIAMETER = 62.0
"""Px; where the default recipe of finetune looks, within the range that is trained on."""


def head_spec(learner: Learner, data: DataSet, config: PretrainConfig) -> ModelSpec:
    """What the head looks at: pooled windows of all stages, or the last over a whole box as in the paper."""
    paper = config.recipe == "paper"
    dense = not data.boxes
    return ModelSpec(
        backbone=learner.backbone.name,
        stages=learner.backbone.stages[-1:] if paper else learner.backbone.stages,
        channels=learner.backbone.channels[-1:] if paper else learner.backbone.channels,
        view_diameters=(config.box_px / data.box_diameters if paper else VIEW_DIAMETER,),
        windows=() if paper else WINDOWS,
        orientations=1,
        dense=dense,
        box_diameters=max(WINDOWS) if dense else data.box_diameters,
        centred=dense,
        normalise="micrograph" if data.by_micrograph else "box",
        loss_weights=(1.0,),
        class_names=data.classes.names,
    )


def provenance(
    data: DataSet, config: PretrainConfig, steps: int, figures: Mapping[str, float]
) -> dict[str, Any]:
    """How the file was made; no path, no time, so that the same run gives the same bytes."""
    packages = ("torch", "timm", "numpy")
    return {
        "recipe": config.recipe,
        "init": config.init if config.init in ("imagenet", "none", "shipped") else Path(config.init).name,
        "data": data.path.resolve().name,
        "data_sha256": data.fingerprint,
        "exclude": sorted(config.exclude),
        "ignore": sorted(config.ignore),
        "steps": steps,
        "batch_size": config.schedule.batch_size,
        "learning_rate": config.schedule.learning_rate,
        "distil_first": config.distil_first,
        "class_weight": config.class_weight,
        "parent_weight": config.parent_weight,
        "unlabelled": config.unlabelled is not None,
        "seed": config.seed,
        "figures": {name: float(f"{value:.6g}") for name, value in sorted(figures.items())},
        "versions": {"pickeropt": __version__, **{name: version(name) for name in packages}},
    }


def product_bytes(
    learner: Learner, spec: ModelSpec, parents: tuple[str, ...], made: Mapping[str, Any]
) -> bytes:
    """The file."""
    described = {
        "backbone": learner.backbone.name,
        "stages": learner.backbone.stages,
        "spec": asdict(spec),
        "parents": parents,
        "provenance": made,
    }
    state: dict[str, Tensor] = dict(learner.backbone.body.state_dict())
    state |= _named(learner.head)
    half = {n: v.detach().half().cpu().contiguous() for n, v in state.items() if v.is_floating_point()}
    metadata = {"format": FORMAT, "pickeropt": json.dumps(described, sort_keys=True)}
    return with_sorted_metadata(save(half, metadata))


def _named(head: LinearHead) -> dict[str, Tensor]:
    """Its tensors by their names in the file."""
    linear = {f"head.branches.0.linear.{name}": value for name, value in head.linear.state_dict().items()}
    return {"head.mean": head.mean, "head.scale": head.scale, **linear}
