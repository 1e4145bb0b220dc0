"""A pretraining from data set to weights: backbone and source head, saved in one file.

float16 safetensors. The backbone has timm's names, so `--init PATH` takes the file as it is. The head has
the names of `models.head.BranchedHead` with one branch and ``head.`` before them. The metadata's
``pickeropt`` is JSON:

    backbone, stages    of the whole network
    spec                `ModelSpec` fields of the head, to make a `PickClassifier` of the source classes
    parents             particle, background, contaminant or carbon: the parent of each of `spec.class_names`
    provenance          recipe, data, seed, steps, figures, versions
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from pickeropt import __version__
from pickeropt.errors import CheckpointError, PickeroptError
from pickeropt.models.backbone import Backbone, inference_copy, initial_backbone
from pickeropt.models.classifier import with_sorted_metadata
from pickeropt.models.features import EIGHT, averaged_maps
from pickeropt.models.fitting import inference_dtype, seed_everything
from pickeropt.models.head import FeatureLayout, ModelSpec
from pickeropt.pretrain.head_fit import fit_source_head
from pickeropt.pretrain.learner import (
    CUTTING,
    Learner,
    LinearHead,
    PretrainFolder,
    Recipe,
    check_tensorboard,
    curves_png,
    run_settings,
)
from pickeropt.pretrain.pretrain_config import PretrainConfig, PretrainReport, check_config
from pickeropt.pretrain.pretrain_recipes import STAGES, WINDOWS, DistilRecipe, PaperRecipe
from pickeropt.pretrain.training_loop import ProcessGroup, TrainingRun, join_process_group, share_batch_norm, train
from pickeropt.pretrain.training_set import DataSet, Parents, find_unlabelled, read_data_set
from pickeropt.pretrain.training_views import (
    Cut,
    TrainingView,
    ViewStore,
    labelled_pieces,
    missing,
    open_store,
    unlabelled_pieces,
    write_piece,
)
from pickeropt.records import OnProgress

FORMAT = "pickeropt backbone 1"
VIEW_DIAMETER = 62.0
"""px, particle diameter in the views of finetune's default recipe, within the range that is trained on."""


def head_spec(learner: Learner, data: DataSet, config: PretrainConfig) -> ModelSpec:
    """Input of the head: pooled windows of all stages, or the last over a whole box as in the paper."""
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


def provenance(data: DataSet, config: PretrainConfig, steps: int, figures: Mapping[str, float]) -> dict[str, Any]:
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


def product_bytes(learner: Learner, spec: ModelSpec, parents: tuple[str, ...], made: Mapping[str, Any]) -> bytes:
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


@dataclass(frozen=True)
class PretrainJob:
    """What all parts of a run need to know."""

    data: DataSet
    config: PretrainConfig
    run_folder: PretrainFolder
    processes: ProcessGroup
    device: torch.device
    on_progress: OnProgress


def pretrain(
    data_set: Path,
    out: Path,
    config: PretrainConfig,
    *,
    overwrite: bool = False,
    on_progress: OnProgress = lambda what, done, total: None,
) -> PretrainReport:
    """Train and write `out`, its log and its curves.

    data_set : as `training_set.read_data_set` takes it
    A run that was killed goes on when it is called with the same arguments again: to the identical file on
    a CPU with as many threads, to the same but for rounding elsewhere. Under torchrun every process calls
    this; the first one writes and reports progress.

    Raises PickeroptError before anything is computed: settings, data, weights, device, output in the way.
    """
    begun = time.perf_counter()
    check_config(config)
    if config.tensorboard:
        check_tensorboard()
    data = read_data_set(data_set, config.exclude, config.ignore)
    if config.recipe == "paper" and not data.boxes:
        what = f"{data_set}: the paper's recipe trains on boxes, these are micrographs"
        raise PickeroptError(f"{what}; cut boxes with `pickeropt dataset build`")
    unlabelled = find_unlabelled(config.unlabelled) if config.unlabelled is not None else ()
    settings, run_folder = run_settings(data, config, unlabelled), PretrainFolder(out)
    goes_on = run_folder.check(settings, overwrite)
    with join_process_group(config.device) as (processes, device):
        seed_everything(config.seed)
        backbones = _first_backbones(config)
        if processes.first and not goes_on:
            run_folder.begin(settings)
        processes.wait()
        job = PretrainJob(data, config, run_folder, processes, device, on_progress if processes.first else _silent)
        run = _set_up(job, *backbones, unlabelled)
        with _reproducible():
            train(run, run_folder, job.on_progress)
            if isinstance(run.recipe, DistilRecipe):
                fit_source_head(run, run.recipe, run_folder, job.on_progress)
        if processes.first:
            _finish(job, run)
        processes.wait()
    return PretrainReport(
        out=out,
        log=run_folder.log,
        curves=run_folder.curves,
        recipe=config.recipe,
        classes=len(data.classes.names),
        samples=run.recipe.samples,
        held_back=run.recipe.held_back,
        steps=run.recipe.steps,
        resumed_at=run.resumed_at,
        final=run.figures,
        seconds=time.perf_counter() - begun,
    )


def _silent(what: str, done: int, total: int) -> None:
    """Progress of the processes that do not report."""


def _first_backbones(config: PretrainConfig) -> tuple[Backbone, Backbone]:
    """The network to train, and its teacher: ImageNet's, whatever training starts from."""
    paper = config.recipe == "paper"
    weights = config.weights if config.init == "imagenet" else None
    stages = None if paper else STAGES
    backbone = initial_backbone(config.backbone, config.init, weights, stages, or_shipped=paper)
    if paper or config.init == "imagenet":
        return backbone, backbone
    try:
        teacher = initial_backbone(config.backbone, "imagenet", config.weights, STAGES, or_shipped=False)
        return backbone, teacher
    except CheckpointError as error:
        raise CheckpointError(f"--recipe default has the ImageNet network for a teacher: {error}") from error


def _set_up(job: PretrainJob, backbone: Backbone, teacher: Backbone, unlabelled: Sequence[Path]) -> TrainingRun:
    """Learner and recipe on their device, all views cut."""
    config, schedule = job.config, job.config.schedule
    if schedule.batch_size < job.processes.size:
        what = f"--batch-size {schedule.batch_size}: less than one image for each of {job.processes.size} processes"
        raise PickeroptError(f"{what}; give at least {job.processes.size}")
    paper = config.recipe == "paper"
    stages, windows = (backbone.channels[-1:], 1) if paper else (backbone.channels, len(WINDOWS))
    learner = Learner(backbone, FeatureLayout(stages, windows).width, len(job.data.classes.names))
    learner.to(job.device).to(memory_format=torch.channels_last)
    recipe: Recipe
    if paper:
        boxes = PaperRecipe(job.data, config, job.device)
        if config.init != "none":
            boxes.unfold(learner)
        if job.processes.size > 1:
            share_batch_norm(learner)
        recipe = boxes
    else:
        labelled, others = _view_stores(job, teacher, unlabelled)
        parents = Parents.of(job.data.classes.parents)
        recipe = distil = DistilRecipe(labelled, others, parents, config, job.device)
        distil.start_head(learner)
    return TrainingRun(learner, recipe, config, job.processes, job.device)


def _view_stores(job: PretrainJob, teacher: Backbone, unlabelled: Sequence[Path]) -> tuple[ViewStore, ViewStore]:
    """Views with labels and without; those that are not on disk yet are cut and passed through the teacher."""
    cuts = [labelled_pieces(job.data, job.config), unlabelled_pieces(unlabelled, job.config)]
    names = ("labelled", "unlabelled")
    paths = [
        [job.run_folder.views / f"{name}-{i:06d}.safetensors" for i in range(len(c))]
        for name, c in zip(names, cuts, strict=True)
    ]
    every, files = [*cuts[0], *cuts[1]], [*paths[0], *paths[1]]
    wanted = list(missing(files))
    job.processes.wait()  # nobody writes before all have listed the files
    if wanted:
        dtype = inference_dtype(job.device) if job.config.mixed_precision else torch.float32
        network = inference_copy(teacher, job.device, dtype)
        for number, place in enumerate(job.processes.share(len(wanted))):
            piece = wanted[place]
            write_piece(files[piece], _with_teacher_maps(network, every[piece], job.config.seed, piece, dtype))
            job.on_progress("cutting views", number * job.processes.size + 1, len(wanted))
    job.processes.wait()
    return open_store(paths[0]), open_store(paths[1])


def _with_teacher_maps(teacher: Backbone, cut: Cut, seed: int, piece: int, dtype: torch.dtype) -> list[TrainingView]:
    """The views of one piece with the teacher's maps, averaged over eight orientations."""
    device = next(teacher.parameters()).device
    views = []
    for view in cut(np.random.default_rng([seed, CUTTING, piece])):
        with torch.inference_mode():
            maps = averaged_maps(teacher, view.pixels[None, None].to(device=device, dtype=dtype), EIGHT)
        views.append(replace(view, maps=tuple(m.half().cpu() for m in maps)))
    return views


def _finish(job: PretrainJob, run: TrainingRun) -> None:
    """The curves, then the weights; then nothing is left to go on with."""
    job.run_folder.publish(job.run_folder.curves, curves_png(run.rows))
    made = provenance(job.data, job.config, run.recipe.steps, run.figures)
    spec = head_spec(run.learner, job.data, job.config)
    content = product_bytes(run.learner, spec, job.data.classes.parents, made)
    job.run_folder.publish(job.run_folder.out, content)
    job.run_folder.clear()


@contextmanager
def _reproducible() -> Iterator[None]:
    """cuDNN, where it is used, in its deterministic way."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=cudnn.enabled, deterministic=True, benchmark=False):
        yield
