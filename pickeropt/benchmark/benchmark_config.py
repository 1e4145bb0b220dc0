"""The settings and the report of `pickeropt benchmark`; all defaults stand here."""

import math
from dataclasses import dataclass
from pathlib import Path

from pickeropt.errors import CheckpointError, GeometryError, PickeroptError, ShotsError
from pickeropt.finetune.finetune_config import RECIPES, FinetuneConfig

TABLES = (2, 3, 4)
"""Of Li et al. 2022: by data set, by pretraining and loss, by loss weights."""
ENTRY = "{entry}"
"""What stands for the data set's name in `backbones`."""

MICROGRAPH, BOX = "micrograph", "box"
SPLITS = (MICROGRAPH, BOX)
"""What shots and queries do not share: the micrograph, or, as in the paper, the box only."""

LossWeights = tuple[float, ...]


@dataclass(frozen=True)
class BenchmarkConfig:
    """One benchmark.

    tables : of `TABLES`
    shots : labelled boxes a class to learn from; table 4 is at the most of them
    draws : random choices of shots and queries for each figure
    rows : of table 3 (`rows.TABLE_3`); empty takes all that `init` allows
    recipe : of finetune, in tables 2 and 4
    init : shipped, imagenet, none, or the path of backbone weights
    backbones : path with ``{entry}`` in it, where each data set has its own, pretrained without it
    weights : ImageNet weights for the rows that start from them, where no network is
    loss_weights : the multi-loss of tables 2 and 3
    loss_choices : of table 4; one weight is a single cross-entropy
    ignore : source classes whose boxes are left out
    split : of `SPLITS`
    per_class : a data set's class is cut down to so many boxes, as many as the paper's; 0 takes all
    diameter_angstrom, pixel_size : Å and Å/px, of what does not say it itself
    """

    tables: tuple[int, ...] = TABLES
    shots: tuple[int, ...] = (10, 20, 30)
    draws: int = 20
    rows: tuple[str, ...] = ()
    recipe: str = FinetuneConfig.recipe
    init: str = FinetuneConfig.init
    backbones: str | None = None
    weights: Path | None = None
    loss_weights: LossWeights = FinetuneConfig.loss_weights
    loss_choices: tuple[LossWeights, ...] = (
        (1.0,),
        (1.0, 0.1),
        (1.0, 0.2),
        (1.0, 0.3),
        (1.0, 0.5),
        (1.0, 1.0),
        (1.0, 0.1, 0.1),
        (1.0, 0.3, 0.1),
        (1.0, 0.3, 0.3),
        (1.0, 0.5, 0.5),
        (1.0, 1.0, 1.0),
    )
    ignore: tuple[str, ...] = ()
    split: str = MICROGRAPH
    per_class: int = 100
    diameter_angstrom: float | None = None
    pixel_size: float | None = None
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class BenchmarkReport:
    """What came out of a benchmark.

    fits : classifiers that the tables rest on; earlier : of them fitted by an earlier run
    text : benchmark.md
    """

    data_sets: tuple[str, ...]
    fits: int
    earlier: int
    text: str
    written: tuple[Path, ...]
    warnings: tuple[str, ...]
    seconds: float


def check_config(config: BenchmarkConfig) -> None:
    """Raises PickeroptError where a setting is out of range, or is for a table that is not asked for."""
    unknown = [table for table in config.tables if table not in TABLES]
    if unknown or not config.tables:
        given = ",".join(map(str, config.tables))
        raise PickeroptError(f"--tables {given}: give some of {','.join(map(str, TABLES))}")
    if not config.shots or min(config.shots) < 2:
        given = ",".join(map(str, config.shots))
        raise ShotsError(f"--shots {given}: give numbers of shots a class, 2 or more each, such as 10,20,30")
    if config.draws < 1:
        raise PickeroptError(f"--draws {config.draws}: give 1 or more; 20 are good")
    if config.per_class and config.per_class < 2 * max(config.shots):
        what = f"--per-class {config.per_class} with {max(config.shots)} shots leaves too few to ask about"
        raise ShotsError(f"{what}; give {2 * max(config.shots)} or more, or 0 for all")
    for weights in (config.loss_weights, *config.loss_choices):
        _check_loss_weights(weights)
    for flag, table, changed in (
        ("--rows", 3, bool(config.rows)),
        ("--loss-choice", 4, config.loss_choices != BenchmarkConfig.loss_choices),
    ):
        if changed and table not in config.tables:
            raise PickeroptError(f"{flag} is for table {table}: add {table} to --tables, or leave {flag} out")
    _check_material(config)


def _check_material(config: BenchmarkConfig) -> None:
    if config.recipe not in RECIPES:
        raise PickeroptError(f"--recipe {config.recipe}: there are {' and '.join(RECIPES)}")
    if config.split not in SPLITS:
        raise PickeroptError(f"--split {config.split}: there are {' and '.join(SPLITS)}")
    if not 0 <= config.seed < 2**32:
        raise PickeroptError(f"--seed {config.seed}: give a whole number from 0 to {2**32 - 1}")
    if config.backbones is not None and ENTRY not in config.backbones:
        what = f"--backbones {config.backbones}: no {ENTRY} in it to stand for the data set"
        raise PickeroptError(f"{what}; write runs/without_{ENTRY}.safetensors, or give one file with --init")
    words = ("shipped", "imagenet", "none")
    if config.backbones is None and config.init not in words and not Path(config.init).is_file():
        what = f"{config.init}: no such weights file"
        raise CheckpointError(f"{what}; --init takes {', '.join(words)} or a file")
    for flag, value in (("--diameter", config.diameter_angstrom), ("--pixel-size", config.pixel_size)):
        if value is not None and not 0 < value < math.inf:
            raise GeometryError(f"{flag} is {value:g}; give a number above 0")


def _check_loss_weights(weights: LossWeights) -> None:
    if not 1 <= len(weights) <= 3 or not (all(0 <= w < math.inf for w in weights) and weights[0] > 0):
        given = ",".join(f"{w:g}" for w in weights)
        raise PickeroptError(f"loss weights {given}: one to three numbers of 0 or more, the first above 0")
