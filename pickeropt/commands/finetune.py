"""`pickeropt finetune`: its options and its call."""

import math
import shlex
from pathlib import Path

import typer

from pickeropt.commands import options as given
from pickeropt.commands.prune import MODEL
from pickeropt.finetune.finetune_config import FinetuneConfig

LOSS_WEIGHTS = ",".join(f"{weight:g}" for weight in FinetuneConfig.loss_weights)


def run_finetune(
    diameter: given.Diameter,
    shots: given.ShotsPath = None,
    class_files: given.ClassFiles = None,
    micrographs: given.Folders = None,
    pixel_size: given.PixelSize = FinetuneConfig.pixel_size,
    out: given.ModelOut = MODEL,
    shots_per_class: given.PerClass = FinetuneConfig.shots_per_class or 0,
    init: given.Init = FinetuneConfig.init,
    weights: given.Weights = FinetuneConfig.weights,
    backbone: given.Backbone = FinetuneConfig.backbone,
    recipe: given.Recipe = FinetuneConfig.recipe,
    loss_weights: given.LossWeights = LOSS_WEIGHTS,
    seed: given.Seed = FinetuneConfig.seed,
    device: given.Device = FinetuneConfig.device,
    invert: given.Invert = FinetuneConfig.invert,
    trust_frame: given.TrustFrame = FinetuneConfig.trust_frame,
    overwrite: given.Overwrite = False,
) -> None:
    """Learn a classifier from labelled shots.

    10 to 30 shots of each class are enough. They are one labelled STAR file (--shots
    labels.star), a coordinate file a class (--class particle=good.star --class
    carbon=edges.box), or a folder of boxes (--shots boxes/).
    """
    if (shots is None) == (not class_files):
        raise typer.BadParameter("give exactly one of the two", param_hint="--shots or --class")
    branch_weights = _numbers(loss_weights, "--loss-weights")
    folders = tuple(micrographs or ())
    of_boxes = shots is not None and shots.is_dir()
    if of_boxes and folders:
        raise typer.BadParameter("a folder of boxes needs no micrographs", param_hint="--micrographs")
    labels = shots or [_class_file(text) for text in class_files or ()]
    from pickeropt.api import finetune, read_labels
    from pickeropt.commands.console import progress, show_finetune

    with progress() as on_progress:
        model = finetune(
            read_labels(labels, micrographs=folders),
            diameter,
            out=out,
            overwrite=overwrite,
            on_progress=on_progress,
            pixel_size=pixel_size,
            shots_per_class=shots_per_class or None,
            backbone=backbone,
            init=init,
            weights=weights,
            recipe=recipe,
            loss_weights=branch_weights,
            seed=seed,
            device=device,
            invert=invert,
            trust_frame=trust_frame,
        )
    assert model.report is not None  # a model that was loaded has none
    show_finetune(model.report, _next_command(out, folders, None if of_boxes else pixel_size))


def _next_command(model: Path, folders: tuple[Path, ...], pixel_size: float | None) -> str:
    words = ["pickeropt", "prune", "PICKS.star", "--model", str(model)]
    words += [word for folder in folders for word in ("--micrographs", str(folder))]
    words += [] if pixel_size is None else ["--pixel-size", f"{pixel_size:g}"]
    return shlex.join(words)


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise typer.BadParameter(f"{text!r} is not numbers with commas between them", param_hint=option)
    return numbers


def _class_file(text: str) -> tuple[str, Path]:
    name, sign, file = text.partition("=")
    if not (name.strip() and sign and file):
        raise typer.BadParameter(f"{text!r} is not NAME=FILE, e.g. particle=good.star", param_hint="--class")
    return name.strip(), Path(file).expanduser()
