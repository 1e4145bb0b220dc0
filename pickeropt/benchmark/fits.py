"""The fit of one classifier: its method, its draw of shots and queries, its initial weights, its probabilities.

The predicted class is the most probable one, as in the paper: all methods follow this rule, without the
temperature and the class prior of `prune`. Shots and queries never share a micrograph where it is known.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pickeropt.benchmark.benchmark_config import ENTRY, BenchmarkConfig, LossWeights
from pickeropt.benchmark.benchmark_sets import BenchmarkSet
from pickeropt.errors import CheckpointError, PickeroptError
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.recipes import ShotBoxes, fit_default, fit_paper, fresh_head, make_classifier
from pickeropt.finetune.shot_features import LooseShots
from pickeropt.models.backbone import SHIPPED, inference_copy
from pickeropt.models.classifier import PickClassifier
from pickeropt.models.features import box_features
from pickeropt.models.fitting import inference_dtype, seed_everything
from pickeropt.records import PARTICLE, OnProgress
from pickeropt.shots import choose_shots

Indices = NDArray[np.int64]

HELD_OUT = 1 / 3
"""Share of the micrographs, or of the boxes of each class, that a draw is asked about."""
_TRIES = 64
_LEAST = 2
"""Fewest boxes of a class to learn from."""


@dataclass(frozen=True)
class Draw:
    """shots, queries : sorted indices of boxes; seed : of the classifier"""

    shots: Indices
    queries: Indices
    seed: int


def draw(labels: Indices, groups: Indices, shots: int, seed: int) -> Draw:
    """At most `shots` boxes of each class to learn from, and others to be asked about.

    labels, groups : (n,) int64, class and micrograph of each box

    With one seed the queries are the same for every number of shots, and fewer shots are part of more.
    """
    held = held_out(labels, groups, seed)
    pool = np.flatnonzero(~held)
    chosen = choose_shots(labels[pool], groups[pool], shots, seed)
    return Draw(pool[chosen], np.flatnonzero(held), seed)


def draw_seed(seed: int, data_set: str, number: int) -> int:
    """The seed of one draw, below 2**32; draws of different data sets and seeds have nothing in common."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {data_set}".encode()).digest()[:4], "little")


def held_out(labels: Indices, groups: Indices, seed: int) -> NDArray[np.bool_]:
    """(n,) bool: the boxes to be asked about.

    A third of the micrographs, at random; of 64 tries the first that leaves the least undone: every class
    keeps two boxes to learn from, is asked about, and keeps half its boxes. A class that lies on one
    micrograph only is therefore not asked about. With one micrograph it is a third of each class's boxes.
    """
    group = np.unique(groups, return_inverse=True)[1]
    rng = np.random.Generator(np.random.PCG64(seed))
    if group.max() == 0:
        return _held_boxes(labels, rng)
    table = np.zeros((int(group.max()) + 1, int(labels.max()) + 1), dtype=np.int64)
    np.add.at(table, (group, labels), 1)
    count = max(1, round(HELD_OUT * len(table)))
    tries = [np.argsort(rng.random(len(table)), kind="stable")[:count] for _ in range(_TRIES)]
    return np.isin(group, min(tries, key=lambda rows: _undone(table, rows)))


def _undone(table: Indices, rows: Indices) -> tuple[int, int, int]:
    """How many classes keep too few boxes, are not asked about, or keep less than half; (g, k) boxes."""
    total, held = table.sum(0), table[rows].sum(0)
    short = (total - held < _LEAST).sum()
    return int(short), int((held == 0).sum()), int((2 * held > total).sum())


def _held_boxes(labels: Indices, rng: np.random.Generator) -> NDArray[np.bool_]:
    held = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        count = min(len(members) - _LEAST, max(1, round(HELD_OUT * len(members))))
        held[members[np.argsort(rng.random(len(members)), kind="stable")[:count]]] = True
    return held


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


@dataclass(frozen=True)
class Start:
    """init, weights : as `finetune` takes them; digest : of the file, else a word; title : for the tables"""

    init: str
    weights: Path | None
    digest: str
    title: str


def find_starts(
    names: Sequence[str], methods: Iterable[Method], config: BenchmarkConfig
) -> dict[tuple[str, str], Start]:
    """By data set and start of a method. Raises CheckpointError for weights that lack or do not fit."""
    methods = tuple(methods)
    kinds = dict.fromkeys(method.start for method in methods)
    if config.backbones is not None:
        _check_backbones(names, config.backbones)
    starts = {(name, kind): _start(name, kind, config) for name in names for kind in kinds}
    recipes = {(m.start, "default" if m.recipe == FROZEN else m.recipe) for m in methods}
    tried: set[tuple[Start, str]] = set()
    for (_, kind), start in starts.items():
        for recipe in (recipe for of, recipe in sorted(recipes) if of == kind):
            if (start, recipe) not in tried:
                make_classifier(finetuning(start, recipe), (PARTICLE, "other"), None)
                tried.add((start, recipe))
    return starts


def finetuning(start: Start, recipe: str, loss_weights: tuple[float, ...] = (1.0,), seed: int = 0) -> FinetuneConfig:
    """The settings of one fit, as `finetune` takes them; the boxes know their own scale."""
    return FinetuneConfig(
        1.0, init=start.init, weights=start.weights, recipe=recipe, loss_weights=loss_weights, seed=seed
    )


def leave_out_notes(starts: dict[tuple[str, str], Start], config: BenchmarkConfig) -> tuple[str, ...]:
    """A sentence for each backbone of `--backbones` whose file does not say that it left its entry out."""
    if config.backbones is None:
        return ()
    return tuple(
        f"{name}: {start.init} does not say that it was pretrained without {name}"
        for (name, _), start in starts.items()
        if start.init not in (NONE, IMAGENET) and name not in _excluded(Path(start.init))
    )


def _excluded(path: Path) -> list[str]:
    """What `pretrain --exclude` left out, as the file says."""
    try:
        with safe_open(str(path), framework="pt") as file:
            described = json.loads((file.metadata() or {}).get("pickeropt", "{}"))
        return [str(name) for name in described["provenance"]["exclude"]]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return []


def _check_backbones(names: Sequence[str], pattern: str) -> None:
    missing = [name for name in names if not Path(pattern.replace(ENTRY, name)).is_file()]
    if missing:
        path, more = pattern.replace(ENTRY, missing[0]), len(missing) - 1
        what = f"--backbones: no file {path}" + f" (and {more} more)" * (more > 0)
        raise CheckpointError(f"{what}; make it with `pickeropt pretrain ... --exclude {missing[0]} --out {path}`")


def _start(name: str, kind: str, config: BenchmarkConfig) -> Start:
    if kind == NONE:
        return Start(NONE, None, "none", "none")
    if kind == IMAGENET:
        digest = "timm" if config.weights is None else _digest(config.weights)
        return Start(IMAGENET, config.weights, digest, "ImageNet")
    init = config.init if config.backbones is None else config.backbones.replace(ENTRY, name)
    if init == "shipped":
        content = (files("pickeropt.models") / "weights" / SHIPPED).read_bytes()
        return Start(init, None, hashlib.sha256(content).hexdigest()[:12], "shipped")
    return Start(init, None, _digest(Path(init)), Path(init).name)


def _digest(path: Path) -> str:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file; --init takes shipped, imagenet, none or a file")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


REGULARISATION = 0.02
"""C of the logistic regression on standardised features."""
BATCH = 64


class DrawFitter:
    """The fits of one data set, whose features are computed once.

    starts : by the start of a method
    The features of frozen backbones and the boxes of the paper's recipe are kept as long as this lives.
    """

    def __init__(
        self, data: BenchmarkSet, starts: Mapping[str, Start], device: torch.device, on_progress: OnProgress
    ) -> None:
        self._data, self._starts, self._device, self._on_progress = data, starts, device, on_progress
        self._features: dict[str, tuple[PickClassifier, Tensor]] = {}
        self._boxes: dict[str, Tensor] = {}

    def probabilities_of(self, method: Method, draw: Draw) -> NDArray[np.float64]:
        """Probabilities (m, k) of the draw's queries, by a classifier that learnt from its shots."""
        if method.recipe == "paper":
            return self._paper(method, draw)
        made, features = self._features_of(method.start)
        shots, queries = features[draw.shots], features[draw.queries]
        labels = self._data.labels[draw.shots]
        if method.recipe == FROZEN:
            return logistic_regression(shots.numpy(), labels, queries.numpy(), len(self._data.class_names))
        classifier = with_losses(made, method.loss_weights)
        fresh_head(classifier, draw.seed)
        fit_default(classifier, shots, torch.from_numpy(labels))
        return _probabilities(classifier, queries)

    def _make(self, method: Method, seed: int = 0) -> PickClassifier:
        source = self._data.source
        config = finetuning(self._starts[method.start], method.recipe, method.loss_weights, seed)
        box_diameters = source.box_diameters if isinstance(source, LooseShots) else None
        return make_classifier(config, self._data.class_names, box_diameters)

    def _features_of(self, start: str) -> tuple[PickClassifier, Tensor]:
        """The default recipe's features (n, d) of all boxes, computed at the first call."""
        if start not in self._features:
            made = self._make(Method(start, "default", (1.0,)))
            backbone = inference_copy(made.backbone, self._device, inference_dtype(self._device))
            features = self._data.source.features(backbone, made.spec, self._on_boxes)
            self._features[start] = made, features.clone()  # no longer an inference tensor
        return self._features[start]

    def _paper(self, method: Method, draw: Draw) -> NDArray[np.float64]:
        config = finetuning(self._starts[method.start], method.recipe, method.loss_weights, draw.seed)
        seed_everything(draw.seed)
        classifier = self._make(method, draw.seed)
        if method.start not in self._boxes:
            self._boxes[method.start] = self._data.source.boxes(classifier.spec, self._on_boxes)
        boxes = self._boxes[method.start]
        shots = ShotBoxes(boxes[draw.shots], torch.from_numpy(self._data.labels[draw.shots]))
        fit_paper(classifier, shots, config, self._device, lambda epoch, of: None)
        dtype = inference_dtype(self._device)
        backbone = inference_copy(classifier.backbone, self._device, dtype)
        with torch.inference_mode():
            features = [
                box_features(backbone, classifier.spec, batch.to(self._device, dtype), 0).cpu()
                for batch in torch.split(boxes[draw.queries], BATCH)
            ]
        return _probabilities(classifier.to("cpu"), torch.cat(features))

    def _on_boxes(self, done: int, total: int) -> None:
        self._on_progress(f"computing features of {self._data.name}", done, total)


def with_losses(made: PickClassifier, loss_weights: tuple[float, ...]) -> PickClassifier:
    """The same backbone and source head with a fresh head of other branches."""
    classifier = PickClassifier(replace(made.spec, loss_weights=loss_weights), made.backbone)
    if made.source_prior is not None and classifier.source_prior is not None:
        classifier.source_prior.load_state_dict(made.source_prior.state_dict())
    return classifier


def _probabilities(classifier: PickClassifier, features: Tensor) -> NDArray[np.float64]:
    with torch.inference_mode():
        found: NDArray[np.float64] = torch.softmax(classifier.logits(features).double(), 1).numpy()
    return found


def logistic_regression(
    shots: NDArray[np.float32], labels: NDArray[np.int64], queries: NDArray[np.float32], classes: int
) -> NDArray[np.float64]:
    """Class-balanced, on standardised features (n, d) of the shots: probabilities (m, classes) of queries."""
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=2000)
    )
    model.fit(shots, labels)
    found = np.zeros((len(queries), classes))
    found[:, model[-1].classes_] = model.predict_proba(queries)
    return found
