"""The names other programs may use, and the promises about all of them."""

import dataclasses
import doctest
import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from public_world import DIAMETER, PIXEL_SIZE, make_world

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
    "pickeropt.io.picks.read_picks": "path, content",
    "pickeropt.io.picks.subset": "file, keep",
    "pickeropt.io.micrographs.read_micrograph": "path, header",
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


# ---------------------------------------------------------------- the public face


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of the examples, with a model and a pruning."""
    root = tmp_path_factory.mktemp("project")
    make_world(root)
    here = Path.cwd()
    os.chdir(root)
    try:
        labels = pickeropt.read_labels("labels.star", micrographs="micrographs")
        model = pickeropt.finetune(labels, diameter=DIAMETER, device="cpu", out="model.safetensors")
        picks = pickeropt.read_picks("picks.star", micrographs="micrographs")
        pickeropt.prune(picks, model, out="pruned")
    finally:
        os.chdir(here)
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current folder."""
    shutil.copytree(made, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    summary = Path("pruned/summary.json")
    summary.write_text(summary.read_text().replace(str(made), str(tmp_path / "project")))
    return tmp_path / "project"


def examples() -> Iterator[doctest.DocTest]:
    """Of every public name, and of the methods that are its own."""
    finder = doctest.DocTestFinder(exclude_empty=False)
    for name in pickeropt.__all__:
        found = getattr(pickeropt, name)
        module = sys.modules[found.__module__]
        for test in finder.find(found, name, module=module, globs={"pickeropt": pickeropt}):
            if not test.name.rpartition(".")[2].startswith("_"):
                yield test


@pytest.mark.parametrize("test", list(examples()), ids=lambda test: test.name)
def test_every_public_docstring_has_an_example_that_runs(test: doctest.DocTest, project: Path) -> None:
    assert test.docstring
    if test.name == "PickeroptError":
        return
    assert test.examples, f"{test.name} has no example"
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert not result.failed, "".join(report)


def test_the_documentation_has_every_public_name_and_no_other() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    if "<!-- public names -->" not in page:  # where the build puts an entry for each of `__all__`
        assert set(re.findall(r"^::: pickeropt\.(\w+)$", page, re.M)) == set(pickeropt.__all__)
    called = set(re.findall(r"pickeropt\.(\w+)", " ".join(re.findall(r"```python\n(.*?)```", page, re.S))))
    assert called <= set(pickeropt.__all__)
    functions = {name for name in pickeropt.__all__ if inspect.isfunction(getattr(pickeropt, name))}
    assert functions - called <= {"convert"}


def test_public_names_are_there_whatever_was_imported_before() -> None:
    """Four of them are also the names of rooms, which an import would bind in their place."""
    code = (
        "import pickeropt, pickeropt.prune.pruning, pickeropt.finetune.finetuning\n"
        "from pickeropt.evaluate.evaluation import evaluate_scores\n"
        "from pickeropt.convert.conversion import convert\n"
        "assert all(callable(getattr(pickeropt, name)) for name in pickeropt.__all__)\n"
        "assert pickeropt.prune.__module__ == 'pickeropt.api'\n"
        "assert set(pickeropt.__all__) <= set(dir(pickeropt))\n"
        "from pickeropt import *\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'prone'"):
        pickeropt.prone  # noqa: B018


def test_import_takes_less_than_a_tenth_of_a_second() -> None:
    code = (
        "import time; start = time.process_time(); import pickeropt; print(time.process_time() - start)\n"
        "import sys; assert 'torch' not in sys.modules"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.1


def test_read_picks_score_and_prune_agree(project: Path) -> None:
    model = pickeropt.Model.load("model.safetensors")
    picks = pickeropt.read_picks("picks.star", micrographs="micrographs")
    scores = model.score(picks)
    run = pickeropt.prune(picks, model, out="again", threshold=0.5)
    assert (run.picks, run.kept) == (len(picks), int((scores.particle >= 0.5).sum()))
    table = picks.to_pandas().join(scores.to_pandas())
    assert list(table.columns) == ["file", "row", "micrograph", "x", "y", "figure_of_merit", *model.class_names]
    again = pickeropt.prune("picks.star", model, out="third", micrographs="micrographs")
    assert again.kept == run.kept
    for name in ("kept/picks.star", "rejected/picks.star", "scores.csv"):
        assert Path("again", name).read_bytes() == Path("third", name).read_bytes()
    with pytest.raises(pickeropt.PickeroptError, match="give the folders to read_picks"):
        pickeropt.prune(picks, model, out="fourth", micrographs="micrographs")


def test_an_array_is_scored_as_its_micrograph(project: Path) -> None:
    import mrcfile

    model = pickeropt.Model.load("model.safetensors")
    picks = pickeropt.read_picks("picks.star", micrographs="micrographs")
    site = picks.sited.sites[0]
    pixels = mrcfile.read(site.path)
    found = model.score_array(pixels, picks.coordinates[site.rows], pixel_size=PIXEL_SIZE)
    np.testing.assert_array_equal(found.probabilities, model.score(picks).probabilities[site.rows])
    for bad, error in (
        ((pixels[0], picks.coordinates), "give \\(h, w\\) pixels"),
        ((pixels, picks.coordinates.T), "give \\(h, w\\) pixels"),
        ((np.full_like(pixels, np.nan), picks.coordinates), "not finite"),
        ((np.zeros_like(pixels), picks.coordinates), "constant"),
    ):
        with pytest.raises(pickeropt.PickeroptError, match=error):
            model.score_array(*bad, pixel_size=PIXEL_SIZE)
    with pytest.raises(pickeropt.PickeroptError, match="pixel size is -1"):
        model.score_array(pixels, picks.coordinates, pixel_size=-1)


def test_a_model_is_saved_as_it_was_written(project: Path) -> None:
    model = pickeropt.Model.load("model.safetensors")
    model.save("copy.safetensors")
    assert Path("copy.safetensors").read_bytes() == Path("model.safetensors").read_bytes()
    assert pickeropt.Model.load("copy.safetensors").scorer.digest == model.scorer.digest
    with pytest.raises(pickeropt.PickeroptError, match="exists"):
        model.save("copy.safetensors")
    model.save("copy.safetensors", overwrite=True)
    with pytest.raises(pickeropt.PickeroptError, match="general model"):
        pickeropt.Model.load(diameter=DIAMETER).save("general.safetensors")


def test_filters_are_given_by_their_names(project: Path) -> None:
    model = pickeropt.Model.load("model.safetensors")
    run = pickeropt.prune("picks.star", model, out="far", micrographs="micrographs", min_distance=150.0)
    assert run.picks == run.kept + run.rejected
    assert "filter" in Path("far/scores.csv").read_text().splitlines()[0].split(",")
    assert json.loads(Path("far/summary.json").read_text())["settings"]["filters"]["min_distance"] == 150.0
    with pytest.raises(TypeError, match="min_distanse"):
        pickeropt.prune("picks.star", model, min_distanse=150.0)


def test_labels_are_read_by_class(project: Path) -> None:
    for number, name in enumerate(("particle", "background")):
        rows = "".join(f"micrographs/m0.mrc {100 + 60 * number + 20 * i} {100 + 9 * i}\n" for i in range(3))
        head = "data_\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
        Path(f"{name}.star").write_text(head + rows)
    by_class = {"particle": "particle.star", "background": "background.star"}
    labels = pickeropt.read_labels(by_class, micrographs="micrographs")
    assert (labels.class_names, labels.labels.tolist()) == (("particle", "background"), [0, 0, 0, 1, 1, 1])


@pytest.mark.slow
def test_the_notebook_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specification = importlib.util.spec_from_file_location("run_notebook", ROOT / "docs" / "run_notebook.py")
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    notebook = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
    saved = [len(cell["outputs"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    monkeypatch.chdir(tmp_path)
    script.run_cells(notebook)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [len(cell["outputs"]) for cell in cells] == saved
    drawn = [output for cell in cells for output in cell["outputs"] if "image/png" in output.get("data", {})]
    assert len(drawn) >= 2
