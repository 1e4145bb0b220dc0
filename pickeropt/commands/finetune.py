"""`pickeropt finetune`: its options, and what it shows."""

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pickeropt.commands import options as given
from pickeropt.commands.prune import MODEL
from pickeropt.finetune.finetune_config import FinetuneConfig

if TYPE_CHECKING:
    from pickeropt.shots import BoxShots, Shots


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
    config = FinetuneConfig(
        diameter_angstrom=diameter,
        pixel_size=pixel_size,
        shots_per_class=shots_per_class or None,
        backbone=backbone,
        init=init,
        weights=weights,
        recipe=recipe,
        loss_weights=_numbers(loss_weights, "--loss-weights"),
        seed=seed,
        device=device,
        invert=invert,
        trust_frame=trust_frame,
    )
    folders = tuple(micrographs or ())
    of_boxes = shots is not None and shots.is_dir()
    if of_boxes and folders:
        raise typer.BadParameter("boxes are learnt from without micrographs", param_hint="--micrographs")
    pairs = [_class_file(text) for text in class_files or ()]
    from pickeropt.commands.console import progress, show_finetune
    from pickeropt.finetune.finetuning import finetune

    with progress() as on_progress:
        found = _read_shots(shots, pairs, folders)
        report = finetune(found, config, out, overwrite=overwrite, on_progress=on_progress)
    next_command = ["pickeropt", "prune", "PICKS.star", "--model", str(out)]
    for folder in folders:
        next_command += ["--micrographs", str(folder)]
    if pixel_size is not None and not of_boxes:
        next_command += ["--pixel-size", f"{pixel_size:g}"]
    show_finetune(report, shlex.join(next_command))


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


def _read_shots(
    shots: Path | None, class_files: list[tuple[str, Path]], micrographs: tuple[Path, ...]
) -> "Shots | BoxShots":
    from pickeropt.shots import read_class_boxes, read_class_files, read_labelled_star

    if shots is None:
        return read_class_files(class_files, micrographs)
    return read_class_boxes(shots) if shots.is_dir() else read_labelled_star(shots, micrographs)
