"""`pickeropt pretrain`: options, call and output."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pickeropt.pretrain.pretrain_config import RECIPES, PretrainConfig

if TYPE_CHECKING:
    from pickeropt.pretrain.pretrain_config import PretrainReport


def _option(name: str, metavar: str | None, help_text: str, **more: Any) -> Any:
    return typer.Option(name, metavar=metavar, help=help_text, **more)


DataSet = Annotated[Path, typer.Argument(metavar="DATASET", help="Folder from `dataset simulate` or `dataset build`.")]
Out = Annotated[Path, _option("--out", "FILE", "The weights to write, safetensors.")]
Recipe = Annotated[str, _option("--recipe", "|".join(RECIPES), "Training recipe: our default or that of the paper.")]
Init = Annotated[str, _option("--init", "imagenet|none|shipped|PATH", "Initial weights.")]
Weights = Annotated[Path | None, _option("--weights", "FILE", "File of ImageNet weights, if there is no network.")]
Backbone = Annotated[str, _option("--backbone", "NAME", "Name of a ResNet in timm.")]
Exclude = Annotated[
    list[str] | None, _option("--exclude", "ENTRY", "Leave out an entry or source class; may be repeated.")
]
Ignore = Annotated[
    list[str] | None, _option("--ignore", "CLASS", "Drop the labels of a source class; may be repeated.")
]
Unlabelled = Annotated[
    Path | None, _option("--unlabelled", "DIR", "Real micrographs or images to train on without labels.")
]
Views = Annotated[
    int,
    _option("--views", "N", "Training views of each micrograph or box (default recipe).", min=1),
]
DistilFirst = Annotated[
    float,
    _option("--distil-first", "SHARE", "Fraction of steps that only distil ImageNet (default recipe)."),
]
Epochs = Annotated[int | None, _option("--epochs", "N", "Number of epochs; default: that of the recipe.", min=1)]
Steps = Annotated[int | None, _option("--steps", "N", "Number of steps; default: that of the recipe.", min=1)]
BatchSize = Annotated[int | None, _option("--batch-size", "N", "Total batch size; default: that of the recipe.", min=1)]
Seed = Annotated[int, _option("--seed", "N", "The same seed gives the same result.", min=0)]
Device = Annotated[str, _option("--device", "NAME", "auto, cpu, cuda or cuda:N.")]
TensorBoard = Annotated[bool, _option("--tensorboard", None, "Write a TensorBoard log as well.")]
Overwrite = Annotated[bool, _option("--overwrite", None, "Replace what is there already.")]


def run_pretrain(
    data_set: DataSet,
    out: Out = Path("backbone.safetensors"),
    recipe: Recipe = PretrainConfig.recipe,
    init: Init = PretrainConfig.init,
    weights: Weights = PretrainConfig.weights,
    backbone: Backbone = PretrainConfig.backbone,
    exclude: Exclude = None,
    ignore: Ignore = None,
    unlabelled: Unlabelled = PretrainConfig.unlabelled,
    views: Views = PretrainConfig.views,
    distil_first: DistilFirst = PretrainConfig.distil_first,
    epochs: Epochs = PretrainConfig.epochs,
    steps: Steps = PretrainConfig.steps,
    batch_size: BatchSize = PretrainConfig.batch_size,
    seed: Seed = PretrainConfig.seed,
    device: Device = PretrainConfig.device,
    tensorboard: TensorBoard = PretrainConfig.tensorboard,
    overwrite: Overwrite = False,
) -> None:
    """Train a backbone on a labelled data set.

    DATASET is a folder of simulated micrographs with truth.star, or of class folders with
    dataset.json. `finetune --init FILE` starts from what is written. The same command
    continues a stopped run. For several GPUs: torchrun
    --nproc-per-node N -m pickeropt pretrain ...
    """
    from pickeropt.commands.console import progress
    from pickeropt.pretrain.pretraining import pretrain

    config = PretrainConfig(
        recipe=recipe,
        init=init,
        weights=weights,
        backbone=backbone,
        exclude=tuple(exclude or ()),
        ignore=tuple(ignore or ()),
        unlabelled=unlabelled,
        views=views,
        distil_first=distil_first,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        tensorboard=tensorboard,
    )
    with progress() as on_progress:
        report = pretrain(data_set, out, config, overwrite=overwrite, on_progress=on_progress)
    if os.environ.get("RANK", "0") == "0":
        show_pretrain(report)


def show_pretrain(report: "PretrainReport") -> None:
    """What was trained on, the last figures, where the files are and what to run next."""
    from pickeropt.commands.console import duration

    earlier = f", from step {report.resumed_at} of an earlier run on" if report.resumed_at else ""
    held_back = f", {report.held_back:,} held back" if report.held_back else ""
    samples = "boxes" if report.recipe == "paper" else "views"
    print(f"{report.classes} source classes, {report.samples:,} {samples}{held_back}")
    print(f"{report.steps:,} steps in {duration(report.seconds)}{earlier}")
    for name, value in report.final.items():
        if name != "learning_rate":
            print(f"  {name.replace('_', ' '):26s}{value:8.3f}")
    print(f"log: {report.log}")
    print(f"learning curves: {report.curves}")
    print(f"weights: {report.out}")
    print(f"next:  pickeropt finetune --init {report.out} ...")
