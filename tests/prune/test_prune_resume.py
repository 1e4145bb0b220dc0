"""A killed run goes on; a finished micrograph is never computed twice; OUT is whole or absent."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prune_world import FakeScorer, make_micrographs, make_project, tree

from pickeropt.errors import MicrographError, OutputError
from pickeropt.io.micrographs import write_mrc
from pickeropt.prune.prune_config import PruneConfig
from pickeropt.prune.pruning import prune


def config_for(root: Path, **changes: object) -> PruneConfig:
    return replace(PruneConfig(micrographs=(root / "mics",), out=root / "out"), **changes)  # type: ignore[arg-type]


class StopError(Exception):
    """What a test throws into a run."""


def stop_after(count: int) -> FakeScorer:
    scorer = FakeScorer()

    def fault(micrograph: object, found: np.ndarray) -> np.ndarray:
        if len(scorer.calls) > count:
            raise StopError
        return found

    scorer.fault = fault
    return scorer


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A project of four micrographs with a run that stopped in the third. Returns the picks."""
    picks = make_project(tmp_path)
    with pytest.raises(StopError):
        prune([picks], config_for(tmp_path), stop_after(2))
    assert not (tmp_path / "out").exists()
    return picks


@pytest.mark.slow
@pytest.mark.parametrize(("count", "option"), [(2, []), (1, ["--overwrite"])])
def test_killed_at_any_file_operation(tmp_path: Path, count: int, option: list[str]) -> None:
    picks = make_project(tmp_path, count=count, picks=2)
    prune([picks], config_for(tmp_path), FakeScorer())
    whole = {name: data.decode() for name, data in tree(tmp_path / "out").items()}
    script = Path(__file__).with_name("prune_killed.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(tmp_path), *option]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["killed"] for report in reports] == [True] * (len(reports) - 1) + [False]
    assert {report["saved"] for report in reports} == set(range(count + 1))
    notes = {"notes.txt": "the user's"} if option else {}
    wanted = sorted([*whole, *notes])
    for report in reports:
        former = [["kept/old.star", *notes], ["kept/old.star"]] if option else []
        assert report["between"] in [None, wanted, *former]
        assert report["after"] == whole | notes
        assert set(report["left"]) <= {"mics", "picks", "out", "log", "out.partial"}
        assert ("out.partial" not in report["left"]) or report["between"] == wanted
        assert len(set(report["first"])) == len(report["first"])
        if report["between"] != wanted:
            assert len(report["second"]) == len(set(report["second"])) == count - report["saved"]
    assert len([report for report in reports if report["saved"] == 1]) > 3


def test_it_goes_on_where_it_stopped(stopped: Path, tmp_path: Path) -> None:
    half_written = tmp_path / "out.partial/output/kept/of_other_inputs.star"
    half_written.parent.mkdir(parents=True)
    half_written.write_text("left by a run that was killed while it wrote")
    scorer = FakeScorer()
    told: list[tuple[int, int]] = []
    summary = prune([stopped], config_for(tmp_path), scorer, on_progress=lambda done, of: told.append((done, of)))
    assert len(scorer.calls) == 2
    assert summary.resumed == 2
    assert told == [(24, 48), (36, 48), (48, 48)]
    prune([stopped], config_for(tmp_path, out=tmp_path / "fresh"), FakeScorer())
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")
    assert not (tmp_path / "out.partial").exists()


def test_another_threshold_goes_on_too(stopped: Path, tmp_path: Path) -> None:
    assert prune([stopped], config_for(tmp_path, threshold=0.2), FakeScorer()).resumed == 2


@pytest.mark.parametrize(
    ("named", "scorer", "changes"),
    [
        ("the model", FakeScorer(digest="e" * 64), {}),
        ("--diameter", FakeScorer(diameter_angstrom=22.0), {}),
        ("--pixel-size", FakeScorer(), {"pixel_size": 2.01}),
        ("the classes", FakeScorer(class_names=("particle", "carbon")), {}),
    ],
)
def test_a_run_of_other_settings_is_refused(
    stopped: Path, tmp_path: Path, named: str, scorer: FakeScorer, changes: dict[str, float]
) -> None:
    before = tree(tmp_path / "out.partial")
    with pytest.raises(OutputError, match=rf"differs in {named} .*--overwrite"):
        prune([stopped], config_for(tmp_path, **changes), scorer)
    assert tree(tmp_path / "out.partial") == before
    assert not scorer.calls
    summary = prune([stopped], config_for(tmp_path, overwrite=True, **changes), scorer)
    assert len(scorer.calls) == 4
    assert summary.resumed == 0


def test_changed_picks_are_refused_then_only_theirs_are_scored_anew(stopped: Path, tmp_path: Path) -> None:
    path = stopped / "m0_autopick.star"
    path.write_text(path.read_text() + "10.0 10.0 0.5\n")
    remedy = "or go on with --overwrite: micrographs of which nothing has changed are not done again"
    with pytest.raises(OutputError, match=rf"differs in m0_autopick\.star.*{remedy}"):
        prune([stopped], config_for(tmp_path), FakeScorer())
    scorer = FakeScorer()
    summary = prune([stopped], config_for(tmp_path, overwrite=True), scorer)
    assert summary.picks == 49
    assert scorer.calls == ["m0.mrc", "m1.mrc", "m3.mrc"]  # m0 and m2 had been finished
    prune([stopped], config_for(tmp_path, out=tmp_path / "fresh"), FakeScorer())
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_a_changed_micrograph_is_scored_anew(stopped: Path, tmp_path: Path) -> None:
    make_micrographs(tmp_path / "mics", ["m0.mrc"])  # the same bytes at another time
    os.utime(tmp_path / "mics/m0.mrc", (1, 1))
    scorer = FakeScorer()
    assert prune([stopped], config_for(tmp_path), scorer).resumed == 1
    assert "m0.mrc" in scorer.calls


def test_a_damaged_record_is_scored_anew(stopped: Path, tmp_path: Path) -> None:
    records = sorted((tmp_path / "out.partial/records").iterdir())
    assert len(records) == 2
    records[0].write_bytes(records[0].read_bytes()[:-5])
    records[1].write_bytes(b"")
    (tmp_path / "out.partial/run.json").write_text("{")
    assert prune([stopped], config_for(tmp_path), FakeScorer()).resumed == 0


def test_a_faulty_micrograph_stops_the_run_and_it_goes_on(tmp_path: Path) -> None:
    picks = make_project(tmp_path)
    path = tmp_path / "mics/m1.mrc"
    good = path.read_bytes()
    place = 1024 + 4 * (5 * 80 + 7)
    path.write_bytes(good[:place] + np.float32(np.nan).tobytes() + good[place + 4 :])
    with pytest.raises(MicrographError) as caught:
        prune([picks], config_for(tmp_path), FakeScorer())
    assert str(caught.value).startswith(f"{path}: 1 pixels are not finite, the first at x 7, y 5")
    assert "2 of 4 micrographs are finished and stay in" in str(caught.value)
    assert "the same command goes on from there" in str(caught.value)
    assert not (tmp_path / "out").exists()
    path.write_bytes(good)
    scorer = FakeScorer()
    assert prune([picks], config_for(tmp_path), scorer).resumed == 2
    assert scorer.calls == ["m1.mrc", "m3.mrc"]


def test_a_faulty_micrograph_is_excluded_and_the_rest_counts(tmp_path: Path) -> None:
    picks = make_project(tmp_path)
    write_mrc(tmp_path / "mics/m1.mrc", np.ones((60, 80), dtype=np.float32), 2.0)
    excluded = "when it is excluded, give the command with --overwrite: what is finished still counts"
    with pytest.raises(MicrographError, match=f"the same command goes on from there; {excluded}"):
        prune([picks], config_for(tmp_path), FakeScorer())
    with pytest.raises(MicrographError, match=r"the same command goes on from there$"):
        prune([picks], config_for(tmp_path, overwrite=True), FakeScorer())
    (picks / "sub/m1_autopick.star").unlink()
    assert prune([picks], config_for(tmp_path, overwrite=True), FakeScorer()).resumed == 2


def test_nothing_is_left_where_nothing_was_finished(tmp_path: Path) -> None:
    picks = make_project(tmp_path, count=1)
    write_mrc(tmp_path / "mics/m0.mrc", np.ones((60, 80), dtype=np.float32), 2.0)
    with pytest.raises(MicrographError, match=r"every pixel is 1; exclude this micrograph, or write it again$"):
        prune([picks], config_for(tmp_path), FakeScorer())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mics", "picks"]


def test_scores_that_are_none_name_the_micrograph(tmp_path: Path) -> None:
    picks = make_project(tmp_path)

    def fault(micrograph: object, found: np.ndarray) -> np.ndarray:
        found[3, 0] = np.nan
        return found

    with pytest.raises(MicrographError, match=r"m0\.mrc: 1 of 12 scores are no probabilities, first at x"):
        prune([picks], config_for(tmp_path), FakeScorer(fault=fault))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mics", "picks"]


def test_two_runs_do_not_mix(tmp_path: Path) -> None:
    picks = make_project(tmp_path, count=2)
    log = tmp_path / "log"
    code = (
        "import sys; from pathlib import Path; from prune_world import FakeScorer\n"
        "from pickeropt.prune.pruning import prune; from pickeropt.prune.prune_config import PruneConfig\n"
        "root = Path(sys.argv[1])\n"
        "config = PruneConfig(micrographs=(root / 'mics',), out=root / 'out')\n"
        "prune([root / 'picks'], config, FakeScorer(log=root / 'log', seconds=0.3))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
    try:
        deadline = time.monotonic() + 20
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        scorer = FakeScorer()
        with pytest.raises(OutputError, match="another run is writing to it"):
            prune([picks], config_for(tmp_path), scorer)
        assert not scorer.calls
        assert other.wait(timeout=20) == 0
    finally:
        other.kill()
        other.wait()
    prune([picks], config_for(tmp_path, out=tmp_path / "fresh"), FakeScorer())
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")
