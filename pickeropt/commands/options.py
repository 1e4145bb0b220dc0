"""The options of the commands: each with its name, its unit and one line of help."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pickeropt.finetune.finetune_config import MODEL_FILE, RECIPES


def option(name: str, metavar: str | None, help_text: str, **more: Any) -> Any:
    return typer.Option(name, metavar=metavar, help=help_text, **more)


Folders = Annotated[list[Path] | None, option("--micrographs", "DIR", "Folder of the micrographs; may be repeated.")]
PixelSize = Annotated[
    float | None, option("--pixel-size", "Å/PX", "Pixel size; default: from the file or the MRC header.")
]
Device = Annotated[str, option("--device", "NAME", "auto, cpu, cuda or cuda:N.")]
Overwrite = Annotated[bool, option("--overwrite", None, "Replace existing output.")]
Seed = Annotated[int, option("--seed", "N", "Random seed; the same seed gives the same result.", min=0)]
Diameter = Annotated[float, option("--diameter", "Å", "Particle diameter.")]
OtherDiameter = Annotated[
    float | None,
    option("--diameter", "Å", "Particle diameter; default: the model's. The general model needs one."),
]

ShotsPath = Annotated[
    Path | None,
    option("--shots", "FILE_OR_FOLDER", "Labelled STAR file, or a folder with one folder of boxes per class."),
]
ClassFiles = Annotated[
    list[str] | None, option("--class", "NAME=FILE", "Coordinate file of one class; repeat for each class.")
]
ModelOut = Annotated[Path, option("--out", "FILE", "Model file to write.")]
PerClass = Annotated[int, option("--shots-per-class", "N", "Use at most N shots of each class; 0 uses all.", min=0)]
Init = Annotated[str, option("--init", "shipped|imagenet|none|PATH", "Initial weights of the feature extractor.")]
Invert = Annotated[
    bool | None,
    option(
        "--invert/--no-invert",
        None,
        "Invert the contrast of the boxes (RELION's Extract inverts it), or skip the contrast check.",
    ),
]
TrustFrame = Annotated[
    bool, option("--trust-frame", None, "Skip the check for flipped, swapped or binned coordinates.")
]
Weights = Annotated[
    Path | None, option("--weights", "FILE", "File of ImageNet weights, for machines without a network connection.")
]
Backbone = Annotated[str, option("--backbone", "NAME", "Name of a ResNet in timm.")]
Recipe = Annotated[str, option("--recipe", "|".join(RECIPES), "Training recipe: ours, or that of the paper.")]
LossWeights = Annotated[str, option("--loss-weights", "W1,W2[,W3]", "Weight of the loss of each branch.")]

Picks = Annotated[list[Path], typer.Argument(metavar="PICKS", help="Coordinate files, or folders of them.")]
Model = Annotated[
    Path | None,
    option(
        "--model",
        "FILE|general",
        f"Model file from finetune, or general; default: ./{MODEL_FILE} if it exists, else general.",
    ),
]
Out = Annotated[Path, option("--out", "DIR", "Output folder.")]
Threshold = Annotated[float, option("--threshold", "P", "Keep picks with P(particle) of at least P.", min=0, max=1)]
BatchSize = Annotated[int | None, option("--batch-size", "N", "Picks per batch; does not change the result.", min=1)]

ScoresFile = Annotated[Path, typer.Argument(metavar="SCORES", help="The scores.csv of a prune run.")]
Truth = Annotated[Path, option("--truth", "DIR_OR_FILE", "Coordinates of the true particles.")]
Radius = Annotated[
    float | None,
    option("--radius", "PX", "Largest distance between a pick and its particle; default: half the diameter."),
]
Pictures = Annotated[Path | None, option("--out", "DIR", "Output folder; default: that of SCORES.")]
