"""What holds of every pruning, each held by one test."""

import csv
import json
import tempfile
import weakref
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prune_world import (
    CLASSES,
    PIXEL_SIZE,
    FakeScorer,
    coordinate_star,
    coordinates_of,
    data_rows,
    local_means,
    make_micrographs,
    make_project,
    particles_star,
    tree,
)

from pickeropt import __version__
from pickeropt.errors import OutputError
from pickeropt.evaluate.evaluation import read_scored_picks as read_scores
from pickeropt.io.micrographs import MicrographHeader, read_micrograph
from pickeropt.prune import scoring
from pickeropt.prune.prune_config import PruneConfig, ScorerConfig
from pickeropt.prune.pruning import prune


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path)


def config_for(root: Path, **changes: object) -> PruneConfig:
    return replace(PruneConfig(micrographs=(root / "mics",), out=root / "out"), **changes)  # type: ignore[arg-type]


def table(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def expected_score(root: Path, name: str, xy: np.ndarray) -> np.ndarray:
    means = local_means(read_micrograph(root / "mics" / name).pixels, xy)
    return 1 / (1 + np.exp(-4 * means / PIXEL_SIZE))


def test_every_pick_gets_the_score_of_its_own_place(project: Path, tmp_path: Path) -> None:
    summary = prune([project], config_for(tmp_path), FakeScorer())
    rows = table(tmp_path / "out")
    assert len(rows) == summary.picks == 48
    assert list(rows[0]) == [
        *("file", "row", "micrograph", "x", "y", "figure_of_merit", "class", "score"),
        *(f"p_{name}" for name in CLASSES),
        "kept",
    ]
    for i in range(4):
        own = [row for row in rows if Path(row["micrograph"]).name == f"m{i}.mrc"]
        xy = coordinates_of(f"m{i}.mrc", 12)
        name = f"{'sub/' if i % 2 else ''}m{i}_autopick.star"
        assert [row["file"] for row in own] == [name] * 12
        assert [int(row["row"]) for row in own] == list(range(12))
        assert [(float(row["x"]), float(row["y"])) for row in own] == [tuple(pick) for pick in xy.tolist()]
        assert [float(row["figure_of_merit"]) for row in own] == [k / 10 for k in range(12)]
        scores = np.array([float(row["score"]) for row in own])
        np.testing.assert_allclose(scores, expected_score(tmp_path, f"m{i}.mrc", xy), atol=6e-7)
        assert [row["p_particle"] for row in own] == [row["score"] for row in own]
        for row in own:
            probabilities = [float(row[f"p_{name}"]) for name in CLASSES]
            assert abs(sum(probabilities) - 1) < 2e-6
            assert row["class"] == CLASSES[int(np.argmax(probabilities))]
            assert row["kept"] == str(int(float(row["score"]) >= 0.5))


def test_kept_and_rejected_are_the_input_row_for_row(project: Path, tmp_path: Path) -> None:
    prune([project], config_for(tmp_path), FakeScorer())
    rows = table(tmp_path / "out")
    for source in sorted(project.rglob("*.star")):
        name = source.relative_to(project)
        kept = [row["kept"] == "1" for row in rows if row["file"] == name.as_posix()]
        lines = data_rows(source)
        assert len(lines) == len(kept) == 12
        assert data_rows(tmp_path / "out/kept" / name) == [line for line, k in zip(lines, kept, strict=True) if k]
        assert data_rows(tmp_path / "out/rejected" / name) == [
            line for line, k in zip(lines, kept, strict=True) if not k
        ]


@settings(max_examples=15, deadline=None)
@given(
    files=st.lists(
        st.lists(
            st.tuples(st.sampled_from(["a.mrc", "b.mrc", "c.mrc"]), st.floats(0, 79), st.floats(0, 59)),
            max_size=8,
        ),
        min_size=1,
        max_size=3,
    ).filter(any),
    threshold=st.floats(0, 1),
)
def test_kept_plus_rejected_is_the_input(files: list[list[tuple[str, float, float]]], threshold: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_micrographs(root / "mics", ["a.mrc", "b.mrc", "c.mrc"])
        inputs = [particles_star(root / f"p{i}.star", rows) for i, rows in enumerate(files)]
        summary = prune(inputs, config_for(root, threshold=threshold), FakeScorer())
        assert summary.picks == sum(map(len, files)) == summary.kept + summary.rejected
        flags = [row["kept"] == "1" for row in table(root / "out")]
        for path, picks in zip(inputs, files, strict=True):
            lines = path.read_bytes().splitlines(keepends=True)
            head, rows = lines[: len(lines) - len(picks)], lines[len(lines) - len(picks) :]
            keep, flags = flags[: len(picks)], flags[len(picks) :]
            for side, wanted in (("kept", True), ("rejected", False)):
                chosen = [row for row, kept in zip(rows, keep, strict=True) if kept is wanted]
                assert (root / "out" / side / path.name).read_bytes() == b"".join(head + chosen)
        assert not flags


def test_threshold_zero_keeps_all_byte_for_byte(project: Path, tmp_path: Path) -> None:
    def certain_ice(micrograph: object, found: np.ndarray) -> np.ndarray:
        found[:] = (0, 1, 0)
        return found

    summary = prune([project], config_for(tmp_path, threshold=0.0), FakeScorer(fault=certain_ice))
    assert (summary.kept, summary.rejected) == (48, 0)
    assert tree(tmp_path / "out/kept") == tree(project)


def test_kept_is_decided_before_rounding(tmp_path: Path) -> None:
    make_micrographs(tmp_path / "mics", ["a.mrc"])
    picks = coordinate_star(tmp_path / "a.star", np.array([[5.0, 5], [6, 6], [7, 7]]))
    scores = np.array([0.5, np.nextafter(np.float32(0.5), np.float32(0)), 0.7], dtype=np.float32)

    def given_scores(micrograph: object, found: np.ndarray) -> np.ndarray:
        return np.column_stack([scores, 1 - scores, 0 * scores]).astype(np.float32)

    scorer = FakeScorer(fault=given_scores)
    prune([picks], config_for(tmp_path), scorer)
    rows = table(tmp_path / "out")
    assert [row["score"] for row in rows] == ["0.500000", "0.500000", "0.700000"]
    assert [row["kept"] for row in rows] == ["1", "0", "1"]
    prune([picks], config_for(tmp_path, threshold=0.7, overwrite=True), scorer)
    assert [row["kept"] for row in table(tmp_path / "out")] == ["0", "0", "1"]


def test_the_order_of_inputs_changes_nothing(project: Path, tmp_path: Path) -> None:
    files = sorted(project.rglob("*.star"))
    prune(files, config_for(tmp_path), FakeScorer())
    prune(files[::-1], config_for(tmp_path, out=tmp_path / "other"), FakeScorer())
    assert tree(tmp_path / "out") == tree(tmp_path / "other")
    assert len(tree(tmp_path / "out")) == 9


def test_picks_of_one_micrograph_in_several_files_are_scored_together(tmp_path: Path) -> None:
    make_micrographs(tmp_path / "mics", ["a.mrc", "b.mrc"])
    xy = coordinates_of("a.mrc", 4)
    first = particles_star(tmp_path / "1.star", [("mics/a.mrc", *xy[0]), ("mics/b.mrc", 3, 4), ("mics/a.mrc", *xy[1])])
    second = particles_star(tmp_path / "2.star", [("mics/a.mrc", *xy[2]), ("mics/a.mrc", *xy[3])])
    scorer = FakeScorer()
    summary = prune([second, first], config_for(tmp_path, micrographs=()), scorer)
    assert scorer.calls == ["a.mrc", "b.mrc"]
    assert summary.micrographs == 2
    rows = table(tmp_path / "out")
    assert [row["file"] for row in rows] == ["1.star"] * 3 + ["2.star"] * 2
    assert [row["micrograph"] for row in rows] == ["mics/a.mrc", "mics/b.mrc"] + ["mics/a.mrc"] * 3
    assert [row["figure_of_merit"] for row in rows] == [""] * 5
    own = [float(rows[i]["score"]) for i in (0, 2, 3, 4)]
    np.testing.assert_allclose(own, expected_score(tmp_path, "a.mrc", xy), atol=6e-7)


def test_each_micrograph_is_read_once_and_two_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path, count=9)
    read: list[str] = []
    pixels: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    def counting(path: Path, header: MicrographHeader) -> object:
        micrograph = read_micrograph(path, header)
        read.append(path.name)
        pixels.append(weakref.ref(micrograph.pixels))
        alive.append(sum(ref() is not None for ref in pixels))
        return micrograph

    monkeypatch.setattr(scoring, "read_micrograph", counting)
    scorer = FakeScorer(seconds=0.01)
    prune([project], config_for(tmp_path), scorer)
    assert sorted(read) == sorted(scorer.calls) == [f"m{i}.mrc" for i in range(9)]
    assert max(alive) == 2


def test_the_inputs_stay_as_they_were(project: Path, tmp_path: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()}
    prune([project], config_for(tmp_path), FakeScorer())
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before}


def test_the_summary_counts(project: Path, tmp_path: Path) -> None:
    summary = prune([project], config_for(tmp_path), FakeScorer())
    rows = table(tmp_path / "out")
    lost = [row for row in rows if row["kept"] == "0"]
    assert (summary.picks, summary.kept, summary.rejected) == (48, 48 - len(lost), len(lost))
    assert 0 < summary.rejected < 48
    for name in CLASSES:
        assert summary.by_class[name] == sum(row["class"] == name for row in rows)
        assert summary.rejected_by_class[name] == sum(row["class"] == name for row in lost)
    by_micrograph = {name: sum(row["micrograph"] == name for row in lost) for name in {r["micrograph"] for r in rows}}
    ranked = sorted(by_micrograph.items(), key=lambda item: (-item[1], item[0]))
    assert summary.worst == tuple((name, 12, count) for name, count in ranked if count)
    written = json.loads((tmp_path / "out/summary.json").read_text())
    assert written["pickeropt"] == __version__
    assert (written["picks"], written["kept"], written["by_class"]) == (48, summary.kept, summary.by_class)
    assert written["model_digest"] == "d" * 64
    assert written["settings"]["threshold"] == written["threshold"] == 0.5
    assert written["inputs"] == [str(project)]
    assert written["worst"][0] == {"micrograph": ranked[0][0], "picks": 12, "rejected": ranked[0][1]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mics", "out", "picks"]


def test_it_warns_where_nothing_is_kept(project: Path, tmp_path: Path) -> None:
    summary = prune([project], config_for(tmp_path, threshold=1.0), FakeScorer())
    assert summary.kept == 0
    assert [text for text in summary.warnings if "every pick is rejected" in text]


def test_progress_counts_picks(project: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    prune([project], config_for(tmp_path), FakeScorer(), on_progress=lambda done, of: told.append((done, of)))
    assert told == [(0, 48), (12, 48), (24, 48), (36, 48), (48, 48)]


def test_evaluate_reads_the_scores(project: Path, tmp_path: Path) -> None:
    summary = prune([project], config_for(tmp_path), FakeScorer())
    scored = read_scores(tmp_path / "out/scores.csv")
    assert len(scored) == 48
    assert int(scored.kept.sum()) == summary.kept
    assert set(scored.micrographs) == {"m0", "m1", "m2", "m3"}


def test_odd_names_and_merits_in_the_table(tmp_path: Path) -> None:
    make_micrographs(tmp_path / "mics", ["a,1.mrc"])
    path = tmp_path / 'odd,"100%".star'
    rows = "1 2 nan 'a,1.mrc'\n3 4 inf 'a,1.mrc'\n5.25 6 -999 'a,1.mrc'\n"
    head = "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnAutopickFigureOfMerit\n_rlnMicrographName\n"
    path.write_text(head + rows)
    prune([path], config_for(tmp_path), FakeScorer())
    found = table(tmp_path / "out")
    assert [row["file"] for row in found] == ['odd,"100%".star'] * 3
    assert [row["micrograph"] for row in found] == ["a,1.mrc"] * 3
    assert [row["figure_of_merit"] for row in found] == ["", "", ""]
    assert [(row["x"], row["y"]) for row in found] == [("1.0", "2.0"), ("3.0", "4.0"), ("5.25", "6.0")]


def test_overwrite_replaces_only_a_former_output(project: Path, tmp_path: Path) -> None:
    prune([project], config_for(tmp_path), FakeScorer())
    (tmp_path / "out/kept/stale.star").write_text("of the former run")
    prune([project], config_for(tmp_path, threshold=0.0, overwrite=True), FakeScorer())
    assert tree(tmp_path / "out/kept") == tree(project)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mics", "out", "picks"]


@pytest.mark.parametrize("text", ['{"a": 1}', "{", "[]", '{"picks": 1}'])
def test_a_summary_of_something_else_makes_no_output(project: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "out/data").mkdir(parents=True)
    (tmp_path / "out/summary.json").write_text(text)
    with pytest.raises(OutputError, match=r"out: is no earlier output of pickeropt \(no summary\.json of one"):
        prune([project], config_for(tmp_path, overwrite=True), FakeScorer())
    assert (tmp_path / "out/data").is_dir()


def test_the_record_is_of_the_classifier_that_scored(tmp_path: Path) -> None:
    """A config has no diameter, device or batch size of its own: they are those of the scorer."""
    for name, value in (("diameter_angstrom", 33.0), ("device", "nonsense"), ("batch_size", -5), ("model", "m")):
        with pytest.raises(TypeError, match=name):
            PruneConfig(**{name: value})  # type: ignore[arg-type]
    picks = make_project(tmp_path, 1)
    loaded = ScorerConfig(Path("my.safetensors"), 20.0, 7, "cpu")
    summary = prune([picks], config_for(tmp_path), FakeScorer(config=loaded))
    written = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary.diameter_angstrom == written["diameter_angstrom"] == 20.0
    assert {name: written["settings"][name] for name in asdict(loaded)} == {
        "model": "my.safetensors",
        "diameter_angstrom": 20.0,
        "batch_size": 7,
        "device": "cpu",
    }
    names = ["model", "micrographs", "out", "threshold", "diameter_angstrom", "pixel_size", "batch_size", "device"]
    names += ["overwrite", "write_score", "filters", "prior", "picker_shots", "trust_frame"]
    assert list(written["settings"]) == names
