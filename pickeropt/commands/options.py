"""The options of the commands: each has its name, its unit and one line of help here, once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pickeropt.finetune.finetune_config import MODEL_FILE, RECIPES


def option(name: str, metavar: str | None, help_text: str, **more: Any) -> Any:
    return typer.Option(name, metavar=metavar, help=help_text, **more)


Folders = Annotated[list[Path] | None, option("--micrographs", "DIR", "Their folder; may be repeated.")]
PixelSize = Annotated[float | None, option("--pixel-size", "Å/PX", "Else from the file or MRC header.")]
Device = Annotated[str, option("--device", "NAME", "auto, cpu, cuda or cuda:N.")]
Overwrite = Annotated[bool, option("--overwrite", None, "Replace what is there already.")]
Seed = Annotated[int, option("--seed", "N", "The same seed gives the same result.", min=0)]
Diameter = Annotated[float, option("--diameter", "Å", "Particle diameter.")]
OtherDiameter = Annotated[
    float | None,
    option("--diameter", "Å", "Particle diameter, if not the model's; the general model has none."),
]

ShotsPath = Annotated[Path | None, option("--shots", "FILE_OR_FOLDER", "Labelled STAR, or folders of boxes.")]
ClassFiles = Annotated[list[str] | None, option("--class", "NAME=FILE", "Coordinates of a class; repeat it.")]
ModelOut = Annotated[Path, option("--out", "FILE", "The model file to write.")]
PerClass = Annotated[int, option("--shots-per-class", "N", "Use at most N of each; 0 uses all.", min=0)]
Init = Annotated[str, option("--init", "shipped|imagenet|none|PATH", "Where the features start from.")]
Invert = Annotated[
    bool | None,
    option("--invert/--no-invert", None, "Turn the contrast of boxes, as RELION's Extract does, or never ask."),
]
TrustFrame = Annotated[
    bool, option("--trust-frame", None, "Do not check whether the points are flipped, swapped or binned.")
]
Weights = Annotated[Path | None, option("--weights", "FILE", "ImageNet weights, where no network is.")]
Backbone = Annotated[str, option("--backbone", "NAME", "Any ResNet of timm.")]
Recipe = Annotated[str, option("--recipe", "|".join(RECIPES), "How to train: our way, or the paper's.")]
LossWeights = Annotated[str, option("--loss-weights", "W1,W2[,W3]", "One weight for each branch.")]

Picks = Annotated[list[Path], typer.Argument(metavar="PICKS", help="Coordinate files, or folders of them.")]
Model = Annotated[
    Path | None,
    option("--model", "FILE|general", f"Of finetune, or the package's; else ./{MODEL_FILE}, else general."),
]
Out = Annotated[Path, option("--out", "DIR", "The folder to write.")]
Threshold = Annotated[float, option("--threshold", "P", "Least P(particle) to keep.", min=0, max=1)]
BatchSize = Annotated[int | None, option("--batch-size", "N", "Computed at once; changes no result.", min=1)]

ScoresFile = Annotated[Path, typer.Argument(metavar="SCORES", help="scores.csv as prune wrote it.")]
Truth = Annotated[Path, option("--truth", "DIR_OR_FILE", "Coordinates of the true particles.")]
Radius = Annotated[
    float | None,
    option("--radius", "PX", "How far a pick may be from its particle; else half its diameter."),
]
Pictures = Annotated[Path | None, option("--out", "DIR", "Where to write; else beside SCORES.")]
