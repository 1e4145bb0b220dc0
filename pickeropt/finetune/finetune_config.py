"""What `pickeropt finetune` can be told; its defaults stand here only."""

import math
from dataclasses import dataclass
from pathlib import Path

from pickeropt.errors import GeometryError, PickeroptError, ShotsError

RECIPES = ("default", "paper")
MODEL_FILE = "model.safetensors"
"""What `finetune` writes and `prune` looks for in the current folder, where the user does not say."""


@dataclass(frozen=True)
class FinetuneConfig:
    """One fine-tuning.

    diameter_angstrom : particle diameter, Å
    pixel_size : Å/px; None takes it from the optics block or the MRC headers, which must agree
    shots_per_class : at most so many shots a class, spread over micrographs; None takes all
    backbone : a timm ResNet
    init : shipped, imagenet, none, or the path of a safetensors file with backbone weights
    weights : ImageNet weights for `init` imagenet on a machine without a network
    recipe : "default", measured best on real micrographs, or "paper", that of Li et al. 2022
    loss_weights : weight of each branch's cross-entropy; three values add the third branch
    validation_fraction : share of the shots held out to report, by micrograph where there are several
    seed : of the choice of shots, the splits and the fresh classifier
    device : auto, cpu, cuda or cuda:N
    invert : turn the contrast of boxes; None refuses boxes whose particles are bright, False takes them
    trust_frame : do not look whether labelled points are flipped, swapped or binned
    """

    diameter_angstrom: float
    pixel_size: float | None = None
    shots_per_class: int | None = 30
    backbone: str = "resnet18"
    init: str = "shipped"
    weights: Path | None = None
    recipe: str = "default"
    loss_weights: tuple[float, ...] = (1.0, 0.3)
    validation_fraction: float = 0.2
    seed: int = 0
    device: str = "auto"
    invert: bool | None = None
    trust_frame: bool = False


@dataclass(frozen=True)
class FinetuneReport:
    """What came out of a fine-tuning.

    checkpoint : the model file; None where none was written
    train_shots, validation_shots : shots a class behind the figures (the saved default model then
        learns from both)
    validation_by : "micrograph", "shot" or "none": what the held-out shots have not shared
    accuracy, macro_f1, per_class_f1 : on the held-out shots, mean of `validation_splits` splits
    passes : forward passes of the backbone in words
    """

    checkpoint: Path | None
    class_names: tuple[str, ...]
    train_shots: dict[str, int]
    validation_shots: dict[str, int]
    validation_by: str
    validation_splits: int
    accuracy: float | None
    macro_f1: float | None
    per_class_f1: dict[str, float]
    passes: str
    seconds: float
    warnings: tuple[str, ...]


def check_config(config: FinetuneConfig) -> None:
    """Raises PickeroptError where a setting is out of range."""
    if config.recipe not in RECIPES:
        raise PickeroptError(f"--recipe {config.recipe}: there are {' and '.join(RECIPES)}")
    weights = config.loss_weights
    if len(weights) not in (2, 3) or not (all(0 <= w < math.inf for w in weights) and weights[0] > 0):
        given = ",".join(map(str, weights))
        raise PickeroptError(f"--loss-weights {given}: give two or three numbers of 0 or more, the first above 0")
    if not 0 < config.diameter_angstrom < math.inf:
        raise GeometryError(f"--diameter is {config.diameter_angstrom:g}; give the particle's diameter in Å, above 0")
    if config.pixel_size is not None and not 0 < config.pixel_size < math.inf:
        raise GeometryError(f"--pixel-size is {config.pixel_size:g}; give a number of Å/px above 0")
    if not 0 <= config.validation_fraction < 1:
        given = f"a validation fraction of {config.validation_fraction:g}"
        raise ShotsError(f"{given} cannot be held out; give one from 0 to below 1, such as 0.2")
    if not 0 <= config.seed < 2**32:
        raise PickeroptError(f"--seed {config.seed}: give a whole number from 0 to {2**32 - 1}")
