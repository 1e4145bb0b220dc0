"""Who may import whom, and how long files and functions may be: read from the source, run by `make check`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pickeropt"

LAYERS = (
    ("__main__",),
    ("cli",),
    ("cli_pick",),
    (
        "cli_dataset",
        "cli_empiar",
        "cli_pretrain",
        "cli_benchmark",
        "cli_check",
        "cli_convert",
        "cli_label",
        "cli_prune",
        "cli_relion",
        "cli_report",
    ),
    ("console", "options"),
    ("demo",),
    ("label", "report", "relion", "evaluate", "convert"),
    ("pretrain", "finetune", "prune", "pickers"),
    ("frame",),
    ("training", "training_state", "workspace", "checkpoint", "describe"),
    ("folder_lock",),
    ("classifier",),
    ("datasets", "models"),
    ("io",),
    ("records",),
    ("errors",),
    ("__init__",),
)
"""Rooms from top to bottom. A room imports itself and rooms below its own line, never one beside it."""

ONLY_IN = {
    "typer": (*LAYERS[1], *LAYERS[2], *LAYERS[3], "options"),
    "click": (),
    "rich": ("cli", "console"),
    "timm": ("models",),
    "starfile": ("io",),
    "pandas": ("io",),
    "mrcfile": ("io",),
    "fastapi": ("label", "report"),
    "pickle": ("io",),
}
"""Which rooms may import these packages."""

MOST_LINES = 260
MOST_FUNCTION_LINES = 60


def violations(package: Path) -> list[str]:
    """Every breach in a package, each with its file and line."""
    return [breach for path in sorted(package.rglob("*.py")) for breach in _of_file(package, path)]


def _of_file(package: Path, path: Path) -> Iterator[str]:
    place = path.relative_to(package)
    room = place.parts[0].removesuffix(".py")
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if len(text.splitlines()) > MOST_LINES:
        yield f"{place}: {len(text.splitlines())} lines, {MOST_LINES} is the most"
    if path.name == "utils.py":
        yield f"{place}: no utils.py"
    if _layer(room) is None:
        yield f"{place}: room {room} is in no layer"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MOST_FUNCTION_LINES:
                what = f"{node.name} has {length} lines"
                yield f"{place}:{node.lineno}: {what}, {MOST_FUNCTION_LINES} is the most"
        for module in _imported(node, (package.name, *place.with_suffix("").parts)):
            breach = _breach(room, module, package.name)
            if breach:
                yield f"{place}:{getattr(node, 'lineno', 0)}: {breach}"


def _imported(node: ast.AST, here: tuple[str, ...]) -> list[str]:
    """Dotted names that an import statement may load; of `from a import b` both a.b and so a."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = [*here[: -node.level], node.module] if node.level else [node.module]
        return [".".join(filter(None, [*base, alias.name])) for alias in node.names]
    return []


def _breach(room: str, module: str, package: str) -> str | None:
    top, _, rest = module.partition(".")
    if top != package:
        allowed = ONLY_IN.get(top)
        return None if allowed is None or room in allowed else f"{room} imports {top}"
    target = rest.partition(".")[0]
    mine, theirs = _layer(room), _layer(target)
    if not target or target.startswith("__"):  # the package itself, or its __version__
        return None
    if theirs is None:
        return f"{room} imports {target}, which is in no layer"
    if target == room or (mine is not None and mine < theirs):
        return None
    return f"{room} imports {target}"


def _layer(room: str) -> int | None:
    return next((depth for depth, rooms in enumerate(LAYERS) if room in rooms), None)


def test_the_package_keeps_its_layers():
    assert violations(PACKAGE) == []


def test_the_package_was_found():
    assert len(list(PACKAGE.rglob("*.py"))) > 30


BAD = {
    "errors.py": ("from pickeropt.records import Picks", "errors.py:1: errors imports records"),
    "records.py": ("import pickle", "records.py:1: records imports pickle"),
    "io/star.py": (
        "def read():\n    from pickeropt.datasets import shots",
        "io/star.py:2: io imports datasets",
    ),
    "io/deep/down.py": ("from ...models.backbone import Backbone", "io/deep/down.py:1: io imports models"),
    "datasets/shots.py": ("import starfile", "datasets/shots.py:1: datasets imports starfile"),
    "datasets/cut.py": ("import pandas as pd", "datasets/cut.py:1: datasets imports pandas"),
    "datasets/twin.py": ("import pickeropt.models", "datasets/twin.py:1: datasets imports models"),
    "models/head.py": ("import rich.table", "models/head.py:1: models imports rich"),
    "training.py": ("from timm import create_model", "training.py:1: training imports timm"),
    "finetune/run.py": (
        "from pickeropt.prune.pruning import prune",
        "finetune/run.py:1: finetune imports prune",
    ),
    "prune/run.py": ("from ..pretrain import run", "prune/run.py:1: prune imports pretrain"),
    "pretrain/run.py": ("from pickeropt import finetune", "pretrain/run.py:1: pretrain imports finetune"),
    "prune/score.py": ("if 1:\n    from mrcfile import open", "prune/score.py:2: prune imports mrcfile"),
    "evaluate/late.py": ("from pickeropt import demo", "evaluate/late.py:1: evaluate imports demo"),
    "demo.py": ("import typer", "demo.py:1: demo imports typer"),
    "console.py": ("from pickeropt.cli import app", "console.py:1: console imports cli"),
    "shed.py": ("", "shed.py: room shed is in no layer"),
    "cli.py": ("import pickeropt.attic", "cli.py:1: cli imports attic, which is in no layer"),
    "io/utils.py": ("", "io/utils.py: no utils.py"),
    "io/long.py": ("x = 1\n" * 261, "io/long.py: 261 lines, 260 is the most"),
    "io/tall.py": (
        "class A:\n    def f(self):\n" + "        x = 1\n" * 60,
        "io/tall.py:2: f has 61 lines, 60 is the most",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_breach_is_found(tmp_path, name):
    source, breach = BAD[name]
    package = tmp_path / "pickeropt"
    (package / name).parent.mkdir(parents=True)
    (package / name).write_text(source)
    assert violations(package) == [breach]


GOOD = {
    "__init__.py": '__version__ = "1"',
    "__main__.py": "from pickeropt.cli import main",
    "cli.py": "import typer\nfrom pickeropt import __version__\nfrom pickeropt.commands.console import show",
    "console.py": "import rich.table\nfrom pickeropt.evaluate.report import write",
    "demo.py": "from pickeropt.evaluate import report\nfrom pickeropt.prune.pruning import prune",
    "prune/run.py": "from . import config\nimport pickeropt, numpy\nfrom pickeropt.models.classifier import load",
    "models/backbone.py": "import timm\nfrom pickeropt.errors import CheckpointError",
    "io/star.py": "import starfile, pandas\nfrom pickeropt.io.text import read\nfrom ..records import Picks",
    "io/full.py": "x = 1\n" * 260,
    "io/tall.py": "def f():\n" + "    x = 1\n" * 59,
}


def test_what_is_allowed_is_no_breach(tmp_path):
    package = tmp_path / "pickeropt"
    for name, source in GOOD.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(source)
    assert violations(package) == []
