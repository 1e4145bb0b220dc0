"""`pickeropt evaluate`, with nothing replaced."""

import json

import pytest
from typer.testing import CliRunner

from pickeropt.cli import app
from pickeropt.pruned_run import KINDS, NUMBERS


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def scores(tmp_path):
    """Two particles, three picks: a true one kept, a false one rejected, a false one kept."""
    path = tmp_path / "scores.csv"
    path.write_text(
        "file,row,micrograph,x,y,figure_of_merit,class,score,p_particle,kept\n"
        "p.star,0,m.mrc,10,10,0.5,particle,0.9,0.9,1\n"
        "p.star,1,m.mrc,50,50,0.9,carbon,0.1,0.1,0\n"
        "p.star,2,m.mrc,90,90,0.4,particle,0.6,0.6,1\n"
    )
    (tmp_path / "truth.csv").write_text("micrograph,x,y\nm.mrc,11,10\nm.mrc,200,200\n")
    return path


def test_evaluate(scores, tmp_path):
    result = run("evaluate", scores, "--truth", tmp_path / "truth.csv", "--radius", 5, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["before", "pruning", "3", "1", "0.333", "0.500", "0.400"] in lines
    assert ["after", "pruning", "2", "1", "0.500", "0.500", "0.500"] in lines
    assert "at recall 0.500: precision 0.500 after pruning, 0.500 by the picker's own score" in result.stdout
    for name in ("evaluation.json", "pr_curve.png"):
        assert f"written: {tmp_path / 'out' / name}" in result.stdout
        assert (tmp_path / "out" / name).stat().st_size > 0


def test_evaluate_writes_beside_the_scores_unless_told(scores, tmp_path):
    assert run("evaluate", scores, "--truth", tmp_path / "truth.csv", "--radius", 5).exit_code == 0
    assert (tmp_path / "pr_curve.png").is_file()


def test_the_folder_of_a_pruning_stands_for_its_scores(scores, tmp_path):
    given = ("--truth", tmp_path / "truth.csv", "--radius", 5, "--out", tmp_path / "out")
    assert run("evaluate", tmp_path, *given).stdout == run("evaluate", scores, *given).stdout
    assert run("evaluate", *(tmp_path, *given)[:5]).exit_code == 0
    assert (tmp_path / "pr_curve.png").is_file()


def test_evaluate_without_scores(tmp_path):
    result = run("evaluate", tmp_path / "no.csv", "--truth", tmp_path, "--radius", 5)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert str(tmp_path / "no.csv") in result.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no.csv", "cannot be read (No such file or directory); check the path"),
        ("empty", "cannot be read (Is a directory); check the path"),
        ("p.star", "no column 'file' in the header"),
    ],
)
def test_without_a_radius_a_wrong_path_is_said_first(scores, tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "p.star").write_text("data_\nloop_\n_rlnCoordinateX #1\n1\n")
    result = run("evaluate", tmp_path / name, "--truth", tmp_path / "truth.csv")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path / name}")
    assert said in result.stderr
    assert "no matching radius" not in result.stderr


def test_a_full_disk_leaves_nothing_half_written(scores, tmp_path, monkeypatch):
    def half(path, content):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", half)
    before = sorted(tmp_path.iterdir())
    result = run("evaluate", scores, "--truth", tmp_path / "truth.csv", "--radius", 5)
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_evaluate_shows_each_file_where_there_are_several(scores, tmp_path):
    scores.write_text(scores.read_text() + "q.box,0,m.mrc,200,201,0.7,particle,0.8,0.8,1\n")
    result = run("evaluate", scores, "--truth", tmp_path / "truth.csv", "--radius", 5)
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    # p.star: 1 of 3 picks true, after 1 of 2; 1 of 2 particles. q.box: 1 of 1; 1 of 2
    assert "p.star 0.333 → 0.500 0.500 → 0.500 0.400 → 0.500" in lines
    assert "q.box 1.000 → 1.000 0.500 → 0.500 0.667 → 0.667" in lines
    assert "warning: 1 micrographs have picks from several files" in result.stdout


def test_the_radius_is_half_the_diameter_that_prune_wrote_down(scores, tmp_path):
    """24 Å at 1.5 Å/px is 16 px across: a pick 8 px off is true, one 9 px off is not."""
    (tmp_path / "truth.csv").write_text("micrograph,x,y\nm.mrc,18,10\nm.mrc,99,90\n")
    summary = tmp_path / "summary.json"
    whole = dict.fromkeys(NUMBERS, 0) | {name: kind() for name, kind in KINDS.items()}
    whole |= {"picks": 3, "diameter_angstrom": 24.0}
    summary.write_text(json.dumps({**whole, "pixel_sizes": [1.5]}))
    result = run("evaluate", scores, "--truth", tmp_path / "truth.csv")
    assert result.exit_code == 0, result.stderr
    assert ["before", "pruning", "3", "1", "0.333", "0.500", "0.400"] in [
        line.split() for line in result.stdout.splitlines()
    ]
    summary.write_text(json.dumps({**whole, "pixel_sizes": [1.5, 2.0]}))
    result = run("evaluate", scores, "--truth", tmp_path / "truth.csv")
    assert result.exit_code == 2
    assert "--radius" in result.stderr
