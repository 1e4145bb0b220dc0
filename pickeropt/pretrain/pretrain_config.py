"""Settings, defaults and report of `pickeropt pretrain`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pickeropt.errors import PickeroptError


@dataclass(frozen=True)
class Schedule:
    """How a recipe trains where the user does not say.

    steps or epochs : one of them is 0
    batch_size : views or boxes a step, over all processes together
    learning_rate : of the backbone, at its highest
    """

    steps: int
    epochs: int
    batch_size: int
    learning_rate: float


RECIPES: Mapping[str, Schedule] = {
    "default": Schedule(steps=4500, epochs=0, batch_size=4, learning_rate=3e-4),
    "paper": Schedule(steps=0, epochs=200, batch_size=256, learning_rate=0.1),
}
"""`default` was chosen by trial runs, by what few shots on real micrographs gained; `paper` is that of
Li et al. 2022, section 3.2."""


@dataclass(frozen=True)
class PretrainConfig:
    """One pretraining.

    recipe : "default" or "paper"
    init : imagenet, none, shipped, or the path of a safetensors file with backbone weights
    weights : ImageNet weights where no network is; the teacher of `default` has them too
    backbone : a timm ResNet
    exclude : entries or source classes to leave out, with every micrograph they are on
    ignore : source classes whose labels are dropped; their micrographs stay
    epochs, steps : how long; at most one of the two, None is the recipe's own
    batch_size, learning_rate : None is the recipe's own
    unlabelled : folder of micrographs or pictures without labels, for the rotation term of `default`
    tensorboard : whether to write a TensorBoard log as well
    mixed_precision : bfloat16 where the device is fast in it

    view_px, view_diameters : side of a training view, at most; least and most px that a particle is
        across in it
    views : of each micrograph or box; unlabelled_views : of each one without labels
    unlabelled_share : of the views of a step
    points_per_class : of a view, at most
    held_back : one micrograph with its boxes in so many is never trained on, and measures
    head_learning_rate : of the head while the backbone is trained
    distil_first : share of the steps, from the first on, that train the rotation term alone
    class_weight, parent_weight : of the cross-entropies of source classes and of their parents, beside
        the rotation term, in the steps after those
    head_steps : of each fit of the head to the finished backbone's features
    box_px : side of a box for `paper`

    What `default` alone has here was chosen by trial runs too.

    log_every, save_every, validate_every : steps; the latter two are multiples of the first
    """

    recipe: str = "default"
    init: str = "imagenet"
    weights: Path | None = None
    backbone: str = "resnet18"
    exclude: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    unlabelled: Path | None = None
    seed: int = 0
    device: str = "auto"
    tensorboard: bool = False
    mixed_precision: bool = True
    view_px: int = 577
    view_diameters: tuple[float, float] = (50.0, 74.0)
    views: int = 2
    unlabelled_views: int = 3
    unlabelled_share: float = 0.08
    points_per_class: int = 80
    held_back: int = 20
    head_learning_rate: float = 2e-3
    distil_first: float = 0.4
    class_weight: float = 0.12
    parent_weight: float = 0.3
    head_steps: int = 1000
    box_px: int = 225
    log_every: int = 10
    save_every: int = 50
    validate_every: int = 200

    @property
    def schedule(self) -> Schedule:
        """The recipe's, with what the user asked for instead."""
        own = RECIPES[self.recipe]
        length = (own.steps, own.epochs)
        if self.steps is not None or self.epochs is not None:
            length = (self.steps or 0, self.epochs or 0)
        rate = own.learning_rate if self.learning_rate is None else self.learning_rate
        return Schedule(*length, self.batch_size or own.batch_size, rate)


@dataclass(frozen=True)
class PretrainReport:
    """What came out of a pretraining.

    out : the weights; log : CSV; curves : PNG
    classes : number of source classes; samples : views or boxes trained on; held_back : not trained on
    resumed_at : step at which this run took over from one that was stopped, 0 for none
    final : last measured figures by name
    """

    out: Path
    log: Path
    curves: Path
    recipe: str
    classes: int
    samples: int
    held_back: int
    steps: int
    resumed_at: int
    final: Mapping[str, float]
    seconds: float


def check_config(config: PretrainConfig) -> None:
    """Raises PickeroptError where a setting is out of range, or is of another recipe."""
    if config.recipe not in RECIPES:
        raise PickeroptError(f"--recipe {config.recipe}: there are {' and '.join(RECIPES)}")
    if config.steps is not None and config.epochs is not None:
        raise PickeroptError("--steps and --epochs both say how long to train; give one of the two")
    for option in ("steps", "epochs", "batch_size"):
        value = getattr(config, option)
        if value is not None and value < 1:
            raise PickeroptError(f"--{option.replace('_', '-')} {value}: give a whole number above 0")
    if not 0 <= config.distil_first <= 1:
        raise PickeroptError(f"--distil-first {config.distil_first:g}: give a share of the steps, 0 to 1")
    if not 0 <= config.seed < 2**32:
        raise PickeroptError(f"--seed {config.seed}: give a whole number from 0 to {2**32 - 1}")
    if config.recipe == "paper":
        _check_paper(config)


def _check_paper(config: PretrainConfig) -> None:
    """Raises PickeroptError for what the paper's recipe would ignore."""
    if config.unlabelled is not None:
        raise PickeroptError("--unlabelled goes with --recipe default; the paper's learns from labels only")
    for option in ("views", "distil_first"):
        value = getattr(config, option)
        if value != getattr(PretrainConfig, option):
            flag = f"--{option.replace('_', '-')} {value:g}"
            raise PickeroptError(f"{flag} goes with --recipe default; the paper's has no such thing")
    if config.weights is not None and config.init != "imagenet":
        raise PickeroptError(f"--weights {config.weights} goes with --init imagenet, not --init {config.init}")
