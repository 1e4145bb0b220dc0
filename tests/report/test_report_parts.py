"""Which picks are shown, what the charts say, what STAR files say, and the command that runs it again."""

import csv
import re
import shlex
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from report_world import PlaceScorer, make_project, prune_with_report, read_page, table, write_picks
from typer.testing import CliRunner

from pickeropt.cli import app
from pickeropt.io import delimited
from pickeropt.prune import scoring
from pickeropt.prune.prune_config import Filters, PruneConfig, ScorerConfig, recorded_settings
from pickeropt.report.ice_and_defocus import read_optics
from pickeropt.report.kinds import ReportedRun, closest, extremes, kinds_of, read_run, spread, tally
from pickeropt.report.report_page import ticks
from pickeropt.report.reporting import write_report
from pickeropt.report.rerun_command import ReportConfig, another_threshold, command_of


def run_of(micrograph, score, kept=None, best=None, reason=None, **more):
    """A run of picks with these micrographs and scores; threshold 0.5."""
    count = len(score)
    score = np.array(score, dtype=np.float32)
    zeros = np.zeros(count, dtype=np.int32)
    fields = {
        "summary": {"threshold": 0.5, "diameter_angstrom": 20.0, "out": "out", "settings": {}},
        "classes": ("particle", "ice", "carbon"),
        "reasons": ("", "max-std"),
        "files": ("f.star",),
        "micrographs": tuple(f"m{i}.mrc" for i in range(max(micrograph) + 1)),
        "file": zeros,
        "micrograph": np.array(micrograph, dtype=np.int32),
        "best": zeros if best is None else np.array(best, dtype=np.int32),
        "reason": zeros if reason is None else np.array(reason, dtype=np.int32),
        "row": np.arange(count, dtype=np.int32),
        "xy": np.zeros((count, 2), dtype=np.float32),
        "score": score,
        "kept": score >= 0.5 if kept is None else np.array(kept, dtype=np.bool_),
        "places": MappingProxyType({}),
    }
    return ReportedRun(**{**fields, **more})


def test_every_pick_is_of_one_kind():
    run = run_of(
        [0] * 7,
        score=[0.9, 0.8, 0.4, 0.3, 0.2, 0.1, 0.45],
        kept=[1, 0, 0, 0, 0, 0, 0],
        best=[0, 0, 0, 1, 2, 1, 0],
        reason=[0, 1, 0, 0, 0, 1, 0],  # the filter is told only where the score would keep the pick
    )
    found = {kind.title: kind.rows.tolist() for kind in kinds_of(run)}
    assert found == {
        "kept": [0],
        "rejected as particle, but not sure": [2, 6],
        "rejected as ice": [3, 5],
        "rejected as carbon": [4],
        "rejected by --max-std": [1],
    }
    assert len({(kind.colour, kind.mark) for kind in kinds_of(run)}) == 5
    assert len({kind.mark for kind in kinds_of(run)}) == 5


def test_boxes_are_spread_over_the_micrographs():
    micrograph = [0] * 50 + [1] * 2 + [2] * 60
    run = run_of(micrograph, np.linspace(0, 1, 112))
    rows = spread(run, np.arange(112), 24)
    assert np.bincount(run.micrograph[rows]).tolist() in ([11, 2, 11], [12, 2, 10], [10, 2, 12])
    assert len(set(rows.tolist())) == 24
    assert (np.diff(run.score[rows]) <= 0).all()
    assert rows.tolist() == spread(run, np.arange(112), 24).tolist()
    assert spread(run, np.array([5, 60, 70]), 24).tolist() == [70, 60, 5]
    many = run_of(np.repeat(np.arange(300), 4), np.tile([0.9, 0.1, 0.8, 0.2], 300))
    first = {int(m) for m in many.micrograph[spread(many, np.flatnonzero(many.kept), 24)]}
    second = {int(m) for m in many.micrograph[spread(many, np.flatnonzero(~many.kept), 24)]}
    assert first == second  # so that few micrographs are opened
    assert len(first) == 24


def test_the_closest_calls_leave_out_what_a_filter_decided():
    run = run_of([0] * 5, [0.52, 0.1, 0.49, 0.501, 0.9], reason=[0, 0, 0, 1, 0])
    assert closest(run, 2).tolist() == [0, 2]
    assert closest(run, 9).tolist() == [4, 0, 2, 1]


def test_the_extremes_are_by_share_and_never_the_same_twice():
    # kept of picks: 1/10, 5/10, 9/10, 0/2 (too few to say), 5/5
    micrograph = [0] * 10 + [1] * 10 + [2] * 10 + [3] * 2 + [4] * 5
    kept = [1] + [0] * 9 + [1] * 5 + [0] * 5 + [1] * 9 + [0] + [0] * 2 + [1] * 5
    run = run_of(micrograph, [0.5] * 37, kept=kept)
    numbers = tally(run)
    assert numbers.picks.tolist() == [10, 10, 10, 2, 5]
    assert numbers.kept.tolist() == [1, 5, 9, 0, 5]
    assert extremes(run, numbers, 1) == ([0], [4])
    assert extremes(run, numbers, 3) == ([0, 1], [4, 2])
    few = run_of([0, 0, 1], [0.9, 0.1, 0.9])
    assert extremes(few, tally(few), 3) == ([0], [1])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 1400, [0, 500, 1000]),
        (0.5, 4.5, [1, 2, 3, 4]),
        (1.13, 2.71, [1.5, 2.0, 2.5]),
        (-3, 3, [-3, -2, -1, 0, 1, 2, 3]),
        (4, 4, [4]),
    ],
)
def test_ticks_are_round_and_within(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)
    assert not any(str(tick).startswith("-0.0") for tick in ticks(low, high))


def test_the_table_is_read_as_it_stands_in_pieces_of_any_size(tmp_path, monkeypatch):
    prune_with_report(tmp_path, make_project(tmp_path), filters=Filters(max_std=0.9))
    rows = table(tmp_path / "out")
    for piece in (7, 20_000):
        monkeypatch.setattr(delimited, "PIECE", piece)
        run = read_run(tmp_path / "out")
        assert len(run) == len(rows) == 90
        assert run.xy.tolist() == pytest.approx(np.array([[r["x"], r["y"]] for r in rows], np.float32))
        assert run.score.tolist() == pytest.approx([float(r["score"]) for r in rows], abs=1e-6)
        assert run.kept.tolist() == [r["kept"] == "1" for r in rows]
        for field, names, column in (
            (run.file, run.files, "file"),
            (run.micrograph, run.micrographs, "micrograph"),
            (run.best, run.classes, "class"),
            (run.reason, run.reasons, "filter"),
        ):
            assert [names[i] for i in field] == [r[column] for r in rows]
        assert {name: place.path.name for name, place in run.places.items()} == {n: n for n in run.micrographs}
        assert {place.pixel_size for place in run.places.values()} == {2.0}


def test_a_name_with_commas_and_quotes_is_one_name(tmp_path):
    names = ('a,"b".mrc', "c.mrc")
    prune_with_report(tmp_path, make_project(tmp_path, (6, 5), names))
    assert read_run(tmp_path / "out").micrographs == names
    assert '"b".mrc' in read_page(tmp_path / "out").text


# ice and defocus


def optics_of(tmp_path, rows, extra, stars=()):
    make_project(tmp_path)
    prune_with_report(tmp_path, write_picks(tmp_path / "p.star", rows, extra))
    return {q.name: (q.unit, q.values.tolist()) for q in read_optics(read_run(tmp_path / "out"), stars)}


def test_the_first_pick_speaks_for_its_micrograph(tmp_path):
    rows = [
        ("b.mrc", 40, 20, 12000, 14000, 0.2, 31.5),
        ("a.mrc", 30, 20, 21000, 21000, 0.1, 22.5),
        ("b.mrc", 90, 20, 99999, 99999, 0.9, 99.9),
    ]
    labels = ("_rlnDefocusU", "_rlnDefocusV", "_rlnCtfFigureOfMerit", "_rlnMicrographIceThickness")
    assert optics_of(tmp_path, rows, labels) == {
        "defocus": ("µm", [1.3, 2.1]),
        "CTF figure of merit": ("", [0.2, 0.1]),
        "ice thickness (rlnMicrographIceThickness)": ("", [31.5, 22.5]),
    }
    page = read_page(tmp_path / "out")
    assert "Ice and defocus" in page.text
    assert "b.mrc: 1.3 µm, 50.0 % kept" in page.titles


def test_without_such_columns_there_is_no_such_chart(tmp_path):
    assert optics_of(tmp_path, [("a.mrc", 30, 20, 5)], ("_rlnAutopickFigureOfMerit",)) == {}
    assert "Ice and defocus" not in read_page(tmp_path / "out").text


def test_a_star_of_micrographs_speaks_too(tmp_path):
    star = tmp_path / "micrographs_ctf.star"
    head = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n1\n\ndata_micrographs\n\nloop_\n"
    labels = "_rlnMicrographName #1\n_rlnDefocusU #2\n_rlnCtfMaxResolution #3\n"
    rows = "Motion/b.mrc 15000 4.5\nMotion/z.mrc 1 1\nMotion/a.mrc 25000 inf\n"
    star.write_text(head + labels + rows)
    found = optics_of(tmp_path, [("a.mrc", 30, 20), ("b.mrc", 90, 20)], (), (star,))
    assert found["defocus"] == ("µm", [2.5, 1.5])
    unit, values = found["CTF resolution"]
    assert (unit, values[1]) == ("Å", 4.5)
    assert np.isnan(values[0])
    write_report(tmp_path / "out", ReportConfig(stars=(star,)))
    assert "b.mrc: 1.5 µm, 100.0 % kept" in read_page(tmp_path / "out").titles


def test_files_that_are_gone_say_nothing(tmp_path):
    optics_of(tmp_path, [("a.mrc", 30, 20, 1), ("b.mrc", 30, 20, 2)], ("_rlnDefocusU",))
    (tmp_path / "p.star").unlink()
    assert read_optics(read_run(tmp_path / "out"), (tmp_path / "no.star",)) == ()


# the command


RUNS = {
    "plain": {},
    "model": {"model": Path("my models/a'b.safetensors"), "threshold": 0.7},
    "filters": {"filters": Filters(0.1, 2.5, 0.25, 4.0, 150.0), "prior": "auto"},
    "all kept": {"threshold": 0.0},
    "numbers": {
        "diameter_angstrom": 191.0,
        "pixel_size": 1.77,
        "batch_size": 32,
        "prior": 0.3,
        "device": "cpu",
    },
    "flags": {"write_score": True, "picker_shots": Path("labels.star"), "trust_frame": False},
    "folders": {"micrographs": (Path("Micro graphs"), Path("$HOME;ls"))},
}


@pytest.mark.parametrize("name", RUNS)
def test_the_command_gives_the_same_settings(name, tmp_path, monkeypatch):
    """Given to the command line, it asks for what the run was asked for."""
    from dataclasses import replace

    of_scorer = {key: value for key, value in RUNS[name].items() if key in ScorerConfig.__dataclass_fields__}
    others = {key: value for key, value in RUNS[name].items() if key not in of_scorer}
    settings, scorer = PruneConfig(**({"out": tmp_path / "out dir"} | others)), ScorerConfig(**of_scorer)
    inputs = ["picks here/p.star", "-odd.star", "x&y"]
    summary = {"settings": recorded_settings(settings, scorer), "inputs": inputs, "folder": "/some where", "out": "o"}
    folder, command = command_of(summary).split("\n")
    assert shlex.split(folder) == ["cd", "/some where"]
    words = shlex.split(command)
    assert words[0] == "pickeropt"
    monkeypatch.chdir(tmp_path)
    Path("model.safetensors").touch()  # that finetune wrote since
    asked = []
    pruning = "pickeropt.commands.prune.prune_and_show"
    monkeypatch.setattr(pruning, lambda picks, config, scorer: asked.append((picks, config, scorer)))
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    [(picks, config, loaded)] = asked
    assert config == replace(settings, overwrite=True)
    assert loaded == scorer
    assert [str(path) for path in picks] == ["picks here/p.star", "-odd.star", "x&y"]


def test_the_page_has_both_commands(tmp_path, monkeypatch):
    picks = make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    prune_with_report(tmp_path, picks, out=Path("out"))
    text = read_page(tmp_path / "out").text
    assert f"cd {tmp_path}\npickeropt prune {picks}" in text
    assert another_threshold(read_run(tmp_path / "out").summary, 0.7) in text
    assert f"--rethreshold {tmp_path}/out --threshold 0.7" in text


# the command line


def run_cli(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_report_makes_it_anew(tmp_path):
    prune_with_report(tmp_path, make_project(tmp_path), finish=None)
    assert not (tmp_path / "out/report.html").exists()
    result = run_cli("report", tmp_path / "out", "--overlays", 1)
    assert result.exit_code == 0, result.output
    written = re.findall(r"written: (\S+)", result.output)
    assert [Path(path).name for path in written][::3] == ["contact_sheet.png", "report.html"]
    assert all(Path(path).is_file() for path in written)
    assert len(written) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file; check the path"),
        ("data_\nloop_\n_rlnMicrographName #1\na.mrc\n", "has no column of defocus, ice, motion or CTF"),
        ("data_\nloop_\n_rlnDefocusU #1\n1\n", "cannot be read as a STAR file of micrographs"),
        (
            "data_\nloop_\n_rlnMicrographName #1\n_rlnDefocusU #2\nz.mrc 1\n",
            "has none of the run's micrographs",
        ),
        ("data_\nloop_\n_rlnMicrographName #1\n_rlnDefocusU #2\na.mrc x\n", "cannot be read as a STAR file"),
        ("data_\nloop_\n_rlnMicrographName #1\n_rlnDefocusU #2\na.mrc 1\n", ""),
    ],
)
def test_a_ctf_file_that_gives_no_chart_is_said(tmp_path, text, said):
    make_project(tmp_path)
    prune_with_report(tmp_path, write_picks(tmp_path / "p.star", [("a.mrc", 30, 20)]), finish=None)
    star = tmp_path / "micrographs_ctf.star"
    if text is not None:
        star.write_text(text)
    result = run_cli("report", tmp_path / "out", "--ctf", star)
    if text is None:
        assert result.exit_code == 2
        assert result.stderr == f"error: {star}: {said}\n"
        assert not (tmp_path / "out/report.html").exists()
    else:
        assert result.exit_code == 0, result.output
        warnings = [line for line in result.output.splitlines() if line.startswith("warning: ")]
        assert len(warnings) == bool(said)
        assert all(line.startswith(f"warning: {star}: {said}") for line in warnings)


def test_report_of_another_folder_is_the_users_fault(tmp_path, capsys):
    result = run_cli("report", tmp_path)
    assert result.exit_code == 2
    assert "no finished pruning" in result.stderr


def test_rethreshold_on_the_command_line_brings_a_report(tmp_path):
    prune_with_report(tmp_path, make_project(tmp_path))
    before = (tmp_path / "out/report.html").read_bytes()
    result = run_cli("prune", "--rethreshold", tmp_path / "out", "--threshold", 0.9)
    assert result.exit_code == 0, result.output
    assert "report.html" in result.output
    assert (tmp_path / "out/report.html").read_bytes() != before
    with (tmp_path / "out/scores.csv").open() as file:
        kept = sum(row["kept"] == "1" for row in csv.DictReader(file))
    assert f"Kept: {min(24, kept)} of {kept}" in read_page(tmp_path / "out").sheets


def test_prune_on_the_command_line_brings_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "load_scorer", lambda *given: PlaceScorer())
    picks = make_project(tmp_path)
    result = run_cli("prune", picks, "--micrographs", tmp_path / "mics", "--out", tmp_path / "out", "--trust-frame")
    assert result.exit_code == 0, result.output
    assert "summary.json, report.html)" in result.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("kept", "rejected", "scores.csv", "summary.json"),
        *("report.html", "contact_sheet.png", "overlays"),
    }
