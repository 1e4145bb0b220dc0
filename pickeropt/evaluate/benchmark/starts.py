"""Where the backbone of a row starts from, found and tried before anything is computed."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from safetensors import SafetensorError, safe_open

from pickeropt.benchmark.benchmark_config import ENTRY, BenchmarkConfig
from pickeropt.errors import CheckpointError
from pickeropt.evaluate.benchmark.rows import FROZEN, IMAGENET, NONE, Method
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.recipes import make_classifier
from pickeropt.models.initial import SHIPPED
from pickeropt.records import PARTICLE


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


def finetuning(
    start: Start, recipe: str, loss_weights: tuple[float, ...] = (1.0,), seed: int = 0
) -> FinetuneConfig:
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
            said = json.loads((file.metadata() or {}).get("pickeropt", "{}"))
        return [str(name) for name in said["provenance"]["exclude"]]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return []


def _check_backbones(names: Sequence[str], pattern: str) -> None:
    missing = [name for name in names if not Path(pattern.replace(ENTRY, name)).is_file()]
    if missing:
        path, more = pattern.replace(ENTRY, missing[0]), len(missing) - 1
        what = f"--backbones: no file {path}" + f" (and {more} more)" * (more > 0)
        raise CheckpointError(
            f"{what}; make it with `pickeropt pretrain ... --exclude {missing[0]} --out {path}`"
        )


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
