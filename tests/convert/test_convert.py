"""`pickeropt convert`: any format to any other, losses are said, nothing of the user's is overwritten."""

import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pickeropt.cli import app
from pickeropt.convert.conversion import OUTPUT_FORMATS, convert
from pickeropt.convert.convert_config import ConvertConfig
from pickeropt.errors import FormatError, GeometryError, MicrographError, OutputError, PickeroptError
from pickeropt.frame.frame_config import FRAMES, Frame
from pickeropt.io.inputs import read_inputs
from pickeropt.io.lists import read_coordinate_list
from pickeropt.io.micrographs import write_mrc
from pickeropt.io.picks import read_picks
from pickeropt.io.picks_file import placed

HEIGHT, WIDTH = 50, 80
ENDINGS = {"topaz": ".txt", "xy": ".txt", "eman2": "_info.json", "xmipp": ".pos", "cryoppp": ".csv"}
ENDINGS |= {"cryosparc": ".cs", "deeppicker": ".pickle"}
BOXES = ConvertConfig(diameter_angstrom=15.0, pixel_size=1.5)
HEAD = "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnAutopickFigureOfMerit\n"
TOPAZ = "image_name\tx_coord\ty_coord\tscore\na\t10\t20\t-1.5\nb\t3\t4\t0.5\na\t1\t2\t0\n"


def star(folder: Path, rows: str, name: str = "m0_autopick.star") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(HEAD + rows)
    return folder / name


def topaz(folder: Path, content: str = TOPAZ) -> Path:
    (folder / "picks.txt").write_text(content)
    return folder / "picks.txt"


def micrograph(folder: Path, name: str) -> Path:
    pixels = np.random.default_rng(0).standard_normal((HEIGHT, WIDTH)).astype(np.float32)
    write_mrc(folder / "mics" / name, pixels, 1.5)
    return folder / "mics"


def read_rows(path: Path) -> np.ndarray:
    """(n, 3) x, y and score, rows as stored in a micrograph of HEIGHT."""
    file = read_picks(path)
    xy = placed(file, np.full(len(file.picks), HEIGHT))
    return np.column_stack([xy, file.picks.figure_of_merit])


# ---------------------------------------------------------------- values

EXACT = {
    "star": "\ndata_\n\nloop_ \n_rlnCoordinateX #1 \n_rlnCoordinateY #2 \n_rlnAutopickFigureOfMerit #3 \n"
    "   10.250000    20.000000          0.5 \n    3.000000    -4.000000          nan \n \n",
    "box": "5.25\t15\t10\t10\t0.5\n-2\t-9\t10\t10\tnan\n",
    "eman2": '{\n"boxes": [\n[10.25, 20, "manual", 0.5],\n[3, -4, "manual"]\n]\n}\n',
    "csv": "x,y,score\n10.25,20,0.5\n3,-4,\n",
    "xy": "10.25 20 0.5\n3 -4 nan\n",
    "topaz": "image_name\tx_coord\ty_coord\tscore\nm0\t10.25\t20\t0.5\nm0\t3\t-4\tnan\n",
}


@pytest.mark.parametrize("target", EXACT)
def test_written_exactly(tmp_path: Path, target: str) -> None:
    source = star(tmp_path, "10.25 20 0.5\n3 -4 nan\n")
    out = tmp_path / f"m0.{target}"
    report = convert(source, out, replace(BOXES, to=target))
    assert out.read_text() == EXACT[target]
    assert (report.format, report.picks, report.micrographs, report.files) == (target, 2, 1, (out,))


def test_cbox_as_cryolo_has_it(tmp_path: Path) -> None:
    convert(star(tmp_path, "10.25 20 0.5\n"), tmp_path / "m0.cbox", BOXES)
    text = (tmp_path / "m0.cbox").read_text()
    assert "\n5.25 15 <NA> 10 10 <NA> 10 10 0.5 <NA> <NA>\n" in text
    assert text.startswith("\ndata_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n_CoordinateX #1\n")
    assert text.endswith("\n\ndata_cryolo_include\n\nloop_\n_slice_index #1\n")


def test_what_xmipp_cannot_hold_is_said(tmp_path: Path) -> None:
    report = convert(star(tmp_path, "10.25 20 0.5\n3 -4.4 nan\n"), tmp_path / "m0.pos", ConvertConfig())
    assert report.notes == ("xmipp holds whole pixels: coordinates were rounded, by 0.4 px at most",)
    np.testing.assert_array_equal(read_rows(tmp_path / "m0.pos"), [[10, 20, 0.5], [3, -4, 0]])


def test_scale(tmp_path: Path) -> None:
    convert(star(tmp_path, "10.25 20 0.5\n"), tmp_path / "m0.txt", ConvertConfig(to="xy", scale=8))
    assert (tmp_path / "m0.txt").read_text() == "82 160 0.5\n"
    (tmp_path / "a.box").write_text("10 20 64 32\n")
    convert(tmp_path / "a.box", tmp_path / "b.box", ConvertConfig(scale=0.5))
    assert (tmp_path / "b.box").read_text() == "5\t10\t32\t16\n"


def test_flip_y(tmp_path: Path) -> None:
    mics = micrograph(tmp_path, "m0.mrc")
    source = star(tmp_path, "10 0 0.5\n3 12.25 1\n")
    convert(source, tmp_path / "m0.csv", ConvertConfig(flip_y=True, micrographs=(mics,)))
    np.testing.assert_array_equal(read_rows(tmp_path / "m0.csv"), [[10, HEIGHT - 1, 0.5], [3, 36.75, 1]])
    config = ConvertConfig(flip_y=True, micrographs=(mics,), scale=2, to="csv", overwrite=True)
    convert(source, tmp_path / "m0.csv", config)
    np.testing.assert_array_equal(read_rows(tmp_path / "m0.csv")[1], [6, 24.5, 1])
    with pytest.raises(MicrographError, match="1 micrograph is missing: m0_autopick"):
        convert(source, tmp_path / "m1.csv", ConvertConfig(flip_y=True))


@pytest.mark.parametrize("frame", [f.shifted(4.0, -7.0) for f in FRAMES[:16]])
def test_every_frame_of_the_doctor_can_be_mended(tmp_path: Path, frame: Frame) -> None:
    """As the frame doctor places them, but that a mirror takes the last pixel to 0."""
    mics = micrograph(tmp_path, "m0.mrc")
    config = ConvertConfig(
        scale=frame.scale,
        swap_xy=frame.swap,
        flip_x=frame.flip_x,
        flip_y=frame.flip_y,
        shift=frame.shift,
        micrographs=(mics,),
    )
    convert(star(tmp_path, "10 5 0.5\n3 12.25 1\n"), tmp_path / "m0.csv", config)
    placed = frame.place(np.array([[10, 5], [3, 12.25]]), (HEIGHT, WIDTH)) - [frame.flip_x, frame.flip_y]
    np.testing.assert_allclose(read_rows(tmp_path / "m0.csv")[:, :2], placed)


def test_boxes_are_swapped_with_their_coordinates(tmp_path: Path) -> None:
    (tmp_path / "a.box").write_text("10 20 64 32\n")
    convert(tmp_path / "a.box", tmp_path / "b.box", ConvertConfig(swap_xy=True))
    assert (tmp_path / "b.box").read_text() == "20\t10\t32\t64\n"


@pytest.mark.parametrize("shift", ["3", "3,x", "1,2,3", "nan,1"])
def test_a_shift_is_two_numbers(tmp_path: Path, shift: str) -> None:
    command = ["convert", str(star(tmp_path, "1 2 3\n")), str(tmp_path / "b.csv"), "--shift", shift]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "--shift" in result.stderr
    assert not (tmp_path / "b.csv").exists()


def test_cryoppp_is_turned_both_ways(tmp_path: Path) -> None:
    mics = micrograph(tmp_path, "m0.mrc")
    (tmp_path / "m0.csv").write_text("X-Coordinate,Y-Coordinate,Diameter\n10,30,5\n")
    config = ConvertConfig(micrographs=(mics,))
    convert(tmp_path / "m0.csv", tmp_path / "m0.star", config)
    np.testing.assert_array_equal(read_picks(tmp_path / "m0.star").picks.coordinates, [[10, HEIGHT - 30]])
    back = convert(tmp_path / "m0.star", tmp_path / "back.csv", replace(config, to="cryoppp"))
    assert (tmp_path / "back.csv").read_text() == "X-Coordinate,Y-Coordinate\n10,30\n"
    assert back.notes == ("cryoppp holds no names: the file's own must say that it is of m0",)
    with pytest.raises(MicrographError, match="1 micrograph is missing: m0"):
        convert(tmp_path / "m0.csv", tmp_path / "x.star", ConvertConfig())


def test_boxes_of_the_diameter_are_even(tmp_path: Path) -> None:
    source = star(tmp_path, "10 20 0.5\n")
    for diameter, width in ((14.9, 10), (15.1, 12)):
        convert(source, tmp_path / "m0.box", replace(BOXES, diameter_angstrom=diameter, overwrite=True))
        assert read_picks(tmp_path / "m0.box").box_sizes.tolist() == [[width, width]]
    mics = micrograph(tmp_path, "m0.mrc")  # 1.5 Å/px
    convert(source, tmp_path / "h.box", ConvertConfig(diameter_angstrom=15.1, micrographs=(mics,)))
    assert read_picks(tmp_path / "h.box").box_sizes.tolist() == [[12, 12]]
    with pytest.raises(GeometryError, match="does not say their size; give the particle's diameter with --diameter"):
        convert(source, tmp_path / "x.box", ConvertConfig())
    with pytest.raises(GeometryError, match="--pixel-size"):
        convert(source, tmp_path / "x.box", ConvertConfig(diameter_angstrom=15))


# ---------------------------------------------------------------- several micrographs


def test_topaz_to_a_folder_of_boxes_and_back(tmp_path: Path) -> None:
    report = convert(topaz(tmp_path), tmp_path / "boxes", replace(BOXES, to="box"))
    assert (report.picks, report.micrographs) == (3, 2)
    assert [path.name for path in report.files] == ["a.box", "b.box"]
    assert (tmp_path / "boxes" / "a.box").read_text() == "5\t15\t10\t10\t-1.5\n-4\t-3\t10\t10\t0.0\n"
    convert(tmp_path / "boxes", tmp_path / "back.txt", ConvertConfig(to="topaz"))
    found = sorted((tmp_path / "back.txt").read_text().splitlines()[1:])
    assert found == ["a\t1\t2\t0.0", "a\t10\t20\t-1.5", "b\t3\t4\t0.5"]


def test_a_folder_of_stars_has_relions_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    micrograph(tmp_path, "a.mrc")
    micrograph(tmp_path, "b.mrc")
    report = convert(topaz(Path()), Path("job"), ConvertConfig(to="star", micrographs=(Path("mics"),)))
    listed = read_coordinate_list(Path("job/autopick.star"))
    assert listed.micrograph_names == ("mics/a.mrc", "mics/b.mrc")
    assert listed.coordinate_paths == ("job/a_autopick.star", "job/b_autopick.star")
    assert report.notes == ()
    assert (len(read_picks(Path("job/a_autopick.star")).picks), report.picks) == (2, 3)
    inputs = read_inputs([Path("job/autopick.star")])
    assert [source.file.picks.micrograph_names for source in inputs.sources] == [
        ("mics/a.mrc",),
        ("mics/b.mrc",),
    ]


def test_names_without_extension_are_noted(tmp_path: Path) -> None:
    star(tmp_path / "in", "1 2 3\n")
    report = convert(tmp_path / "in", tmp_path / "out", ConvertConfig(to="star"))
    assert read_coordinate_list(tmp_path / "out" / "autopick.star").micrograph_names == ("m0",)
    assert "which RELION will not find: give them with --micrographs" in report.notes[0]


def test_files_without_picks_keep_their_micrograph(tmp_path: Path) -> None:
    for name in ("m0.mrc", "m1.mrc"):
        micrograph(tmp_path, name)
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "m0.box").write_text("10 20 4 4\n")
    (tmp_path / "boxes" / "m1.box").write_text("")
    config = ConvertConfig(to="star", micrographs=(tmp_path / "mics",))
    report = convert(tmp_path / "boxes", tmp_path / "star", config)
    listed = tmp_path / "star" / "autopick.star"
    assert read_coordinate_list(listed).micrograph_names == (
        f"{tmp_path}/mics/m0.mrc",
        f"{tmp_path}/mics/m1.mrc",
    )
    assert not any("without folder" in note for note in report.notes)
    assert not convert(listed, tmp_path / "again", ConvertConfig(to="star")).notes
    again = read_coordinate_list(tmp_path / "again" / "autopick.star")
    assert again.micrograph_names == read_coordinate_list(listed).micrograph_names


def test_two_files_of_one_micrograph_are_not_mixed(tmp_path: Path) -> None:
    folder = tmp_path / "topaz"
    folder.mkdir()
    for name, times in (("all.txt", 1), ("all_upsampled.txt", 8)):
        rows = f"a\t{10 * times}\t{20 * times}\t-1.5\n"
        (folder / name).write_text(f"image_name\tx_coord\ty_coord\tscore\n{rows}")
    with pytest.raises(OutputError, match=r"all\.txt and .*all_upsampled\.txt both are of a; convert them one"):
        convert(folder, tmp_path / "out.star", ConvertConfig())


@pytest.mark.parametrize(("name", "out"), [("m0", "picks"), ("m1", "m10")])
def test_a_file_that_is_called_otherwise_has_a_column_of_names(tmp_path: Path, name: str, out: str) -> None:
    (tmp_path / f"{name}.box").write_text("10 20 4 4\n")
    convert(tmp_path / f"{name}.box", tmp_path / f"{out}.star", ConvertConfig())
    file = read_picks(tmp_path / f"{out}.star")
    assert (file.names_from_stem, file.picks.micrograph_names) == (False, (name,))
    convert(tmp_path / f"{name}.box", tmp_path / f"{name}_autopick.star", ConvertConfig())
    assert read_picks(tmp_path / f"{name}_autopick.star").names_from_stem


def test_the_micrographs_given_are_those_of_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The binned one, which the file names, lies in the current folder too."""
    monkeypatch.chdir(tmp_path)
    micrograph(tmp_path, "m0.mrc")
    write_mrc(tmp_path / "full" / "m0.mrc", np.zeros((2 * HEIGHT, 2 * WIDTH), dtype=np.float32), 0.75)
    (tmp_path / "p.star").write_text(
        "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\nmics/m0.mrc 3 4\n"
    )
    config = ConvertConfig(scale=2.0, flip_y=True, micrographs=(Path("full"),))
    convert(Path("p.star"), Path("out.star"), config)
    picks = read_picks(Path("out.star")).picks
    assert picks.micrograph_names == ("full/m0.mrc",)
    np.testing.assert_allclose(picks.coordinates, [[6, 2 * HEIGHT - 1 - 8]])


def test_one_file_for_several_has_their_names(tmp_path: Path) -> None:
    for name in ("all.star", "all.csv"):
        convert(topaz(tmp_path), tmp_path / name, ConvertConfig())
        picks = read_picks(tmp_path / name).picks
        assert picks.micrograph_names == ("a", "b")
        np.testing.assert_array_equal(picks.micrograph_index, [0, 0, 1])
        np.testing.assert_array_equal(picks.coordinates, [[10, 20], [1, 2], [3, 4]])
        np.testing.assert_array_equal(picks.figure_of_merit, [-1.5, 0, 0.5])
    with pytest.raises(PickeroptError, match=r"x\.box: 2 micrographs, and a box file holds one; give a folder"):
        convert(topaz(tmp_path), tmp_path / "x.box", BOXES)


def test_a_micrographs_name_is_kept_where_the_file_is_called_otherwise(tmp_path: Path) -> None:
    source = topaz(tmp_path, "image_name\tx_coord\ty_coord\nmic_7\t1\t2\n")
    convert(source, tmp_path / "other.star", ConvertConfig())
    assert read_picks(tmp_path / "other.star").picks.micrograph_names == ("mic_7",)
    convert(source, tmp_path / "mic_7.star", ConvertConfig())
    assert read_picks(tmp_path / "mic_7.star").names_from_stem


def test_micrographs_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("micrograph,x,y\nx/a.mrc,1,2\ny/a.mrc,3,4\n")
    with pytest.raises(OutputError, match=r"x/a\.mrc and y/a\.mrc have the same name"):
        convert(tmp_path / "p.csv", tmp_path / "out", ConvertConfig(to="star"))
    (tmp_path / "in").mkdir()
    for folder in ("p", "q"):
        star(tmp_path / "in" / folder, "1 2 3\n")
    with pytest.raises(OutputError, match="both are of m0"):
        convert(tmp_path / "in", tmp_path / "out", ConvertConfig(to="star"))


# ---------------------------------------------------------------- any to any


def written(folder: Path, target: str, config: ConvertConfig, source: Path) -> Path:
    out = folder / f"m0{ENDINGS.get(target, f'.{target}')}"
    convert(source, out, replace(config, to=target))
    return out


def make_all(folder: Path, rows: str) -> dict[str, Path]:
    """The same picks in every format."""
    mics = micrograph(folder, "m0.mrc")
    config = replace(BOXES, micrographs=(mics,))
    source = star(folder / "first", rows, "m0.star")
    made = {}
    for target in OUTPUT_FORMATS:
        (folder / target).mkdir()
        made[target] = written(folder / target, target, config, source)
    return made


def test_any_to_any(tmp_path: Path) -> None:
    rows = [(10.25, 20.0, 0.5), (3.125, 4.0078125, -1e-9), (70.4996, 49.9, 1e6)]
    made = make_all(tmp_path, "".join(f"{x} {y} {s}\n" for x, y, s in rows))
    config = replace(BOXES, micrographs=(tmp_path / "mics",))
    for source, target in product(made, OUTPUT_FORMATS):
        folder = tmp_path / f"{source}-{target}"
        folder.mkdir()
        found = read_rows(written(folder, target, config, made[source]))
        expected = np.array(rows)
        if "xmipp" in (source, target):
            expected[:, :2] = np.rint(expected[:, :2])
        if "cryoppp" in (source, target):  # no scores there, and Xmipp has a 0 for none
            expected[:, 2] = 0 if target == "xmipp" else np.nan
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
        if "cryosparc" in (source, target):  # scores are float32 there
            np.testing.assert_array_equal(found[:, 2].astype(np.float32), expected[:, 2].astype(np.float32))
        elif "cryoppp" not in (source, target):
            np.testing.assert_array_equal(found[:, 2], expected[:, 2])


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5), st.floats(allow_nan=True)),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["star", "topaz", "box", "cbox", "eman2", "csv", "xy"]),
)
def test_coordinates_and_scores_survive(rows: list[tuple[float, float, float]], target: str) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        source = star(folder, "".join(f"{x!r} {y!r} {s!r}\n" for x, y, s in rows))
        found = read_rows(written(folder, target, BOXES, source))
    np.testing.assert_allclose(found[:, :2], [row[:2] for row in rows], rtol=0, atol=1e-3)
    scores = np.array([np.nan if row[2] == -999 else row[2] for row in rows])
    if target == "eman2":
        scores[np.abs(scores) >= 1e300] = np.nan
    np.testing.assert_array_equal(found[:, 2], scores)


@pytest.mark.parametrize("target", [target for target in OUTPUT_FORMATS if target != "xy"])
def test_no_picks_is_a_file_without_picks(tmp_path: Path, target: str) -> None:
    mics = micrograph(tmp_path, "m0.mrc")
    (tmp_path / "m0.cbox").write_text("")
    out = tmp_path / f"o{ENDINGS.get(target, f'.{target}')}"
    report = convert(tmp_path / "m0.cbox", out, replace(BOXES, to=target, micrographs=(mics,)))
    assert report.picks == 0
    assert len(read_picks(out).picks) == 0


def test_real_files_to_star(shared_data: Path, tmp_path: Path) -> None:
    for name in (
        "TcdA1-0018_frames_sum.cbox",
        "ActLifeact_03047.cbox",
        "relion31.star",
        "relion30_autopick.star",
    ):
        source = shared_data / "formats" / name
        out = tmp_path / f"{source.stem}.star"
        convert(source, out, ConvertConfig())
        one, other = read_picks(source).picks, read_picks(out).picks
        np.testing.assert_allclose(one.coordinates, other.coordinates, rtol=0, atol=1e-3)
        np.testing.assert_array_equal(one.figure_of_merit, other.figure_of_merit)


# ---------------------------------------------------------------- what is refused, and the command


def test_what_is_there_stays(tmp_path: Path) -> None:
    source = star(tmp_path, "1 2 3\n")
    out = tmp_path / "m0.csv"
    out.write_text("mine")
    with pytest.raises(OutputError, match=r"m0\.csv: exists already; choose another name, or give --overwrite"):
        convert(source, out, ConvertConfig())
    assert out.read_text() == "mine"
    convert(source, out, ConvertConfig(overwrite=True))
    assert out.read_text() == "x,y,score\n1,2,3.0\n"
    with pytest.raises(OutputError, match="is an input"):
        convert(source, source, ConvertConfig(overwrite=True))
    folder = star(tmp_path / "more", "1 2 3\n").parent
    with pytest.raises(OutputError, match="is an input"):
        convert(folder, folder, ConvertConfig(to="star", overwrite=True))
    assert source.read_text() == f"{HEAD}1 2 3\n"


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("o.txt", ConvertConfig(), "its name does not say the format; give --to with one of star, topaz"),
        ("o", ConvertConfig(), "its name does not say the format"),
        ("o.csg", ConvertConfig(), "a group is written by cryoSPARC only"),
        ("o.cs", ConvertConfig(), "1 micrograph is missing: m0_autopick"),
        ("o.star", ConvertConfig(to="relion"), "--to is 'relion'; give one of star"),
        ("o.star", ConvertConfig(scale=0), "--scale is 0"),
        ("o.star", ConvertConfig(pixel_size=-1), "--pixel-size is -1"),
        ("o.star", ConvertConfig(diameter_angstrom=float("nan")), "--diameter is nan"),
    ],
)
def test_refused(tmp_path: Path, name: str, config: ConvertConfig, message: str) -> None:
    source = star(tmp_path, "1 2 3\n")
    with pytest.raises(PickeroptError, match=re.escape(message)):
        convert(source, tmp_path / name, config)
    assert list(tmp_path.iterdir()) == [source]


def test_a_name_that_cannot_be_held(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('micrograph,x,y\n"a\'""b c",1,2\nb,1,2\n')
    with pytest.raises(FormatError, match="cannot stand in a STAR file"):
        convert(tmp_path / "p.csv", tmp_path / "o.star", ConvertConfig())
    assert not (tmp_path / "o.star").exists()


def test_the_command(tmp_path: Path) -> None:
    source = star(tmp_path, "10.25 20 0.5\n")
    done = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "m0.pos"), "--scale", "2"])
    assert done.exit_code == 0
    assert "note: xmipp holds whole pixels: coordinates were rounded, by 0.5 px at most" in done.output
    assert f"1 picks of 1 micrograph as xmipp: {tmp_path / 'm0.pos'}" in done.output
    done = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "m0.pos")])
    assert done.exit_code == 2
