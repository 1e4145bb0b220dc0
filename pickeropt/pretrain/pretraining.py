"""Train a backbone on a labelled data set, from ImageNet weights on, and save it with its head.

The default recipe fits the head anew when the backbone is finished.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pickeropt.errors import CheckpointError, PickeroptError
from pickeropt.models.backbone import Backbone, inference_copy
from pickeropt.models.fitting import inference_dtype, seed_everything
from pickeropt.models.head import FeatureLayout
from pickeropt.models.initial import initial_backbone
from pickeropt.models.orientations import EIGHT, averaged_maps
from pickeropt.pretrain.distil import WINDOWS
from pickeropt.pretrain.head_fit import fit_source_head
from pickeropt.pretrain.learner import CUTTING, Learner, Recipe
from pickeropt.pretrain.log import check_tensorboard, curves_png
from pickeropt.pretrain.loop import Run, train
from pickeropt.pretrain.paper_recipe import PaperRecipe
from pickeropt.pretrain.parents import Parents
from pickeropt.pretrain.pretrain_config import OnProgress, PretrainConfig, PretrainReport, check_config
from pickeropt.pretrain.pretrain_recipes import STAGES, DistilRecipe
from pickeropt.pretrain.product import head_spec, product_bytes, provenance
from pickeropt.pretrain.training_loop import World, join_world, share_batch_norm
from pickeropt.pretrain.training_set import DataSet, find_unlabelled, read_data_set
from pickeropt.pretrain.training_views import (
    Cut,
    View,
    ViewStore,
    labelled_pieces,
    missing,
    open_store,
    unlabelled_pieces,
    write_piece,
)
from pickeropt.pretrain.workplace import Workplace, run_settings


@dataclass(frozen=True)
class Job:
    """What all parts of a run need to know."""

    data: DataSet
    config: PretrainConfig
    place: Workplace
    world: World
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

    data_set : as `material.read_data_set` takes it
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
    settings, place = run_settings(data, config, unlabelled), Workplace(out)
    goes_on = place.check(settings, overwrite)
    with join_world(config.device) as (world, device):
        seed_everything(config.seed)
        backbones = _first_backbones(config)
        if world.first and not goes_on:
            place.begin(settings)
        world.wait()
        job = Job(data, config, place, world, device, on_progress if world.first else _silent)
        run = _set_up(job, *backbones, unlabelled)
        with _reproducible():
            train(run, place, job.on_progress)
            if isinstance(run.recipe, DistilRecipe):
                fit_source_head(run, run.recipe, place, job.on_progress)
        if world.first:
            _finish(job, run)
        world.wait()
    return PretrainReport(
        out=out,
        log=place.log,
        curves=place.curves,
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
    """For the processes that do not speak."""


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


def _set_up(job: Job, backbone: Backbone, teacher: Backbone, unlabelled: Sequence[Path]) -> Run:
    """Learner and recipe on their device, all views cut."""
    config, schedule = job.config, job.config.schedule
    if schedule.batch_size < job.world.size:
        what = (
            f"--batch-size {schedule.batch_size}: less than one image for each of {job.world.size} processes"
        )
        raise PickeroptError(f"{what}; give at least {job.world.size}")
    paper = config.recipe == "paper"
    stages, windows = (backbone.channels[-1:], 1) if paper else (backbone.channels, len(WINDOWS))
    learner = Learner(backbone, FeatureLayout(stages, windows).width, len(job.data.classes.names))
    learner.to(job.device).to(memory_format=torch.channels_last)
    recipe: Recipe
    if paper:
        boxes = PaperRecipe(job.data, config, job.device)
        if config.init != "none":
            boxes.unfold(learner)
        if job.world.size > 1:
            share_batch_norm(learner)
        recipe = boxes
    else:
        labelled, others = _view_stores(job, teacher, unlabelled)
        parents = Parents.of(job.data.classes.parents)
        recipe = distil = DistilRecipe(labelled, others, parents, config, job.device)
        distil.start_head(learner)
    return Run(learner, recipe, config, job.world, job.device)


def _view_stores(job: Job, teacher: Backbone, unlabelled: Sequence[Path]) -> tuple[ViewStore, ViewStore]:
    """Views with labels and without; those that are not on disk yet are cut and shown to the teacher."""
    cuts = [labelled_pieces(job.data, job.config), unlabelled_pieces(unlabelled, job.config)]
    names = ("labelled", "unlabelled")
    paths = [
        [job.place.views / f"{name}-{i:06d}.safetensors" for i in range(len(c))]
        for name, c in zip(names, cuts, strict=True)
    ]
    every, files = [*cuts[0], *cuts[1]], [*paths[0], *paths[1]]
    wanted = list(missing(files))
    job.world.wait()  # nobody writes before everybody has looked
    if wanted:
        dtype = inference_dtype(job.device) if job.config.mixed_precision else torch.float32
        network = inference_copy(teacher, job.device, dtype)
        for number, place in enumerate(job.world.share(len(wanted))):
            piece = wanted[place]
            write_piece(files[piece], _taught(network, every[piece], job.config.seed, piece, dtype))
            job.on_progress("cutting views", number * job.world.size + 1, len(wanted))
    job.world.wait()
    return open_store(paths[0]), open_store(paths[1])


def _taught(teacher: Backbone, cut: Cut, seed: int, piece: int, dtype: torch.dtype) -> list[View]:
    """The views of one piece with the teacher's maps, averaged over eight orientations."""
    device = next(teacher.parameters()).device
    views = []
    for view in cut(np.random.default_rng([seed, CUTTING, piece])):
        with torch.inference_mode():
            maps = averaged_maps(teacher, view.pixels[None, None].to(device=device, dtype=dtype), EIGHT)
        views.append(replace(view, maps=tuple(m.half().cpu() for m in maps)))
    return views


def _finish(job: Job, run: Run) -> None:
    """The curves, then the weights; then nothing is left to go on with."""
    job.place.publish(job.place.curves, curves_png(run.rows))
    made = provenance(job.data, job.config, run.recipe.steps, run.figures)
    spec = head_spec(run.learner, job.data, job.config)
    content = product_bytes(run.learner, spec, job.data.classes.parents, made)
    job.place.publish(job.place.out, content)
    job.place.clear()


@contextmanager
def _reproducible() -> Iterator[None]:
    """cuDNN, where it is used, in its deterministic way."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=cudnn.enabled, deterministic=True, benchmark=False):
        yield
