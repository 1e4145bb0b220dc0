"""Long jobs: one at a time, stopped, failing; and suggest, fine-tune, prune and threshold for real."""

import json
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from label_world import config_of, label, make_world, post, rows_of, serving

from pickeropt.commands.label import _with_report
from pickeropt.datasets.simulate import SimulationConfig, labelled_points, make_species, simulate_micrographs
from pickeropt.errors import ShotsError
from pickeropt.finetune import finetuning
from pickeropt.io.micrographs import write_mrc
from pickeropt.label.active_learning import Suggester
from pickeropt.label.jobs import Jobs
from pickeropt.pruned_run import KINDS, NUMBERS

CLASSES = ("particle", "background", "carbon")


def test_one_job_at_a_time_with_progress(tmp_path):
    jobs, go = Jobs(), threading.Event()

    def work(on_progress):
        on_progress("looking", 3, 7)
        go.wait(10)
        return "all well"

    assert jobs.state() is None
    assert jobs.start("suggest", work)["state"] == "running"
    with pytest.raises(Exception, match="suggest is running"):
        jobs.start("prune", work)
    wait_for(lambda: jobs.state()["what"] == "looking")
    assert (jobs.state()["done"], jobs.state()["total"]) == (3, 7)
    go.set()
    jobs.wait(10)
    assert (jobs.state()["state"], jobs.state()["text"], jobs.state()["error"]) == ("done", "all well", None)
    jobs.start("prune", work)
    jobs.wait(10)
    assert jobs.state()["kind"] == "prune"
    assert jobs.state()["number"] == 2  # the page tells jobs apart by it


def test_a_job_is_stopped_at_its_next_word():
    jobs, seen = Jobs(), []

    def work(on_progress):
        for i in range(1000):
            on_progress("working", i, 1000)
            seen.append(i)
            time.sleep(0.01)
        return "never"

    jobs.start("finetune", work)
    wait_for(lambda: seen)
    jobs.stop()
    jobs.wait(10)
    assert (jobs.state()["state"], jobs.state()["error"]) == ("failed", "stopped")
    assert len(seen) < 1000


def test_a_fault_is_one_line(capsys):
    jobs = Jobs()
    for error, shown in (
        (ShotsError("too few;\nlabel more"), "too few; label more"),
        (KeyError("x"), "KeyError: 'x'"),
    ):

        def work(on_progress, error=error):
            raise error

        jobs.start("finetune", work)
        jobs.wait(10)
        assert jobs.state()["state"] == "failed"
        assert jobs.state()["error"].startswith(shown)
    assert "Traceback" in capsys.readouterr().err  # of the second, which is a bug


def wait_for(done, seconds=60.0):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def simulated(folder):
    """Micrographs with points of three classes, a STAR file of them, and their classes in its order."""
    config = SimulationConfig(
        shape=(256, 288),
        pixel_size=5.0,
        diameter_angstrom=200.0,
        occupancy=(0.2, 0.25),
        dose=(20.0, 25.0),
        carbon_probability=1.0,
        carbon_kinds=("straight_edge",),
        filtered_probability=0.0,
        contaminants=(0, 0),
    )
    barrel = tuple(species for species in make_species(0) if species.name == "barrel_d7")
    rows, classes = [], []
    for number, sim in enumerate(simulate_micrographs(config, 3, seed=3, species=barrel)):
        write_mrc(folder / "micrographs" / f"m{number}.mrc", sim.pixels, 5.0)
        found = labelled_points(sim, 8, np.random.default_rng(number), margin=0.3)
        rows += [f"m{number}.mrc {x:.3f} {y:.3f}" for x, y in found.coordinates.tolist()]
        classes += found.class_names
    head = ["data_", "loop_", "_rlnMicrographName", "_rlnCoordinateX", "_rlnCoordinateY"]
    (folder / "picks.star").write_text("\n".join([*head, *rows, ""]))
    return folder / "picks.star", classes


def run(client, path, body):
    """Start a job and wait for its end."""
    assert post(client, path, body, 202)["job"]["state"] == "running"
    wait_for(lambda: client.get("/api/job").json()["state"] != "running", 400)
    job = client.get("/api/job").json()
    assert job["state"] == "done", job
    return job["text"]


def test_the_model_is_fitted_again_after_a_handful_of_labels(tmp_path, monkeypatch):
    fits = []
    monkeypatch.setattr(Suggester, "_fit", lambda self, classifier: fits.append(len(self._session.store.labels)))
    with serving(make_world(tmp_path), config_of(tmp_path)) as (server, client):
        label(client, *((key, "particle") for key in range(6)))
        assert server.suggester.wait(10)
        assert fits == []  # no model yet: nothing was suggested
        server.suggester._classifier, server.suggester._names = object(), tuple(server.session.store.class_names)
        server.suggester._labels_fitted = 0
        label(client, (6, "carbon"))
        assert server.suggester.wait(10)
        assert fits == [7]
        label(client, (0, "carbon"), (1, "carbon"), (7, "carbon"))  # one label more, two others
        assert server.suggester.wait(10)
        assert fits == [7]


def test_suggest_finetune_prune_threshold_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr("pickeropt.label.active_learning.REFIT_AFTER", 1000)  # the other test's matter, and slow
    picks, truth = simulated(tmp_path)
    config = config_of(tmp_path, diameter_angstrom=200.0, trust_frame=True)
    with serving(picks, config, _with_report) as (_, client):
        assert run(client, "/api/suggest", {"count": 6}) == "6 boxes to label next"
        state = client.get("/api/state").json()
        assert state["suggested"] == 6
        assert state["model"]["estimate"]["enough"] is False
        first = client.get("/api/picks?order=suggested").json()["items"]
        assert len({item["micrograph"] for item in first}) > 1
        assert all(0 <= item["score"] <= 1 and item["guess"] for item in first)
        label(client, *((item["id"], truth[item["id"]]) for item in first))
        run(client, "/api/suggest", {"count": 6})
        second = {item["id"] for item in client.get("/api/picks?order=suggested").json()["items"]}
        assert not second & {item["id"] for item in first}
        assert client.get("/api/state").json()["model"]["labels"] == 6

        chosen = [i for name in CLASSES for i in [k for k, kind in enumerate(truth) if kind == name][:9]]
        label(client, *((key, truth[key]) for key in chosen))
        text = run(client, "/api/finetune", {})
        assert f"learnt from {len(rows_of(config.out))} labels" in text
        assert config.model_file.is_file()
        text = run(client, "/api/prune", {"threshold": 0.5})
        pruned = client.get("/api/state").json()["pruned"]
        assert pruned["kept"] + pruned["rejected"] == len(truth)
        assert (pruned["threshold"], pruned["out"]) == (0.5, str(config.pruned))
        check_kept(client, config, 0.5)
        assert "threshold 0.5" in (config.pruned / "report.html").read_text()
        guesses = [item["guess"] for item in client.get("/api/picks?limit=2000").json()["items"]]
        assert np.mean([guess == kind for guess, kind in zip(guesses, truth, strict=True)]) > 0.8

        said = post(client, "/api/threshold", {"threshold": 0.9})
        assert said["kept"] <= pruned["kept"]
        assert client.get("/api/state").json()["pruned"]["threshold"] == 0.9
        check_kept(client, config, 0.9)
        assert "threshold 0.9" in (config.pruned / "report.html").read_text()
        wrong = client.get("/api/picks?kept=rejected&limit=1").json()["items"][0]["id"]
        label(client, (wrong, "particle"))  # a correction is a shot
        assert len([r for r in rows_of(config.out) if r[3] == "particle"]) >= 9

    with serving(picks, config) as (_, client):  # what was pruned is there again
        assert client.get("/api/state").json()["pruned"]["threshold"] == 0.9
        check_kept(client, config, 0.9)

    moved = [line.replace("m0.mrc ", "m0.mrc 1") for line in picks.read_text().splitlines()]
    picks.write_text("\n".join([*moved, ""]))
    with serving(picks, config) as (_, client):  # but not of other picks
        assert client.get("/api/state").json()["pruned"] is None


def check_kept(client, config, threshold):
    """The page's kept and rejected are those of the files."""
    sides = {}
    for side in ("kept", "rejected"):
        items = client.get(f"/api/picks?kept={side}&limit=2000").json()["items"]
        sides[side] = [(f"{item['x']:.3f}", f"{item['y']:.3f}") for item in items]
        assert sides[side] == [tuple(row[1:3]) for row in rows_of(config.pruned / side / "picks.star")]
        assert all((item["score"] >= threshold) == (side == "kept") for item in items)
    histogram = client.get("/api/scores").json()
    above = round(threshold * 100)
    kept = sum(sum(counts[above:]) for counts in histogram["histogram"]["counts"].values())
    assert kept == len(sides["kept"])


def test_a_model_of_others_is_kept_and_ones_own_is_replaced(tmp_path, monkeypatch):
    """That of another day, and what the command wrote meanwhile; none is touched where the fit fails."""
    failing = []

    def learn(shots, settings, out, *, overwrite, on_progress):
        assert overwrite
        assert settings.shots_per_class is None
        if failing:
            raise ShotsError(failing[0])
        out.write_text(f"learnt from {len(shots)}")
        counts = {"particle": len(shots)}
        return SimpleNamespace(train_shots=counts, validation_shots={}, macro_f1=0.5, warnings=("mind this",))

    monkeypatch.setattr(finetuning, "finetune", learn)
    config = config_of(tmp_path)
    config.model_file.parent.mkdir()
    config.model_file.write_text("of another day")
    (tmp_path / "out" / "model-1.safetensors").write_text("older")
    with serving(make_world(tmp_path), config) as (_, client):
        label(client, (0, "particle"), (1, "particle"), (4, "carbon"), (5, "carbon"))
        text = run(client, "/api/finetune", {})
        assert f"{config.model_file} learnt from 4 labels, macro-F1 0.50" in text
        assert "the earlier one is now" in text
        assert text.endswith("; mind this")
        assert "earlier" not in run(client, "/api/finetune", {})
        config.model_file.write_text("of the command, meanwhile")
        assert "the earlier one is now" in run(client, "/api/finetune", {})
        config.model_file.write_text("of the command, once more")
        failing.append("no more")
        post(client, "/api/finetune", {}, 202)
        wait_for(lambda: client.get("/api/job").json()["state"] == "failed")
    files = {path.name: path.read_text() for path in config.out.parent.glob("*.safetensors")}
    assert files == {
        "model.safetensors": "of the command, once more",
        "model-1.safetensors": "older",
        "model-2.safetensors": "of another day",
        "model-3.safetensors": "of the command, meanwhile",
    }


def test_too_few_labels_are_said_in_one_line(tmp_path):
    with serving(make_world(tmp_path), config_of(tmp_path)) as (_, client):
        label(client, (0, "particle"))
        post(client, "/api/finetune", {}, 202)
        wait_for(lambda: client.get("/api/job").json()["state"] != "running")
        job = client.get("/api/job").json()
        assert (job["state"], "only the class 'particle'" in job["error"]) == ("failed", True)


@pytest.mark.parametrize(
    ("model", "files", "said"),
    [
        ("/somewhere/else.safetensors", ["picks.star"], "is not of this model"),
        (None, ["picks.star", "other.star"], "is not of these picks"),
        (None, ["folder/picks.star"], "is not of these picks"),
    ],
)
def test_a_pruning_of_another_model_or_of_other_picks_is_not_replaced(tmp_path, model, files, said):
    config = config_of(tmp_path)
    config.pruned.mkdir(parents=True)
    summary = {
        **dict.fromkeys(NUMBERS, 0),
        **{name: kind() for name, kind in KINDS.items()},
        "settings": {"model": model},
        "files": [{"name": name, "path": str(tmp_path / name)} for name in files],
    }
    (config.pruned / "summary.json").write_text(json.dumps(summary))
    with serving(make_world(tmp_path), config) as (_, client):
        assert client.get("/api/state").json()["pruned"] is None
        post(client, "/api/prune", {"threshold": 0.5}, 202)
        wait_for(lambda: client.get("/api/job").json()["state"] != "running")
        assert said in client.get("/api/job").json()["error"]
    assert [path.name for path in config.pruned.iterdir()] == ["summary.json"]
