"""The rows of the tables: ways to make a classifier, and which of them a benchmark needs."""

from dataclasses import dataclass

from pickeropt.benchmark.benchmark_config import BenchmarkConfig, LossWeights
from pickeropt.errors import PickeroptError

FROZEN = "frozen"
"""Not a recipe of finetune: the features of its default recipe, and a logistic regression."""
NONE, IMAGENET, PRETRAINED = "none", "imagenet", "pretrained"
STARTS = {NONE: "from scratch", IMAGENET: "ImageNet", PRETRAINED: "ImageNet + cryo-EM"}


@dataclass(frozen=True)
class Method:
    """start : of `STARTS`; recipe : of finetune, or `FROZEN`; loss_weights : one a branch, none if frozen"""

    start: str
    recipe: str
    loss_weights: LossWeights = ()


@dataclass(frozen=True)
class Row:
    """key : as `--rows` has it"""

    key: str
    title: str
    method: Method


TABLE_3 = (
    *(f"{start}{loss}" for start in ("scratch", "imagenet", "cryo") for loss in ("", "-single")),
    *(f"{kind}{start}" for kind in (FROZEN, "default") for start in ("-imagenet", "")),
)
"""The paper's recipe with and without the multi-loss; then what the paper lacks."""


def main_start(config: BenchmarkConfig) -> str:
    """What `init` and `backbones` come to, of `STARTS`."""
    return config.init if config.backbones is None and config.init in (NONE, IMAGENET) else PRETRAINED


def table_2(config: BenchmarkConfig) -> Method:
    """The classifier of table 2."""
    return Method(main_start(config), config.recipe, config.loss_weights)


def table_3(config: BenchmarkConfig) -> tuple[Row, ...]:
    """The rows asked for, in the order of `TABLE_3`.

    Raises PickeroptError for a name that is none, and for a row of a cryo-EM backbone without one.
    """
    rows = {row.key: row for row in _all_rows(config)}
    for key in config.rows:
        if key not in TABLE_3:
            raise PickeroptError(f"--rows {key}: there are {','.join(TABLE_3)}")
        if key not in rows:
            what = f"--rows {key}: --init {config.init} has no cryo-EM pretraining"
            raise PickeroptError(f"{what}; give --init shipped or a file, or --backbones")
    return tuple(row for key, row in rows.items() if not config.rows or key in config.rows)


def _all_rows(config: BenchmarkConfig) -> list[Row]:
    keys = {NONE: "scratch", IMAGENET: "imagenet", PRETRAINED: "cryo"}
    starts = [start for start in STARTS if start != PRETRAINED or main_start(config) == PRETRAINED]
    rows = []
    for start in starts:
        for weights, end in ((config.loss_weights, ""), ((1.0,), "-single")):
            title = f"recipe paper, {STARTS[start]}, {losses(weights)}"
            rows.append(Row(keys[start] + end, title, Method(start, "paper", weights)))
    for start in starts[1:]:
        end = "" if start == PRETRAINED else "-imagenet"
        title = f"frozen features + logistic regression, {STARTS[start]}"
        rows.append(Row(FROZEN + end, title, Method(start, FROZEN)))
    for start in starts[1:]:
        end = "" if start == PRETRAINED else "-imagenet"
        title = f"recipe default, {STARTS[start]}, {losses(config.loss_weights)}"
        rows.append(Row("default" + end, title, Method(start, "default", config.loss_weights)))
    return rows


def table_4(config: BenchmarkConfig) -> tuple[Row, ...]:
    """A row for each choice of loss weights, by the number of losses."""
    start = main_start(config)
    choices = sorted(dict.fromkeys((*config.loss_choices, config.loss_weights)), key=lambda w: (len(w), w))
    return tuple(Row(text_of(w), text_of(w), Method(start, config.recipe, w)) for w in choices)


def needed(config: BenchmarkConfig) -> dict[tuple[Method, int], None]:
    """Every method and number of shots that the tables need, each once.

    Raises PickeroptError as `table_3` does, and for ImageNet weights that none of them starts from.
    """
    methods = [table_2(config)] if 2 in config.tables else []
    methods += [row.method for row in table_3(config)] if 3 in config.tables else []
    pairs = dict.fromkeys((method, shots) for method in methods for shots in sorted(set(config.shots)))
    if 4 in config.tables:
        pairs |= dict.fromkeys((row.method, max(config.shots)) for row in table_4(config))
    if config.weights is not None and all(method.start != IMAGENET for method, _ in pairs):
        what = f"--weights {config.weights}: nothing that was asked for starts from ImageNet"
        raise PickeroptError(f"{what}; leave it out, or give --init imagenet or such rows of table 3")
    return pairs


def text_of(weights: LossWeights) -> str:
    """``1,0.3``; empty for none."""
    return ",".join(f"{weight:g}" for weight in weights)


def losses(weights: LossWeights) -> str:
    """Of a row's title."""
    return "one loss" if len(weights) == 1 else f"losses {text_of(weights)}"
