"""Pruning files of every format, alone and in folders: kept and rejected are the input."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prune_world import SHAPE, FakeScorer, coordinate_star, coordinates_of, make_micrographs, tree

from pickeropt.convert.conversion import convert
from pickeropt.convert.convert_config import ConvertConfig
from pickeropt.errors import FormatError, GeometryError, OutputError
from pickeropt.io.deeppicker import write_deeppicker
from pickeropt.io.inputs import read_inputs
from pickeropt.io.picks import read_picks
from pickeropt.io.picks_file import placed
from pickeropt.prune.prune_config import PruneConfig
from pickeropt.prune.pruning import prune
from pickeropt.records import Picks

COUNT = 12
WRITTEN = {
    "star": "m0.star",
    "box": "m0.box",
    "cbox": "m0.cbox",
    "eman2": "m0_info.json",
    "xmipp": "m0.pos",
    "csv": "m0.csv",
    "xy": "m0.txt",
    "topaz": "all.txt",
    "cryoppp": "m0.csv",
    "deeppicker": "autopick_results.pickle",
    "cryosparc": "picked.cs",
}


def config_for(root: Path, **changes: object) -> PruneConfig:
    return replace(PruneConfig(micrographs=(root / "mics",), out=root / "out"), **changes)  # type: ignore[arg-type]


def make(root: Path, kind: str) -> Path:
    """The picks of m0.mrc in a format; the same coordinates in all."""
    make_micrographs(root / "mics", ["m0.mrc"])
    xy = np.rint(coordinates_of("m0.mrc", COUNT))
    path = root / "picks" / WRITTEN[kind]
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "deeppicker":
        picks = Picks(xy, ("m0.mrc",), np.zeros(COUNT, int), np.arange(COUNT) / 10)
        path.write_bytes(write_deeppicker(picks))
        return path
    if kind == "cryosparc":
        return cryosparc(path, xy)
    source = coordinate_star(root / "first" / "m0.star", xy)
    convert(source, path, ConvertConfig(to=kind, diameter_angstrom=20, pixel_size=2, micrographs=(root / "mics",)))
    return path


def cryosparc(path: Path, xy: np.ndarray) -> Path:
    """A .cs with a passthrough that has the places."""
    size = np.array(SHAPE[::-1])
    places = np.zeros(len(xy), [("uid", "<u8"), ("path", "S9"), ("shape", "<u4", (2,)), ("x", "<f8"), ("y", "<f8")])
    places["uid"], places["path"], places["shape"] = np.arange(len(xy)) + 5, b"m0.mrc", SHAPE
    # a little more than whole px: a fraction times a size must not fall below
    places["x"], places["y"] = ((xy + 1e-6) / size * [1, -1] + [0, 1]).T
    places.dtype.names = (
        "uid",
        "location/micrograph_path",
        "location/micrograph_shape",
        "location/center_x_frac",
        "location/center_y_frac",
    )
    main = np.zeros(len(xy), [("uid", "<u8"), ("blob/idx", "<u4")])
    main["uid"], main["blob/idx"] = places["uid"], np.arange(len(xy))
    for name, array in ((path.name, main), (f"J1_passthrough_{path.name}", places[::-1])):
        with (path.parent / name).open("wb") as file:
            np.save(file, array)
    return path


def scores(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def stored_rows(path: Path) -> np.ndarray:
    file = read_picks(path)
    return placed(file, np.full(len(file.picks), SHAPE[0]))


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_format_is_pruned(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path, kind)
    before = tree(tmp_path / "picks")
    xy = np.rint(coordinates_of("m0.mrc", COUNT))
    summary = prune([path], config_for(tmp_path), FakeScorer())
    assert tree(tmp_path / "picks") == before
    assert 0 < summary.kept < COUNT
    rows = scores(tmp_path / "out")
    found = np.array([(float(row["x"]), float(row["y"])) for row in rows])
    np.testing.assert_allclose(found, xy, rtol=0, atol=1e-4)  # y of CryoPPP and cryoSPARC turned to stored rows
    keep = np.array([row["kept"] == "1" for row in rows])
    for side, flags in (("kept", keep), ("rejected", ~keep)):
        written = tmp_path / "out" / side / path.name
        np.testing.assert_allclose(stored_rows(written), xy[flags], rtol=0, atol=1e-4)
    all_kept = prune([path], config_for(tmp_path, out=tmp_path / "all", threshold=0.0), FakeScorer())
    assert all_kept.rejected == 0
    kept = tree(tmp_path / "all" / "kept")
    assert kept == {name: data for name, data in before.items() if name in kept}
    assert len(kept) == (2 if kind == "cryosparc" else 1)


def test_scores_are_the_same_in_every_format(tmp_path: Path) -> None:
    found = {}
    for kind in WRITTEN:
        path = make(tmp_path / kind, kind)
        prune([path], config_for(tmp_path / kind), FakeScorer())
        found[kind] = [row["score"] for row in scores(tmp_path / kind / "out")]
    assert all(values == found["star"] for values in found.values())


def test_a_folder_of_many_formats(tmp_path: Path) -> None:
    make_micrographs(tmp_path / "mics", [f"m{i}.mrc" for i in range(4)])
    folder = tmp_path / "picks"
    coordinate_star(folder / "m0_autopick.star", coordinates_of("m0", 5))
    (folder / "m1.cbox").write_text("")
    (folder / "m2_info.json").write_text('{"boxes": [[10, 12, "manual"], [20, 22, "manual"]], "x": 1}')
    (folder / "m3.csv").write_text("x,y\r\n30,31\r\n")
    (folder / "scores.csv").write_text("file,row,micrograph,x,y\na,0,b,1,2\n")
    (folder / "notes.txt").write_text("1 2 3 4 5\n6 7 8 9 10\n")
    (folder / "settings.json").write_text('{"a": 1}')
    (folder / "micrographs.cs").write_bytes(b"\x93NUMPY\x01\x00")
    (folder / "job.star").write_text("data_job\n\n_rlnJobTypeLabel relion.autopick\n")
    summary = prune([folder], config_for(tmp_path), FakeScorer())
    assert summary.picks == 8
    written = {"m0_autopick.star", "m1.cbox", "m2_info.json", "m3.csv"}
    for side in ("kept", "rejected"):
        assert {path.name for path in (tmp_path / "out" / side).iterdir()} == written
        json.loads((tmp_path / "out" / side / "m2_info.json").read_text())
    skipped = [text for text in summary.warnings if "skipped" in text]
    assert skipped[0].startswith("1 STAR files without coordinates are skipped: ")
    assert skipped[1].startswith("4 files that hold no picks are skipped: ")
    assert "micrographs.cs" in skipped[1]


def test_a_damaged_json_in_a_folder_is_not_skipped(tmp_path: Path) -> None:
    path = make(tmp_path, "eman2")
    path.write_text(path.read_text()[:-5])
    with pytest.raises(FormatError, match=r"m0_info\.json, line \d+: this is no JSON"):
        prune([path.parent], config_for(tmp_path), FakeScorer())


def test_filaments_are_refused_by_name(tmp_path: Path) -> None:
    path = make(tmp_path, "cbox")
    text = path.read_text().replace("_Angle #11\n", "_Angle #11\n_filamentid #12\n")
    path.write_text(text.replace("<NA> <NA>\n", "<NA> <NA> 3.0\n"))
    scorer = FakeScorer()
    with pytest.raises(FormatError, match=r"m0\.cbox: holds filaments.*pickeropt convert .*m0\.cbox SEGMENTS\.star"):
        prune([path], config_for(tmp_path), scorer)
    assert not scorer.calls
    assert not (tmp_path / "out").exists()
    convert(path, tmp_path / "picks" / "m0.star", ConvertConfig())
    assert prune([tmp_path / "picks" / "m0.star"], config_for(tmp_path), scorer).picks == COUNT


def test_a_passthrough_goes_with_its_main_file(tmp_path: Path) -> None:
    path = make(tmp_path, "cryosparc")
    inputs = read_inputs([path.parent])
    assert [source.name for source in inputs.sources] == ["picked.cs"]
    summary = prune([path.parent], config_for(tmp_path), FakeScorer())
    for side, count in (("kept", summary.kept), ("rejected", summary.rejected)):
        main, places = (np.load(tmp_path / "out" / side / name) for name in ("picked.cs", "J1_passthrough_picked.cs"))
        assert len(main) == len(places) == count
        assert set(main["uid"]) == set(places["uid"])


def test_two_files_with_one_companion(tmp_path: Path) -> None:
    path = make(tmp_path, "cryosparc")
    (path.parent / "more_picked.cs").write_bytes(path.read_bytes())
    with pytest.raises(OutputError, match=r"would both be kept/J1_passthrough_picked\.cs; prune them one after"):
        read_inputs([path.parent])


def test_a_pick_outside_is_named_by_line_or_row(tmp_path: Path) -> None:
    make_micrographs(tmp_path / "mics", ["m0.mrc"])
    folder = tmp_path / "picks"
    folder.mkdir()
    (folder / "m0.csv").write_text("X-Coordinate,Y-Coordinate\n10,10\n10,100\n")
    with pytest.raises(GeometryError, match=r"m0\.csv, line 3: the pick at x 10, y -40 lies outside"):
        prune([folder], config_for(tmp_path), FakeScorer())
    cryosparc(folder / "picked.cs", np.array([[10.0, 10.0], [200.0, 10.0]]))
    with pytest.raises(GeometryError, match=r"picked\.cs, row 1: the pick at x 200, y 10 lies outside"):
        prune([folder / "picked.cs"], config_for(tmp_path), FakeScorer())


def test_a_suffix_file_keeps_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RELION 3.1: the list is a path, and the coordinate files lie beside it."""
    monkeypatch.chdir(tmp_path)
    names = [f"MotionCorr/job002/Movies/m{i}.mrc" for i in range(3)]
    make_micrographs(tmp_path, names)
    Path("CtfFind/job003").mkdir(parents=True)
    star = "data_\nloop_\n_rlnMicrographName #1\n" + "".join(f"{name}\n" for name in names)
    Path("CtfFind/job003/micrographs_ctf.star").write_text(star)
    job = Path("AutoPick/job006")
    for name in names[:2]:
        coordinate_star(job / "Movies" / f"{Path(name).stem}_autopick.star", coordinates_of(name, 6))
    suffix = job / "coords_suffix_autopick.star"
    suffix.write_text("CtfFind/job003/micrographs_ctf.star\n")
    for inputs in ([suffix], [job]):
        summary = prune(inputs, PruneConfig(out=Path("pruned"), overwrite=True), FakeScorer())
        assert summary.picks == 12
        assert summary.warnings == ()
        assert {row["micrograph"] for row in scores(Path("pruned"))} == set(names[:2])
        for side in ("kept", "rejected"):
            assert set(tree(Path("pruned") / side)) == {
                "coords_suffix_autopick.star",
                "Movies/m0_autopick.star",
                "Movies/m1_autopick.star",
            }
            assert (Path("pruned") / side / suffix.name).read_bytes() == suffix.read_bytes()
