"""`--write-score`: P(particle) where the next program looks for a score."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prune_world import FakeScorer, coordinates_of, make_micrographs, make_project, tree

from pickeropt.errors import FormatError
from pickeropt.io.picks import read_picks
from pickeropt.prune.prune_config import PruneConfig
from pickeropt.prune.pruning import prune


def config_for(root: Path, **changes: object) -> PruneConfig:
    config = PruneConfig(micrographs=(root / "mics",), out=root / "out", write_score=True)
    return replace(config, **changes)  # type: ignore[arg-type]


def table(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_both_sides_have_the_scores_of_the_table(tmp_path: Path) -> None:
    picks = make_project(tmp_path)
    before = tree(picks)
    prune([picks], config_for(tmp_path, prior=0.4), FakeScorer())
    prune([picks], config_for(tmp_path, prior=0.4, write_score=False, out=tmp_path / "plain"), FakeScorer())
    assert tree(picks) == before
    rows = table(tmp_path / "out")
    assert rows == table(tmp_path / "plain")
    for name in before:
        for side in ("kept", "rejected"):
            own = [row for row in rows if row["file"] == name and (row["kept"] == "1") == (side == "kept")]
            lines = (tmp_path / "out" / side / name).read_text().splitlines()
            plain = (tmp_path / "plain" / side / name).read_text().splitlines()
            assert "_pickeroptPickerFigureOfMerit #4" in lines
            lines.remove("_pickeroptPickerFigureOfMerit #4")
            assert len(lines) == len(plain)
            found = [line.split() for line, old in zip(lines, plain, strict=True) if line != old]
            x, y, score, merit = zip(*found, strict=True) if found else ((), (), (), ())
            assert list(score) == [row["score"] for row in own]
            assert [float(value) for value in merit] == [float(row["figure_of_merit"]) for row in own]
            coordinates = [line.split()[:2] for line in plain if line and line.split()[0][-1].isdigit()]
            assert [list(pair) for pair in zip(x, y, strict=True)] == [c for c in coordinates if "." in c[0]]


def test_threshold_zero_keeps_every_row_with_its_score(tmp_path: Path) -> None:
    picks = make_project(tmp_path)
    prune([picks], config_for(tmp_path, threshold=0.0), FakeScorer())
    rows = table(tmp_path / "out")
    for name in tree(picks):
        file = read_picks(tmp_path / "out/kept" / name)
        own = [float(row["score"]) for row in rows if row["file"] == name]
        assert file.picks.figure_of_merit.tolist() == own
        np.testing.assert_array_equal(file.picks.coordinates, read_picks(picks / name).picks.coordinates)


def test_a_format_without_room_is_refused_before_any_compute(tmp_path: Path) -> None:
    make_micrographs(tmp_path / "mics", ["a.mrc"])
    rows = [f'[{x}, {y}, "manual"]' for x, y in coordinates_of("a.mrc", 3).tolist()]
    (tmp_path / "a_info.json").write_text('{"boxes": [' + ", ".join(rows) + "]}")
    config = config_for(tmp_path)
    scorer = FakeScorer()
    with pytest.raises(FormatError, match=r"a_info\.json: a eman2-json file has no place .*--write-score"):
        prune([tmp_path / "a_info.json"], config, scorer)
    assert not scorer.calls
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_info.json", "mics"]
