"""The names other programs may use, and the promises about all of them."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pickeropt
from pickeropt import errors

ROOT = Path(__file__).parents[1]

FUNCTIONS = {
    "pickeropt.shots.read_labelled_star": "path, micrographs",
    "pickeropt.shots.read_class_files": "files, micrographs",
    "pickeropt.shots.read_class_boxes": "folder",
    "pickeropt.finetune.finetuning.finetune": "shots, config, out, *, overwrite, on_progress",
    "pickeropt.prune.pruning.prune": "inputs, config, scorer, *, on_progress, finish",
    "pickeropt.prune.scoring.load_scorer": "path, device, batch_size, diameter_angstrom",
    "pickeropt.evaluate.evaluation.evaluate_scores": "scores_csv, truth, radius, *, diameter_px",
    "pickeropt.evaluate.evaluation.write_evaluation": "evaluation, out",
    "pickeropt.io.picks.read_picks": "path",
    "pickeropt.io.picks.subset": "file, keep",
    "pickeropt.io.micrographs.read_micrograph": "path",
    "pickeropt.demonstration.run_demo": "out, seed, on_stage",
    "pickeropt.cli.main": "",
}
"""What is called from Python, with its parameters; ``*`` begins those given by name."""

RECORDS = {
    "pickeropt.records.Micrograph": "path pixels pixel_size",
    "pickeropt.records.Picks": "coordinates micrograph_names micrograph_index figure_of_merit class_names pixel_size",
    "pickeropt.records.Scores": "class_names probabilities",
}


def find(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def parameters(function):
    names = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in names:
            names.append("*")
        names.append(parameter.name)
    return ", ".join(names)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    function = find(name)
    assert parameters(function) == FUNCTIONS[name]
    assert inspect.getdoc(function)


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_frozen_and_have_these_fields(name):
    record = find(name)
    assert [field.name for field in dataclasses.fields(record)] == RECORDS[name].split()
    assert record.__dataclass_params__.frozen


@pytest.mark.parametrize(
    "name", ["pickeropt.finetune.finetune_config.FinetuneConfig", "pickeropt.prune.prune_config.PruneConfig"]
)
def test_configs_are_frozen(name):
    assert find(name).__dataclass_params__.frozen


def test_every_module_imports_and_says_what_it_is():
    names = [module.name for module in pkgutil.walk_packages(pickeropt.__path__, "pickeropt.")]
    assert len(names) > 30
    modules = [importlib.import_module(name) for name in names]
    assert [m.__name__ for m in modules if not m.__doc__ and not hasattr(m, "__path__")] == []


def test_the_tree_of_errors_is_the_one_in_the_docstring():
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__)
    defined = [error.__name__ for error in errors.PickeroptError.__subclasses__()]
    assert drawn == defined
    assert issubclass(errors.PickeroptError, Exception)
    for name in drawn:
        assert getattr(errors, name).__doc__


def test_the_changelog_begins_with_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", changelog, re.M)[1] == pickeropt.__version__


def test_the_package_is_typed():
    assert (Path(pickeropt.__file__).parent / "py.typed").is_file()


def test_importing_the_package_imports_nothing_else():
    code = "import sys, pickeropt; print(*[m for m in sys.modules if m in ('numpy', 'torch', 'typer')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
