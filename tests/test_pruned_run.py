"""A pruned run: its table whole and in pieces, the number of its format, and one place that knows it."""

import json
from pathlib import Path

import numpy as np
import pytest

from pickeropt import pruned_run
from pickeropt.errors import FormatError, OutputError
from pickeropt.evaluate.evaluation import evaluate_scores
from pickeropt.io import delimited as csv_table
from pickeropt.pruned_run import (
    COLUMNS,
    FILTER,
    FORMAT,
    PROBABILITIES,
    SCORES,
    ScoresTable,
    diameter_px,
    open_run,
    read_scores,
    read_summary,
    score_pieces,
    write_kept,
    write_scores,
    write_summary,
)
from pickeropt.report.kinds import read_run

SUMMARY = {
    **{"picks": 3, "kept": 2, "rejected": 1, "threshold": 0.5, "diameter_angstrom": 60.0, "pixel_sizes": [2.0]},
    **{"settings": {}, "out": "pruned", "files": [{"name": "a.star"}, {"name": "b, c.star"}]},
}
TEXT = """\
file,row,micrograph,x,y,figure_of_merit,class,score,p_particle,p_ice,std,filter,kept
a.star,0,M/a.mrc,1.5,2.0,0.25,particle,0.750000,0.750000,0.250000,1.23457,,1
a.star,1,M/b.mrc,3.0,4.0,,ice,0.125000,0.125000,0.875000,2,min-distance,0
"b, c.star",0,M/a.mrc,5.0,-6.0,1.0,particle,0.500000,0.500000,0.500000,3,,1
"""
ALL = (*COLUMNS, PROBABILITIES, FILTER, "kept")


def table() -> ScoresTable:
    columns = {
        "file": np.array([0, 0, 1]),
        "row": np.array([0, 1, 0]),
        "micrograph": np.array([0, 1, 0]),
        "x": np.array([1.5, 3.0, 5.0]),
        "y": np.array([2.0, 4.0, -6.0]),
        "figure_of_merit": np.array([0.25, np.nan, 1.0]),
        "class": np.array([0, 1, 0]),
        "score": np.array([0.75, 0.125, 0.5], dtype=np.float32),
        PROBABILITIES: np.array([[0.75, 0.25], [0.125, 0.875], [0.5, 0.5]], dtype=np.float32),
        FILTER: np.array([0, 1, 0]),
        "kept": np.array([True, False, True]),
    }
    names = (("particle", "ice"), ("a.star", "b, c.star"), ("M/a.mrc", "M/b.mrc"), ("", "min-distance"))
    return ScoresTable(*names, columns, {"std": np.array([1.234567, 2.0, 3.0])})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_summary(tmp_path, SUMMARY)
    write_scores(tmp_path / SCORES, table())
    return tmp_path


def edit(folder: Path, **more: object) -> None:
    (folder / "summary.json").write_text(json.dumps({**json.loads((folder / "summary.json").read_text()), **more}))


def same(one: ScoresTable, other: ScoresTable) -> bool:
    names = (one.class_names, one.files, one.micrographs, one.reasons)
    return names == (other.class_names, other.files, other.micrographs, other.reasons) and all(
        np.array_equal(one[name], other[name], equal_nan=name == "figure_of_merit") for name in ALL
    )


def test_what_is_written_is_read_again(folder: Path) -> None:
    assert (folder / SCORES).read_text() == TEXT
    run = open_run(folder)
    assert same(run.scores(ALL), table())
    assert run.scores().coordinates.tolist() == [[1.5, 2.0], [3.0, 4.0], [5.0, -6.0]]
    assert run.kept_files == (folder / "kept/a.star", folder / "kept/b, c.star")
    assert run.rejected_files == (folder / "rejected/a.star", folder / "rejected/b, c.star")
    assert diameter_px(folder / SCORES) == 30.0


def test_pieces_give_the_same_as_the_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_scores(folder / SCORES, ALL)
    for size in (1, 2, 3, 4):
        monkeypatch.setattr(csv_table, "PIECE", size)
        monkeypatch.setattr(pruned_run, "PIECE", size)
        pieces = list(score_pieces(folder / SCORES, ALL))
        assert max(len(piece) for piece in pieces) == min(size, 3)
        assert sum(len(piece) for piece in pieces) == 3
        assert same(read_scores(folder / SCORES, ALL), whole)
        write_scores(folder / SCORES, table())
        assert (folder / SCORES).read_text() == TEXT


def test_another_decision_changes_the_last_cells_only(folder: Path) -> None:
    write_kept(folder / SCORES, folder / "new.csv", np.array([False, True, True]))
    old, new = TEXT.splitlines(), (folder / "new.csv").read_text().splitlines()
    assert [line[:-1] for line in new[1:]] == [line[:-1] for line in old[1:]]
    assert [line[-1] for line in new[1:]] == ["0", "1", "1"]
    assert new[0] == old[0]


def test_the_format_is_written_and_a_summary_without_it_is_read(folder: Path) -> None:
    content = json.loads((folder / "summary.json").read_text())
    assert content.pop("format") == FORMAT == 1
    (folder / "summary.json").write_text(json.dumps(content))
    assert read_summary(folder) == content
    assert len(open_run(folder).scores()) == 3
    write_summary(folder, {**content, "format": 0})
    assert read_summary(folder)["format"] == FORMAT


def test_a_later_format_is_refused(folder: Path) -> None:
    edit(folder, format=FORMAT + 1)
    for read in (read_summary, read_run, lambda path: read_scores(path / SCORES)):
        with pytest.raises(FormatError, match=r"summary\.json: format 2 is of a later pickeropt.*update pickeropt"):
            read(folder)


@pytest.mark.parametrize(
    "more",
    [
        *({"picks": "3"}, {"kept": True}, {"threshold": None}, {"diameter_angstrom": []}, {"settings": []}),
        *({"out": 1}, {"warnings": "none"}, {"files": {}}, {"format": "1"}, {"format": -1}),
    ],
)
def test_values_of_another_kind_are_refused(folder: Path, more: dict[str, object]) -> None:
    edit(folder, **more)
    with pytest.raises(OutputError, match=r"summary\.json: .*no summary of a pruning.*prune once more"):
        read_summary(folder)


@pytest.mark.parametrize("lines", [3, 5])
def test_a_table_that_was_cut_or_grew_is_refused(folder: Path, lines: int) -> None:
    rows = [*TEXT.splitlines(keepends=True), TEXT.splitlines(keepends=True)[-1]]
    (folder / SCORES).write_text("".join(rows[:lines]))
    (folder / "truth").mkdir()
    (folder / "truth/a.csv").write_text("x,y\n1,2\n")
    for read in (read_run, lambda path: evaluate_scores(path / SCORES, path / "truth", 5)):
        with pytest.raises(FormatError, match=rf"scores\.csv: has {lines - 1} rows.*counts 3 picks.*prune once more"):
            read(folder)


def test_only_one_module_knows_the_table_and_the_summary() -> None:
    package = Path(pruned_run.__file__).parent
    for path in sorted(package.rglob("*.py")):
        source = path.read_text()
        if path.name != "pruned_run.py":
            assert '"scores.csv"' not in source, path
            assert '"p_"' not in source, path
            assert '"summary.json"' not in source or path.name == "inputs.py", path
        if path.parent.name in ("report", "evaluate", "label", "relion", "prune"):
            assert "csv.reader" not in source, path
            assert "json.loads((folder / SUMMARY)" not in source, path
