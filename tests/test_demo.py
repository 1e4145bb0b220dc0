"""The demonstration end to end, on small micrographs; what it replaces and what it leaves alone."""

import csv
import json
from pathlib import Path

import pytest

from pickeropt.demonstration import MARKER, DemoConfig, DemoReport, make_demo, run_demo
from pickeropt.errors import OutputError
from pickeropt.io.micrographs import read_micrograph
from pickeropt.io.picks import read_picks

SMALL = DemoConfig(pruned=1)
"""The command's own demo of seed 0, but for three of the pruned micrographs."""
TINY = DemoConfig(seed=1, size=384, labelled=2, pruned=1, shots=4)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoReport, list[str]]:
    stages: list[str] = []
    out = tmp_path_factory.mktemp("demo") / "demo"
    return make_demo(out, SMALL, stages.append), stages


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_pick_is_kept_or_rejected(demo):
    report, _ = demo
    folder = report.folder
    counts = {
        side: sum(len(read_picks(path).picks) for path in (folder / side).glob("*.star"))
        for side in ("picks", "pruned/kept", "pruned/rejected")
    }
    assert counts["picks"] > 40
    assert counts["pruned/kept"] + counts["pruned/rejected"] == counts["picks"]
    assert (report.prune.kept, report.prune.rejected) == (counts["pruned/kept"], counts["pruned/rejected"])
    assert report.evaluation.before.picks == counts["picks"]


def test_pruning_helps(demo):
    report, _ = demo
    evaluation = report.evaluation
    assert evaluation.picker_ranking is not None
    assert 0.5 < evaluation.before.precision < 0.7
    assert evaluation.after.f1 > evaluation.before.f1
    assert evaluation.ranking.average_precision > evaluation.picker_ranking.average_precision


def test_everything_is_left(demo):
    report, stages = demo
    folder = report.folder
    assert {path.name for path in folder.iterdir()} == {
        *("micrographs", "picks", "truth", "pruned", "evaluation"),
        *("labels.star", "model.safetensors", "table.csv", "overlay.png", MARKER),
    }
    assert {path.relative_to(folder).as_posix() for path in report.written} == {
        *("evaluation/evaluation.json", "evaluation/pr_curve.png", "table.csv", "overlay.png")
    }
    for name in ("overlay.png", "evaluation/pr_curve.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert len(stages) == 4
    assert report.seconds >= report.prune.seconds + report.finetune.seconds > 0


def test_the_shots_are_of_all_classes_and_of_other_micrographs(demo):
    folder = demo[0].folder
    shots, pruned = read_picks(folder / "labels.star").picks, sorted((folder / "picks").iterdir())
    counts = {name: shots.class_names.count(name) for name in shots.class_names}
    assert counts == dict.fromkeys(("particle", "background", "contaminant", "carbon"), SMALL.shots)
    assert [Path(name).stem for name in shots.micrograph_names] == [f"label_0{number}" for number in (1, 2, 3, 4)]
    assert [path.name for path in pruned] == ["prune_01_autopick.star"]
    micrograph = read_micrograph(folder / shots.micrograph_names[0])
    assert micrograph.pixels.shape == (1024, 1024)
    assert micrograph.pixel_size == pytest.approx(3.2)


def test_the_table_says_what_the_evaluation_says(demo):
    report, _ = demo
    before, after = rows_of(report.folder / "table.csv")
    for row, quality in ((before, report.evaluation.before), (after, report.evaluation.after)):
        assert int(row["picks"]) == quality.picks
        assert float(row["f1"]) == pytest.approx(quality.f1, abs=1e-4)
    saved = json.loads((report.folder / "evaluation" / "evaluation.json").read_text())
    assert float(after["average_precision"]) == pytest.approx(saved["ranking"]["average_precision"], abs=1e-4)
    saved_picker = saved["picker_ranking"]["average_precision"]
    assert float(before["average_precision"]) == pytest.approx(saved_picker, abs=1e-4)


def test_the_same_seed_gives_the_same_in_the_place_of_an_earlier_demo(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    (second / "picks").mkdir(parents=True)
    (second / "picks" / "old.star").write_text("not a pick")
    (second / "notes.txt").write_text("mine")
    (second / MARKER).write_text("{}")
    for folder in (first, second):
        make_demo(folder, TINY)
    assert (second / "notes.txt").read_text() == "mine"
    files = [path.relative_to(first) for path in sorted(first.rglob("*")) if path.is_file()]
    with_paths_or_times = {"scores.csv", "summary.json", "evaluation.json", "report.html"}
    assert len(files) == 19
    for name in files:
        if name.name not in with_paths_or_times:
            assert (first / name).read_bytes() == (second / name).read_bytes(), name
    for name in ("scores.csv", "report.html"):
        texts = [(folder / "pruned" / name).read_text(encoding="utf-8") for folder in (first, second)]
        assert texts[0].replace(str(first), "") == texts[1].replace(str(second), ""), name
    assert [path.name for path in (second / "picks").iterdir()] == ["prune_01_autopick.star"]


def test_the_command_passes_its_seed_on(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("pickeropt.demonstration.make_demo", lambda out, config, say: asked.append((out, config)))
    run_demo(tmp_path, 5, None)
    assert asked == [(tmp_path, DemoConfig(seed=5))]


def test_what_is_no_demo_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years")
    with pytest.raises(OutputError, match="no demo"):
        make_demo(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(OutputError, match="no demo"):
        make_demo(tmp_path / "thesis.tex", SMALL)
