"""Another threshold for a finished run: the same as pruning again, without a model."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prune_world import FakeScorer, coordinate_star, coordinates_of, make_micrographs, make_project, tree

from pickeropt import resumable as workspace
from pickeropt.errors import FormatError, OutputError, PickeroptError
from pickeropt.prune.prune_config import Filters, PruneConfig, ScorerConfig
from pickeropt.prune.pruning import prune
from pickeropt.prune.rethreshold import rethreshold
from pickeropt.pruned_run import OWN

CHANGES = {
    "plain": {},
    "scores written": {"write_score": True},
    "filters and prior": {
        "filters": Filters(max_std=1.1, min_distance=10),
        "prior": 0.6,
        "write_score": True,
    },
}


def config_for(root: Path, **changes: object) -> PruneConfig:
    return replace(PruneConfig(micrographs=(root / "mics",), out=root / "out"), **changes)  # type: ignore[arg-type]


def summary_of(out: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((out / "summary.json").read_text())
    found.pop("seconds")
    return found


def project(root: Path) -> Path:
    """Four files of picks and a RELION list of one more."""
    picks = make_project(root)
    make_micrographs(root / "mics", ["listed.mrc"])
    coordinate_star(root / "job/listed_autopick.star", coordinates_of("listed.mrc", 6))
    head = "data_coordinate_files\nloop_\n_rlnMicrographName #1\n_rlnMicrographCoordinates #2\n"
    (picks / "autopick.star").write_text(f"{head}mics/listed.mrc job/listed_autopick.star\n")
    return picks


@pytest.mark.parametrize("kind", CHANGES)
def test_it_is_the_same_as_pruning_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    picks = project(tmp_path)
    config = replace(config_for(tmp_path, **CHANGES[kind]), out=Path("out"))
    first = prune([picks], config, FakeScorer())
    before = tree(Path("out"))
    found = rethreshold(Path("out"), 0.6)
    after, written = tree(Path("out")), summary_of(Path("out"))
    assert after != before
    again = prune([picks], replace(config, threshold=0.6, overwrite=True), FakeScorer())
    assert after == tree(Path("out"))
    wanted = summary_of(Path("out"))
    wanted["settings"]["overwrite"] = False  # type: ignore[index]
    assert written == wanted
    assert replace(found, seconds=0) == replace(again, seconds=0)
    assert found.kept < first.kept
    rethreshold(tmp_path / "out/scores.csv", 0.5)  # and back, by another name
    assert {k: v for k, v in tree(Path("out")).items() if "autopick.star" not in k} == {
        k: v for k, v in before.items() if "autopick.star" not in k
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job", "mics", "out", "picks"]


def test_into_another_folder(tmp_path: Path) -> None:
    picks = make_project(tmp_path)
    prune([picks], config_for(tmp_path), FakeScorer())
    before = tree(tmp_path / "out")
    rethreshold(tmp_path / "out", 0.7, tmp_path / "strict")
    assert tree(tmp_path / "out") == before
    prune([picks], config_for(tmp_path, out=tmp_path / "fresh", threshold=0.7), FakeScorer())
    assert tree(tmp_path / "strict") == tree(tmp_path / "fresh")
    assert summary_of(tmp_path / "strict") == summary_of(tmp_path / "fresh") | {
        "out": str(tmp_path / "strict"),
        "settings": {**summary_of(tmp_path / "fresh")["settings"], "out": str(tmp_path / "strict")},  # type: ignore[dict-item]
    }
    with pytest.raises(OutputError, match="exists already"):
        rethreshold(tmp_path / "out", 0.8, tmp_path / "strict")
    rethreshold(tmp_path / "strict", 0.5, tmp_path / "back")
    assert tree(tmp_path / "back") == before


def test_nothing_kept_is_said_and_unsaid(tmp_path: Path) -> None:
    prune([make_project(tmp_path)], config_for(tmp_path), FakeScorer())
    assert [text for text in rethreshold(tmp_path / "out", 1.0).warnings if "every pick is rejected" in text]
    assert rethreshold(tmp_path / "out", 0.0).warnings == ()


def test_the_command_loads_no_model(tmp_path: Path) -> None:
    prune([make_project(tmp_path)], config_for(tmp_path), FakeScorer())
    code = (
        "import sys\nfrom pickeropt.cli import app\n"
        "try:\n    app(sys.argv[1:])\nfinally:\n    print('modules', *sys.modules, file=sys.stderr)"
    )
    words = ["prune", "--rethreshold", str(tmp_path / "out/scores.csv"), "--threshold", "0.7"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert "threshold 0.7" in done.stdout
    loaded = set(done.stderr.split("modules", 1)[1].split())
    assert "pickeropt.prune.rethreshold" in loaded
    assert not loaded & {"torch", "timm", "sklearn", "scipy", "pandas", "pickeropt.prune.pruning"}
    assert summary_of(tmp_path / "out")["threshold"] == 0.7


def users_files(out: Path) -> dict[str, bytes]:
    """What a user, or another program, put into the folder of a run."""
    (out / "Class2D").mkdir()
    (out / "Class2D/run.star").write_text("data_")
    (out / "labels.star").write_text("of the user")
    (out / "link").symlink_to("nowhere")
    return {"Class2D/run.star": b"data_", "labels.star": b"of the user"}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["exchanged", "copied"])
def test_killed_at_any_file_operation(tmp_path: Path, how: str) -> None:
    prune([make_project(tmp_path, count=2, picks=3)], config_for(tmp_path), FakeScorer())
    users_files(tmp_path / "out")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(Path(__file__).with_name("rethreshold_killed.py")), str(tmp_path), how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    *reports, old = map(json.loads, done.stdout.splitlines())
    assert [report["killed"] for report in reports] == [True] * (len(reports) - 1) + [False]
    new = reports[-1]["between"]
    assert new != old
    between = {report["between"] for report in reports}
    assert between <= {old, new, None, "without files of the user"}
    assert None not in between or how == "copied" or not can_exchange(tmp_path)
    assert {report["after"] for report in reports} == {new}
    assert all(set(report["left"]) <= {"before", "mics", "out", "picks"} for report in reports)
    assert len(reports) > 20


def can_exchange(folder: Path) -> bool:
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    return workspace._exchange(folder / "a", folder / "b")


def test_folders_are_exchanged(tmp_path: Path) -> None:
    if not can_exchange(tmp_path):
        pytest.skip("this file system cannot exchange two folders")
    (tmp_path / "a/of_a").touch()
    assert workspace._exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b/of_a").exists()
    assert not workspace._exchange(tmp_path / "a", tmp_path / "not there")


def test_where_folders_cannot_be_exchanged_the_new_one_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prune([make_project(tmp_path)], config_for(tmp_path), FakeScorer())
    rethreshold(tmp_path / "out", 0.7, tmp_path / "wanted")
    wanted = tree(tmp_path / "wanted") | users_files(tmp_path / "out")
    monkeypatch.setattr(workspace, "_exchange", lambda one, other: False)
    rename = Path.rename

    def die_between(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", die_between)
    with pytest.raises(KeyboardInterrupt):
        rethreshold(tmp_path / "out", 0.7)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(Path, "rename", rename)
    with (
        pytest.raises(OutputError, match="exists already"),
        workspace.open_workspace(tmp_path / "out", {}, overwrite=False, own=OWN),
    ):
        pass
    assert tree(tmp_path / "out") == wanted
    assert (tmp_path / "out/link").is_symlink()
    rethreshold(tmp_path / "out", 0.5)
    assert summary_of(tmp_path / "out")["threshold"] == 0.5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mics", "out", "picks", "wanted"]


def test_an_old_one_left_aside_comes_back(out: Path) -> None:
    before = tree(out)
    (out.parent / "out.partial").mkdir()
    out.rename(out.parent / "out.partial/old")
    with pytest.raises(PickeroptError, match="the threshold is 2"):
        rethreshold(out, 2.0)
    rethreshold(out, 0.5)
    assert tree(out) == before
    assert not (out.parent / "out.partial").exists()


def test_what_the_user_put_into_the_folder_stays(out: Path) -> None:
    before = tree(out)
    users = users_files(out)
    assert rethreshold(out, 0.7).warnings == ()
    assert tree(out) == tree(out) | users
    assert (out / "link").is_symlink()
    (out / "evaluation.json").write_text("{}")
    (out / "pr_curve.png").write_bytes(b"")
    found = rethreshold(out, 0.5)
    assert tree(out) == before | users | {"evaluation.json": b"{}", "pr_curve.png": b""}
    assert "evaluation.json and pr_curve.png in the folder are of the former run" in found.warnings[-1]
    (out / "pr_curve.png").unlink()
    config = config_for(out.parent, overwrite=True)
    assert "evaluation.json in the folder is of" in prune([out.parent / "picks"], config, FakeScorer()).warnings[-1]
    assert tree(out) == before | users | {"evaluation.json": b"{}"}
    assert not (out.parent / "out.partial").exists()


def test_what_cannot_be_moved_over_stays_and_so_does_the_run(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users_files(out)
    before = tree(out)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "labels.star" and Path(target).parent.name == "new":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match="cannot be written"):
        rethreshold(out, 0.7)
    assert tree(out) == before
    assert not (out.parent / "out.partial").exists()


def test_what_was_left_aside_is_not_written_over(out: Path) -> None:
    left = out.parent / "out.partial/new"
    left.mkdir(parents=True)
    (left / "labels.star").write_text("left aside")
    (out / "labels.star").write_text("written since")
    with pytest.raises(OutputError, match=r"out\.partial/new/labels\.star: a killed run left it"):
        rethreshold(out, 0.7)
    assert (left / "labels.star").read_text() == "left aside"
    (out / "labels.star").unlink()
    rethreshold(out, 0.7)
    assert (out / "labels.star").read_text() == "left aside"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    prune([make_project(tmp_path)], config_for(tmp_path), FakeScorer())
    return tmp_path / "out"


def test_inputs_that_changed_or_went(out: Path) -> None:
    before = tree(out)
    path = out.parent / "picks/m0_autopick.star"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0.5\n", b"0.6\n"))
    with pytest.raises(OutputError, match=r"m0_autopick\.star: has changed since the run read it; prune once"):
        rethreshold(out, 0.7)
    path.unlink()
    with pytest.raises(OutputError, match=r"m0_autopick\.star: the run read it, but it is gone"):
        rethreshold(out, 0.7)
    path.write_bytes(content)
    assert tree(out) == before
    rethreshold(out, 0.7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [lines[0], *sorted(lines[1:], reverse=True)], "it was sorted or changed"),
        (lambda lines: lines[:-1], "it was cut or changed"),
        (lambda lines: [*lines[:-1], lines[-1][:-3]], "values where the header names 12"),
        (lambda lines: [lines[0].replace("score", "points"), *lines[1:]], "no column 'score'"),
        (lambda lines: [lines[0], lines[1].replace(",0.", ",7."), *lines[2:]], "is outside 0 to 1"),
        (lambda lines: [lines[0], lines[1].replace(",0.", ",x."), *lines[2:]], "is not a number"),
        (
            lambda lines: [lines[0], re.sub(",(ice|carbon|particle),", ",?,", lines[1]), *lines[2:]],
            "is none of",
        ),
    ],
)
def test_a_table_that_was_changed(out: Path, change, message: str) -> None:
    path = out / "scores.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    before = tree(out)
    with pytest.raises(FormatError, match=message):
        rethreshold(out, 0.7)
    assert tree(out) == before


def test_what_is_no_finished_run(out: Path) -> None:
    with pytest.raises(OutputError, match="is no finished pruning"):
        rethreshold(out.parent / "picks", 0.7)
    with pytest.raises(PickeroptError, match=r"the threshold is 1\.5"):
        rethreshold(out, 1.5)
    content = json.loads((out / "summary.json").read_text())
    del content["files"]
    (out / "summary.json").write_text(json.dumps(content))
    with pytest.raises(OutputError, match="does not say which files the run read; it is of an earlier pickeropt"):
        rethreshold(out, 0.7)
    (out / "summary.json").write_text("{")
    with pytest.raises(OutputError, match="cannot be read"):
        rethreshold(out, 0.7)


def test_an_unfinished_run_on_top_is_not_thrown_away(out: Path) -> None:
    record = out.with_name("out.partial") / "records/abc.npy"
    record.parent.mkdir(parents=True)
    np.save(record, np.zeros(3))
    with pytest.raises(OutputError, match="an unfinished run for"):
        rethreshold(out, 0.7)
    assert record.exists()


def paths_in(path: Path) -> list[str]:
    """The coordinate files that a list names."""
    return [line.split()[1] for line in path.read_text().splitlines() if line.endswith("_autopick.star")]


def test_in_place_from_another_folder_only_rows_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proj").mkdir()
    monkeypatch.chdir(tmp_path / "proj")
    picks = project(Path())
    prune([picks], PruneConfig(micrographs=(Path("mics"),), out=Path("pruned")), FakeScorer())
    first = json.loads(Path("pruned/summary.json").read_text())
    rethreshold(Path("pruned"), 0.7)
    here = tree(Path("pruned"))
    rethreshold(Path("pruned"), 0.5)
    monkeypatch.chdir(tmp_path)
    found = rethreshold(Path("proj/pruned"), 0.7)
    assert found.out == Path("proj/pruned")
    assert tree(Path("proj/pruned")) == here
    assert paths_in(Path("proj/pruned/kept/autopick.star")) == ["pruned/kept/job/listed_autopick.star"]
    after = json.loads(Path("proj/pruned/summary.json").read_text())
    for name in ("folder", "inputs", "out"):
        assert after[name] == first[name]
    assert after["settings"] == {**first["settings"], "threshold": 0.7}


@pytest.mark.parametrize("moved", [False, True])
def test_from_another_folder_the_new_run_is_told_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    (tmp_path / "proj").mkdir()
    monkeypatch.chdir(tmp_path / "proj")
    picks = project(Path())
    config = PruneConfig(micrographs=(Path("mics"),), out=Path("pruned"))
    prune([picks], config, FakeScorer(config=ScorerConfig(Path("m.safetensors"))))
    monkeypatch.chdir(tmp_path)
    if moved:
        Path("proj/pruned").rename("strict")
        rethreshold(Path("strict"), 0.7)
    else:
        rethreshold(Path("proj/pruned"), 0.7, Path("strict"))
    assert paths_in(Path("strict/kept/autopick.star")) == ["strict/kept/job/listed_autopick.star"]
    said = json.loads(Path("strict/summary.json").read_text())
    assert (said["folder"], said["out"], said["settings"]["out"]) == (str(tmp_path), "strict", "strict")
    assert said["inputs"] == [str(tmp_path / "proj/picks")]
    assert said["settings"]["micrographs"] == [str(tmp_path / "proj/mics")]
    assert said["settings"]["model"] == str(tmp_path / "proj/m.safetensors")
    assert said["settings"]["picker_shots"] is None
