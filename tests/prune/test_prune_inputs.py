"""Which files are meant, what they are called again, and what is refused before any compute."""

import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prune_world import (
    SUMMARY,
    FakeScorer,
    coordinate_star,
    coordinates_of,
    data_rows,
    make_micrographs,
    make_project,
    particles_star,
    tree,
)

from pickeropt.errors import CheckpointError, FormatError, GeometryError, MicrographError, OutputError, PickeroptError
from pickeropt.io.inputs import read_inputs
from pickeropt.io.lists import read_coordinate_list
from pickeropt.io.picks import read_picks
from pickeropt.prune import pruning
from pickeropt.prune.prune_config import PruneConfig, ScorerConfig
from pickeropt.prune.pruning import prune


def config_for(root: Path, **changes: object) -> PruneConfig:
    return replace(PruneConfig(micrographs=(root / "mics",), out=root / "out"), **changes)  # type: ignore[arg-type]


def refused(
    root: Path, inputs: list[Path], kind: type[PickeroptError], scorer: FakeScorer | None = None, **changes: object
) -> str:
    """The message of a pruning that is refused before any score, with nothing left behind."""
    before = tree(root)
    scorer = scorer or FakeScorer()
    with pytest.raises(kind) as caught:
        prune(inputs, config_for(root, **changes), scorer)
    assert type(caught.value) is kind
    assert not scorer.calls
    assert tree(root) == before
    assert not (root / "out.partial").exists()
    return str(caught.value)


def write_list(path: Path, rows: list[tuple[str, str]]) -> Path:
    head = "# version 50001\n\ndata_coordinate_files\n\nloop_ \n"
    head += "_rlnMicrographName #1 \n_rlnMicrographCoordinates #2 \n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + "".join(f"{name} {coordinates} \n" for name, coordinates in rows) + " \n")
    return path


@pytest.fixture
def relion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A RELION project with two micrographs and an AutoPick job; the current folder is in it."""
    monkeypatch.chdir(tmp_path)
    names = ["MotionCorr/job002/Movies/m0.mrc", "MotionCorr/job002/Movies/m1.mrc"]
    make_micrographs(tmp_path, names)
    job = Path("AutoPick/job006")
    rows = []
    for name in names:
        path = job / "Movies" / f"{Path(name).stem}_autopick.star"
        coordinate_star(path, coordinates_of(name, 10))
        rows.append((name, str(path)))
    write_list(job / "autopick.star", rows)
    (job / "job.star").write_text("data_job\n\n_rlnJobTypeLabel relion.autopick\n")
    return tmp_path


# ---------------------------------------------------------------- what is read and written


def test_a_list_is_rewritten_to_the_pruned_files(relion: Path) -> None:
    config = PruneConfig(out=Path("pruned"))
    summary = prune([Path("AutoPick/job006/autopick.star")], config, FakeScorer())
    assert summary.picks == 20
    for side, count in (("kept", summary.kept), ("rejected", summary.rejected)):
        written = read_coordinate_list(Path("pruned") / side / "autopick.star")
        assert written.micrograph_names == (
            "MotionCorr/job002/Movies/m0.mrc",
            "MotionCorr/job002/Movies/m1.mrc",
        )
        assert written.coordinate_paths == tuple(f"pruned/{side}/Movies/m{i}_autopick.star" for i in range(2))
        assert sum(len(read_picks(Path(path)).picks) for path in written.coordinate_paths) == count
    rows = (relion / "pruned/scores.csv").read_text().splitlines()
    assert rows[1].startswith("Movies/m0_autopick.star,0,MotionCorr/job002/Movies/m0.mrc,")


def test_a_list_and_the_folder_it_is_in_give_the_same(relion: Path) -> None:
    job = Path("AutoPick/job006")
    alone = prune([job / "autopick.star"], PruneConfig(out=Path("pruned")), FakeScorer())
    alone_files = tree(relion / "pruned")
    config = PruneConfig(out=Path("pruned"), overwrite=True)
    both = prune([job, job / "autopick.star"], config, FakeScorer())
    assert alone.picks == both.picks == 20
    assert tree(relion / "pruned") == alone_files
    assert alone.warnings == ()
    assert both.warnings == ("1 STAR files without coordinates are skipped: AutoPick/job006/job.star",)


def test_an_alias_of_a_job_is_not_read_twice(relion: Path) -> None:
    (relion / "AutoPick/alias").symlink_to(relion / "AutoPick/job006")
    found = read_inputs([Path("AutoPick")])
    assert [source.name for source in found.sources] == [
        "job006/Movies/m0_autopick.star",
        "job006/Movies/m1_autopick.star",
    ]
    assert [listed.name for listed in found.lists] == ["job006/autopick.star"]


def test_a_list_names_the_micrograph_of_a_file_called_otherwise(relion: Path) -> None:
    coordinate_star(Path("odd.star"), coordinates_of("x", 5))
    listed = write_list(Path("list.star"), [("MotionCorr/job002/Movies/m1.mrc", "odd.star")])
    scorer = FakeScorer()
    prune([listed], PruneConfig(out=Path("pruned")), scorer)
    assert scorer.calls == ["m1.mrc"]
    refusal = r"odd.*: 1 micrograph is missing: odd"
    with pytest.raises(MicrographError, match=refusal.removeprefix("odd.*: ")):
        prune([Path("odd.star")], PruneConfig(out=Path("other")), scorer)


def test_a_file_of_two_micrographs_in_a_list_is_refused(relion: Path) -> None:
    coordinate_star(Path("odd.star"), coordinates_of("x", 5))
    listed = write_list(Path("list.star"), [("a.mrc", "odd.star"), ("b.mrc", "odd.star")])
    with pytest.raises(FormatError, match=r"list\.star: odd\.star belongs to a\.mrc in one row and to b\.mrc"):
        read_inputs([listed])


def test_box_files_are_pruned(tmp_path: Path) -> None:
    make_micrographs(tmp_path / "mics", ["m0.mrc"])
    path = tmp_path / "m0.box"
    path.write_text("".join(f"{x}\t{y}\t10\t10\n" for x, y in ((0, 0), (30, 20), (60, 40), (5, 33))))
    summary = prune([path], config_for(tmp_path), FakeScorer())
    kept, rejected = tmp_path / "out/kept/m0.box", tmp_path / "out/rejected/m0.box"
    assert sorted(data_rows(kept) + data_rows(rejected)) == sorted(data_rows(path))
    assert len(data_rows(kept)) == summary.kept


def test_files_without_picks_pass_and_need_no_micrograph(tmp_path: Path) -> None:
    project = make_project(tmp_path, count=1)
    empty = coordinate_star(project / "gone_autopick.star", np.empty((0, 2)))
    summary = prune([project], config_for(tmp_path), FakeScorer())
    assert (summary.picks, summary.micrographs) == (12, 1)
    assert (tmp_path / "out/kept/gone_autopick.star").read_bytes() == empty.read_bytes()
    assert (tmp_path / "out/rejected/gone_autopick.star").read_bytes() == empty.read_bytes()


def test_one_file_given_twice_counts_once(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    inputs = [project / "m0_autopick.star", project, project / "sub/m1_autopick.star"]
    for given in (inputs, inputs[::-1]):
        assert [source.name for source in read_inputs(given).sources] == [
            "m0_autopick.star",
            "m2_autopick.star",
            "sub/m1_autopick.star",
            "sub/m3_autopick.star",
        ]


def test_picks_at_and_over_the_border_are_scored(tmp_path: Path) -> None:
    make_micrographs(tmp_path / "mics", ["m0.mrc"])  # 80 x 60 px; half a diameter is 5 px
    xy = np.array([[-5.0, 0], [85, 60], [0, 65], [79.9, -5], [40, 30]])
    path = coordinate_star(tmp_path / "m0.star", xy)
    assert prune([path], config_for(tmp_path), FakeScorer()).picks == 5


# ---------------------------------------------------------------- what is refused: files


def test_nothing_to_read(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "notes.txt").write_text("1 2 and so on")
    assert "no files of picks" in refused(tmp_path, [folder], FormatError)
    assert "no files of picks" in refused(tmp_path, [], FormatError)
    assert "No such file" in refused(tmp_path, [tmp_path / "gone.star"], FormatError)


def test_no_picks_at_all(tmp_path: Path) -> None:
    paths = [coordinate_star(tmp_path / f"{i}.star", np.empty((0, 2))) for i in range(2)]
    assert "the 2 files have no picks" in refused(tmp_path, paths, FormatError)


def test_a_damaged_file_in_a_folder_is_not_skipped(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    path = project / "m0_autopick.star"
    path.write_text(path.read_text().rstrip()[:-4] + "\n")
    message = refused(tmp_path, [project], FormatError)
    assert message.startswith(f"{path}, line 21: 2 values where 3 are expected")


def test_a_link_to_nothing_in_a_folder_is_not_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.box").write_text("10 20 4 4\n")
    (tmp_path / "b.box").symlink_to(tmp_path / "gone.box")
    with pytest.raises(FormatError, match=r"b\.box: is a link to nothing; mend the link, or remove it"):
        read_inputs([tmp_path])


def test_a_name_that_no_table_can_hold_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xe9.box"))
    path.write_text("10 20 4 4\n")
    for given in (tmp_path, path):
        with pytest.raises(FormatError, match="the file's name is not UTF-8; rename it"):
            read_inputs([given])


def test_two_files_of_one_name(tmp_path: Path) -> None:
    paths = [coordinate_star(tmp_path / f / "a.star", coordinates_of("a", 3)) for f in ("x", "y")]
    message = refused(tmp_path, paths, OutputError)
    assert "would both be written as kept/a.star" in message
    assert "give the folder that holds both" in message
    assert len(read_inputs([tmp_path]).sources) == 2


# ---------------------------------------------------------------- what is refused: micrographs


def test_a_missing_micrograph(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    (tmp_path / "mics/m2.mrc").unlink()
    message = refused(tmp_path, [project], MicrographError)
    assert "1 micrograph is missing: m2_autopick" in message
    assert "--micrographs" in message


def test_truncated_micrographs(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    for name in ("m1.mrc", "m3.mrc"):
        path = tmp_path / "mics" / name
        path.write_bytes(path.read_bytes()[:-100])
    message = refused(tmp_path, [project], MicrographError)
    assert "m1.mrc: truncated, 20124 bytes where the header (80 x 60 x 1, mode 2) says 20224" in message
    assert "(1 more micrographs cannot be read either)" in message


def test_coordinates_outside(tmp_path: Path) -> None:
    make_micrographs(tmp_path / "mics", ["m0.mrc"])
    path = coordinate_star(tmp_path / "m0.star", np.array([[10.0, 10], [85.1, 30], [40, 30], [300, -7]]))
    message = refused(tmp_path, [path], GeometryError)
    assert message.startswith(f"{path}, line 11: the pick at x 85.1, y 30 lies outside ")
    assert "m0.mrc, 80 x 60 px (2 of its 4 picks do)" in message
    assert "binning" in message


@pytest.mark.parametrize("place", [(-5.01, 30), (85.01, 30), (40, -5.01), (40, 65.01)])
def test_outside_on_each_side(tmp_path: Path, place: tuple[float, float]) -> None:
    make_micrographs(tmp_path / "mics", ["m0.mrc"])
    path = coordinate_star(tmp_path / "m0.star", np.array([place]))
    assert f"x {place[0]:g}, y {place[1]:g} lies outside" in refused(tmp_path, [path], GeometryError)


def test_pixel_sizes_that_differ(tmp_path: Path) -> None:
    make_micrographs(tmp_path / "mics", ["m0.mrc"], pixel_size=2.0)
    path = particles_star(tmp_path / "p.star", [("m0.mrc", 10, 10)], pixel_size=2.03)
    message = refused(tmp_path, [path], GeometryError)
    assert "2 Å/px by the header" in message
    assert f"2.03 Å/px by {path}" in message
    assert "--pixel-size" in message
    seen: list[float] = []

    class Noting(FakeScorer):
        def score(self, micrograph, coordinates, pixel_size):  # type: ignore[no-untyped-def]
            seen.append(pixel_size)
            return super().score(micrograph, coordinates, pixel_size)

    prune([path], config_for(tmp_path, pixel_size=1.9), Noting())
    particles_star(path, [("m0.mrc", 10, 10)], pixel_size=2.019)
    prune([path], config_for(tmp_path, overwrite=True), Noting())
    assert seen == [1.9, 2.019]


def test_no_pixel_size(tmp_path: Path) -> None:
    make_micrographs(tmp_path / "mics", ["m0.mrc"])
    path = tmp_path / "mics/m0.mrc"
    content = bytearray(path.read_bytes())
    content[40:52] = struct.pack("<3f", 0, 0, 0)
    path.write_bytes(content)
    picks = coordinate_star(tmp_path / "m0.star", coordinates_of("m0.mrc", 3))
    message = refused(tmp_path, [picks], GeometryError)
    assert message.endswith("neither its header nor the coordinate files say the pixel size; give it with --pixel-size")
    assert prune([picks], config_for(tmp_path, pixel_size=2.0), FakeScorer()).picks == 3


def test_a_particle_larger_than_the_micrograph_or_of_no_size(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    for flag, shown in ((0.1, "200"), (6.0, "3.33")):
        message = refused(tmp_path, [project], GeometryError, pixel_size=flag)
        assert f"the particle is {shown} px across on 80 x 60 px" in message
        assert "--diameter" in message


def test_a_model_taught_at_a_pixel_size_that_was_given(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    said = "the model was taught with --pixel-size 3, and the micrographs say 2 Å/px: give --pixel-size"
    warnings = prune([project], config_for(tmp_path), FakeScorer(taught_pixel_size=3.0)).warnings
    assert [warning for warning in warnings if warning.startswith(said)]
    for taught, flag in ((2.01, None), (3.0, 2.0)):
        config = replace(config_for(tmp_path, pixel_size=flag), overwrite=True)
        warnings = prune([project], config, FakeScorer(taught_pixel_size=taught)).warnings
        assert not any("taught" in warning for warning in warnings)


def test_warnings_of_frames(tmp_path: Path) -> None:
    make_micrographs(tmp_path / "mics", ["m0.mrc"])
    make_micrographs(tmp_path / "mics", ["m1.mrc"], pixel_size=2.1)
    corner = [coordinate_star(tmp_path / f"m{i}.star", coordinates_of("a", 60) / 2) for i in range(2)]
    summary = prune(corner, config_for(tmp_path), FakeScorer())
    sizes, binned = summary.warnings
    assert sizes == "the micrographs have pixel sizes from 2 to 2.1 Å/px"
    assert binned.endswith("of width and height; are they coordinates of binned micrographs?")
    whole = coordinate_star(tmp_path / "m0.star", coordinates_of("a", 120))
    assert prune([whole], config_for(tmp_path, out=tmp_path / "2"), FakeScorer()).warnings == ()


# ---------------------------------------------------------------- what is refused: settings


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_thresholds_out_of_range(tmp_path: Path, threshold: float) -> None:
    message = refused(tmp_path, [make_project(tmp_path)], PickeroptError, threshold=threshold)
    assert "give one from 0 to 1" in message


def test_sizes_that_are_none(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    assert "--pixel-size is 0" in refused(tmp_path, [project], GeometryError, pixel_size=0.0)
    with pytest.raises(GeometryError, match="--diameter is nan"):
        prune([project], config_for(tmp_path), FakeScorer(diameter_angstrom=float("nan")))
    with pytest.raises(CheckpointError, match="no class 'particle'"):
        prune([project], config_for(tmp_path), FakeScorer(class_names=("a", "b", "c")))


# ---------------------------------------------------------------- what is refused: the output


def test_an_output_that_exists(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious.txt").write_text("not ours")
    assert "--overwrite" in refused(tmp_path, [project], OutputError)
    assert "is no earlier output" in refused(tmp_path, [project], OutputError, overwrite=True)
    file = tmp_path / "mics/m0.mrc"
    assert "is no earlier output" in refused(tmp_path, [project], OutputError, overwrite=True, out=file)


@pytest.mark.parametrize("out", ["picks", "picks/out", "picks/sub/../new", "link/out"])
def test_an_output_in_an_input_folder(tmp_path: Path, out: str) -> None:
    project = make_project(tmp_path)
    (tmp_path / "link").symlink_to(project)
    (project / "summary.json").write_text(SUMMARY)
    message = refused(tmp_path, [project], OutputError, out=tmp_path / out, overwrite=True)
    assert "lies in the input folder" in message


@pytest.mark.parametrize("inside", ["picks", "mics", "model"])
def test_an_output_that_holds_an_input(tmp_path: Path, inside: str) -> None:
    project = make_project(tmp_path)
    out = tmp_path / "work"
    out.mkdir()
    (out / "summary.json").write_text(SUMMARY)
    moved = {"picks": project, "mics": tmp_path / "mics", "model": tmp_path / "model"}
    (tmp_path / "model").write_text("weights")
    moved[inside].rename(out / inside)
    moved[inside] = out / inside
    changes = {"micrographs": (moved["mics"],), "out": out, "overwrite": True}
    scorer = FakeScorer(config=ScorerConfig(moved["model"]))
    message = refused(tmp_path, [moved["picks"]], OutputError, scorer, **changes)
    assert "would overwrite the input" in message


def test_an_output_in_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    (tmp_path / "file").write_text("")
    message = refused(tmp_path, [project], OutputError, out=tmp_path / "file/out")
    assert "cannot be written" in message


def test_a_pruning_can_be_pruned_again(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    first = prune([project], config_for(tmp_path), FakeScorer())
    again = config_for(tmp_path, out=tmp_path / "again")
    second = prune([tmp_path / "out/kept"], again, FakeScorer())
    assert (second.picks, second.rejected) == (first.kept, 0)
    assert tree(tmp_path / "again/kept") == tree(tmp_path / "out/kept")


def test_a_write_error_leaves_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path)

    def full(*arguments: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(pruning, "write_scores", full)
    with pytest.raises(OutputError, match="No space left"):
        prune([project], config_for(tmp_path), FakeScorer())
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    assert prune([project], config_for(tmp_path), FakeScorer()).resumed == 4
