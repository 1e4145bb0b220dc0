"""Pruning without a model of one's own: the general model of the package, and what is said about it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_world import SPEC, random_model
from prune_world import make_project
from typer.testing import CliRunner

from pickeropt.cli import app
from pickeropt.datasets.simulate import SimulationConfig, labelled_points, make_species, simulate_micrographs
from pickeropt.errors import GeometryError
from pickeropt.models.classifier import general_checkpoint, load_checkpoint
from pickeropt.prune.prune_config import PruneConfig
from pickeropt.prune.pruning import prune
from pickeropt.prune.scoring import load_scorer
from pickeropt.records import DEFAULT_CLASSES, Micrograph

DIAMETER, PIXEL_SIZE = 200.0, 5.0
VISIBLE = SimulationConfig(
    shape=(768, 768),
    pixel_size=PIXEL_SIZE,
    diameter_angstrom=DIAMETER,
    occupancy=(0.2, 0.25),
    dose=(20.0, 25.0),
    contaminants=(1, 3),
    carbon_probability=1.0,
    filtered_probability=0.0,
)


def test_it_asks_for_the_diameter() -> None:
    with pytest.raises(GeometryError, match=r"general model .* --diameter \(Å\), or .* --model .*finetune"):
        load_scorer(None, "cpu")


def test_what_is_loaded() -> None:
    scorer = load_scorer(None, "cpu", 7, DIAMETER)
    assert (scorer.class_names, scorer.diameter_angstrom, scorer.config.batch_size) == (DEFAULT_CLASSES, DIAMETER, 7)
    assert scorer.digest == general_checkpoint().digest
    assert [("general model" in note, "pickeropt finetune" in note) for note in scorer.notes] == [(True, True)]


def test_particles_rank_above_everything_else() -> None:
    """The area under the curve is 1.00 against each class with the first weights shipped; 0.5 is chance."""
    species = tuple(kind for kind in make_species(0) if kind.name == "tetramer_d2")
    scorer = load_scorer(None, "cpu", diameter_angstrom=DIAMETER)
    scores, names = [], []
    for number, sim in enumerate(simulate_micrographs(VISIBLE, 2, seed=0, species=species)):
        points = labelled_points(sim, 40, np.random.default_rng(number))
        found = scorer.score(Micrograph(Path(f"{number}.mrc"), sim.pixels, None), points.coordinates, PIXEL_SIZE)
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
        scores.append(found[:, 0])
        names += points.class_names
    score, name = np.concatenate(scores), np.array(names)
    particles = score[name == "particle"]
    for other in DEFAULT_CLASSES[1:]:
        against = score[name == other]
        assert min(len(particles), len(against)) >= 20
        assert np.mean(particles[:, None] > against[None, :]) > 0.9, other


def test_the_summary_says_so(tmp_path: Path) -> None:
    picks = make_project(tmp_path, count=1, picks=4)
    config = PruneConfig(micrographs=(tmp_path / "mics",), out=tmp_path / "out")
    scorer = load_scorer(None, "cpu", diameter_angstrom=20.0)
    summary = prune([picks], config, scorer)
    assert summary.warnings[0] == scorer.notes[0]
    assert summary.picks == 4
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert scorer.notes[0] in written["warnings"]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`pickeropt prune picks` in a folder with micrographs and picks."""
    make_project(tmp_path, count=1, picks=4)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Any:
        line = ["prune", "picks", "--micrographs", "mics", "--device", "cpu", "--overwrite", *words]
        return CliRunner().invoke(app, line)

    return run


def model_used() -> str:
    digest: str = json.loads(Path("pruned/summary.json").read_text())["model_digest"]
    return digest


def test_the_command_without_a_model(command: Callable[..., Any]) -> None:
    result = command()
    assert result.exit_code == 2
    assert result.stderr.startswith("error: the general model has no particle diameter: give it with --diameter")
    assert not Path("pruned").exists()
    result = command("--diameter", "20")
    assert result.exit_code == 0
    assert "warning: the general model was used" in result.stdout
    assert "`pickeropt finetune`" in result.stdout
    assert model_used() == general_checkpoint().digest


def test_the_command_takes_the_model_that_is_there(command: Callable[..., Any]) -> None:
    path = random_model(Path("model.safetensors"), SPEC, 20.0)
    result = command()
    assert result.exit_code == 0
    assert "general model" not in result.stdout
    assert model_used() == load_checkpoint(path).digest
    own = random_model(Path("own"), SPEC, 24.0)
    assert command("--model", "own").exit_code == 0
    assert model_used() == load_checkpoint(own).digest != load_checkpoint(path).digest
    assert command("--model", "general", "--diameter", "20").exit_code == 0
    assert model_used() == general_checkpoint().digest
