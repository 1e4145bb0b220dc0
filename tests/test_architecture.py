"""Who may import whom, no circles, unique names, and how long files and functions may be: read from the source."""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pickeropt"

LAYERS = (
    ("__main__",),
    ("cli",),
    ("commands",),
    ("demonstration",),
    ("benchmark",),
    ("pretrain", "pickers"),
    ("datasets",),
    ("api",),
    ("label", "report", "relion"),
    ("prune",),
    ("finetune",),
    ("frame", "convert", "evaluate", "shots"),
    ("sites", "pruned_run", "resumable", "display"),
    ("models",),
    ("io",),
    ("files",),
    ("records",),
    ("errors",),
    ("__init__",),
)
"""Rooms from top to bottom. A room imports itself and rooms below its own line, never one beside it."""

LAB = ("demonstration", "benchmark", "pretrain", "pickers", "datasets")
"""What nobody needs to prune. Core never imports it: the layers put it above all core rooms but the commands."""

ONLY_IN = {
    "typer": ("cli", "commands"),
    "click": (),
    "rich": ("cli", "commands"),
    "timm": ("models",),
    "starfile": ("io",),
    "pandas": ("io",),
    "mrcfile": ("io",),
    "fastapi": ("label", "report"),
    "pickle": ("io",),
    "gemmi": ("datasets",),
}
"""Which rooms may import these packages."""

MOST_LINES = 500
MOST_FUNCTION_LINES = 60


def violations(package: Path) -> list[str]:
    """Every breach in a package, each with its file and line."""
    files = sorted(package.rglob("*.py"))
    trees = {path.relative_to(package): ast.parse(path.read_text(encoding="utf-8")) for path in files}
    single = [breach for place, tree in trees.items() for breach in _of_file(package.name, place, tree)]
    long = [breach for path in (*files, *sorted(package.rglob("*.js"))) for breach in _too_long(package, path)]
    return [*long, *single, *_circles(package.name, trees), *_doubled(trees)]


def _too_long(package: Path, path: Path) -> Iterator[str]:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > MOST_LINES:
        yield f"{path.relative_to(package)}: {lines} lines, {MOST_LINES} is the most"


def _of_file(package: str, place: Path, tree: ast.Module) -> Iterator[str]:
    room = place.parts[0].removesuffix(".py")
    if place.name == "utils.py":
        yield f"{place}: no utils.py"
    if _layer(room) is None:
        yield f"{place}: room {room} is in no layer"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MOST_FUNCTION_LINES:
                what = f"{node.name} has {length} lines"
                yield f"{place}:{node.lineno}: {what}, {MOST_FUNCTION_LINES} is the most"
        for module in _imported(node, (package, *place.with_suffix("").parts)):
            breach = _breach(room, module, package)
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
    if not target or target.startswith("__") or room == "__init__":  # the package itself; its public face
        return None
    if theirs is None:
        return f"{room} imports {target}, which is in no layer"
    if target == room or (mine is not None and mine < theirs):
        return None
    return f"{room} imports {target}"


def _layer(room: str) -> int | None:
    return next((depth for depth, rooms in enumerate(LAYERS) if room in rooms), None)


def _circles(package: str, trees: Mapping[Path, ast.Module]) -> Iterator[str]:
    """Files that import each other, inside a room too, in functions and under TYPE_CHECKING too."""
    places = {_module(package, place): place for place in trees}
    imports = {
        module: sorted(set(_targets(package, trees[place], place, places)) - {module, package})
        for module, place in places.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> Iterator[str]:
        if module in path:
            circle = [str(places[name]) for name in path[path.index(module) :]]
            yield f"circle: {' -> '.join([*circle, circle[0]])}"
        elif module not in done:
            for target in imports[module]:
                yield from visit(target, (*path, module))
            done.add(module)

    for module in imports:
        yield from visit(module, ())


def _module(package: str, place: Path) -> str:
    return ".".join((package, *place.with_suffix("").parts)).removesuffix(".__init__")


def _targets(package: str, tree: ast.Module, place: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """Modules of the package that a file imports; the public face is no module that others may need."""
    if place == Path("__init__.py"):
        return
    for node in ast.walk(tree):
        for name in _imported(node, (package, *place.with_suffix("").parts)):
            for candidate in (name, name.rpartition(".")[0]):
                if candidate in known:
                    yield candidate
                    break


def _doubled(trees: Mapping[Path, ast.Module]) -> Iterator[str]:
    """Files of one name, and public or private classes of one name."""
    files = Counter(place.name for place in trees if place.name != "__init__.py")
    yield from (f"{name}: {count} files have this name" for name, count in sorted(files.items()) if count > 1)
    classes = defaultdict(list)
    for place, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(str(place))
    for name, places in sorted(classes.items()):
        if len(places) > 1:
            yield f"class {name}: in {', '.join(places)}"


def test_the_package_keeps_its_layers():
    assert violations(PACKAGE) == []


def test_the_package_was_found():
    assert len(list(PACKAGE.rglob("*.py"))) > 30


def test_core_never_imports_the_lab():
    lab = max(_layer(room) for room in LAB)
    core = [room for rooms in LAYERS[lab + 1 :] for room in rooms]
    assert {"label", "prune", "finetune", "io", "errors"} <= set(core)
    assert not set(core) & set(LAB)


BAD = {
    "errors.py": ("from pickeropt.records import Picks", "errors.py:1: errors imports records"),
    "records.py": ("import pickle", "records.py:1: records imports pickle"),
    "io/star.py": ("def read():\n    from pickeropt import shots", "io/star.py:2: io imports shots"),
    "io/deep/down.py": ("from ...models.backbone import Backbone", "io/deep/down.py:1: io imports models"),
    "datasets/shots.py": ("import starfile", "datasets/shots.py:1: datasets imports starfile"),
    "datasets/cut.py": ("import pandas as pd", "datasets/cut.py:1: datasets imports pandas"),
    "models/twin.py": ("import pickeropt.sites", "models/twin.py:1: models imports sites"),
    "models/atoms.py": ("import gemmi", "models/atoms.py:1: models imports gemmi"),
    "models/head.py": ("import rich.table", "models/head.py:1: models imports rich"),
    "resumable.py": ("from timm import create_model", "resumable.py:1: resumable imports timm"),
    "finetune/fit.py": (
        "from pickeropt.prune.pruning import prune",
        "finetune/fit.py:1: finetune imports prune",
    ),
    "prune/run.py": ("from ..pretrain import run", "prune/run.py:1: prune imports pretrain"),
    "label/run.py": ("from pickeropt import datasets", "label/run.py:1: label imports datasets"),
    "prune/score.py": ("if 1:\n    from mrcfile import open", "prune/score.py:2: prune imports mrcfile"),
    "evaluate/late.py": (
        "from pickeropt import demonstration",
        "evaluate/late.py:1: evaluate imports demonstration",
    ),
    "demonstration.py": ("import typer", "demonstration.py:1: demonstration imports typer"),
    "commands/console.py": ("from pickeropt.cli import app", "commands/console.py:1: commands imports cli"),
    "shed.py": ("", "shed.py: room shed is in no layer"),
    "cli.py": ("import pickeropt.attic", "cli.py:1: cli imports attic, which is in no layer"),
    "io/utils.py": ("", "io/utils.py: no utils.py"),
    "io/long.py": ("x = 1\n" * 501, "io/long.py: 501 lines, 500 is the most"),
    "label/page/long.js": ("let x\n" * 501, "label/page/long.js: 501 lines, 500 is the most"),
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


@pytest.mark.parametrize("late", ["", "def f():\n    ", "if TYPE_CHECKING:\n    "])
def test_a_circle_within_a_room_is_found(tmp_path, late):
    room = tmp_path / "pickeropt" / "io"
    room.mkdir(parents=True)
    (room / "a.py").write_text("from pickeropt.io.b import x")
    (room / "b.py").write_text("from pickeropt.io import c")
    (room / "c.py").write_text(f"{late}from pickeropt.io.a import y")
    assert violations(tmp_path / "pickeropt") == ["circle: io/a.py -> io/b.py -> io/c.py -> io/a.py"]


def test_names_that_are_used_twice_are_found(tmp_path):
    for room, source in (("io", "class Table: pass"), ("prune", "def f():\n    class Table: pass")):
        (tmp_path / "pickeropt" / room).mkdir(parents=True)
        (tmp_path / "pickeropt" / room / "table.py").write_text(source)
    assert violations(tmp_path / "pickeropt") == [
        "table.py: 2 files have this name",
        "class Table: in io/table.py, prune/table.py",
    ]


GOOD = {
    "__init__.py": '__version__ = "1"\ndef f():\n    from pickeropt.prune.run import prune',
    "__main__.py": "from pickeropt.cli import main",
    "cli.py": "import typer\nfrom pickeropt import __version__\nfrom pickeropt.commands.console import show",
    "commands/console.py": "import rich.table\nfrom pickeropt.evaluate.report import write",
    "demonstration.py": "from pickeropt.evaluate import report\nfrom pickeropt.prune.run import prune",
    "prune/run.py": "from . import config\nimport pickeropt, numpy\nfrom pickeropt.models.classifier import load",
    "models/backbone.py": "import timm\nfrom pickeropt.errors import CheckpointError",
    "io/star.py": "import starfile, pandas\nfrom pickeropt.io.text import read\nfrom ..records import Picks",
    "io/full.py": "x = 1\n" * 500,
    "io/tall.py": "def f():\n" + "    x = 1\n" * 59,
}


def test_what_is_allowed_is_no_breach(tmp_path):
    package = tmp_path / "pickeropt"
    for name, source in GOOD.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(source)
    assert violations(package) == []
