"""What `pickeropt finetune` can be told; its defaults stand here only."""

from dataclasses import dataclass
from pathlib import Path

RECIPES = ("default", "paper")


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


@dataclass(frozen=True)
class FinetuneReport:
    """What came out of a fine-tuning.

    train_shots, validation_shots : shots a class behind the figures (the saved default model then
        learns from both)
    validation_by : "micrograph", "shot" or "none": what the held-out shots have not shared
    accuracy, macro_f1, per_class_f1 : on the held-out shots, mean of `validation_splits` splits
    passes : forward passes of the backbone in words
    """

    checkpoint: Path
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
