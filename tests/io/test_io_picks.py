"""What is read from files of picks, and every fault that is refused."""

from pathlib import Path

import numpy as np
import pytest

from pickeropt.errors import FormatError, GeometryError
from pickeropt.io.picks import read_picks, read_picks_start

HEAD = "data_\n\nloop_ \n_rlnCoordinateX #1 \n_rlnCoordinateY #2 \n"
OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnImagePixelSize #2
_rlnMicrographOriginalPixelSize #3
{rows}

# version 30001

data_particles

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnMicrographName #3
_rlnAutopickFigureOfMerit #4
10.5 20 mics/b.mrc 0.5
30 40.25 mics/a.mrc <NA>
1e1 00050 mics/b.mrc -inf

"""


def write(tmp_path: Path, content: str | bytes, name: str = "x.star") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_coordinate_star(tmp_path: Path) -> None:
    rows = "  839.125024    19.979167 \n\n# note\n1e-8 00012 # note\n"
    file = read_picks(write(tmp_path, HEAD + rows, "mic_autopick.star"))
    assert file.format == "relion-coordinates"
    assert file.names_from_stem
    np.testing.assert_array_equal(file.picks.coordinates, [[839.125024, 19.979167], [1e-8, 12]])
    assert file.picks.coordinates.dtype == np.float64
    assert file.picks.micrograph_names == ("mic_autopick",)
    np.testing.assert_array_equal(file.picks.micrograph_index, [0, 0])
    assert np.isnan(file.picks.figure_of_merit).all()
    assert file.picks.class_names is None
    assert file.picks.pixel_size is None


def test_particles_with_optics(tmp_path: Path) -> None:
    file = read_picks(write(tmp_path, OPTICS.format(rows="1 2.8 1.4")))
    assert file.format == "relion-particles"
    assert not file.names_from_stem
    np.testing.assert_array_equal(file.picks.coordinates, [[10.5, 20], [30, 40.25], [10, 50]])
    assert file.picks.micrograph_names == ("mics/b.mrc", "mics/a.mrc")
    np.testing.assert_array_equal(file.picks.micrograph_index, [0, 1, 0])
    np.testing.assert_array_equal(file.picks.figure_of_merit, [0.5, np.nan, -np.inf])
    assert file.picks.pixel_size == 1.4


def test_micrograph_pixel_size_is_preferred(tmp_path: Path) -> None:
    content = OPTICS.replace("_rlnImagePixelSize", "_rlnMicrographPixelSize").format(rows="1 2.8 1.4")
    assert read_picks(write(tmp_path, content)).picks.pixel_size == 2.8


def test_optics_as_a_list(tmp_path: Path) -> None:
    content = "data_optics\n_rlnOpticsGroup 1\n_rlnMicrographPixelSize   '0.885'\n\n" + HEAD + "1 2\n"
    file = read_picks(write(tmp_path, content))
    assert file.picks.pixel_size == 0.885
    np.testing.assert_array_equal(file.picks.coordinates, [[1, 2]])


def test_image_pixel_size_is_not_the_micrographs(tmp_path: Path) -> None:
    content = OPTICS.replace("_rlnMicrographOriginalPixelSize", "_rlnOther").format(rows="1 2.8 1.4")
    assert read_picks(write(tmp_path, content)).picks.pixel_size is None


def test_equal_groups_agree_and_different_ones_do_not(tmp_path: Path) -> None:
    assert read_picks(write(tmp_path, OPTICS.format(rows="1 2.8 1.4\n2 2 1.4"))).picks.pixel_size == 1.4
    with pytest.raises(GeometryError, match=r"x\.star: _rlnMicrographOriginalPixelSize is 1\.1 Å .* 1\.4 Å"):
        read_picks(write(tmp_path, OPTICS.format(rows="1 2.8 1.4\n2 2 1.1")))


def test_groups_that_no_pick_is_of_do_not_count(tmp_path: Path) -> None:
    content = OPTICS.format(rows="1 2.8 1.4\n2 2 1.1").replace(
        "FigureOfMerit #4", "FigureOfMerit #4\n_rlnOpticsGroup #5"
    )
    lines = [f"{line} 2" if ".mrc" in line else line for line in content.splitlines()]
    assert read_picks(write(tmp_path, "\n".join(lines) + "\n")).picks.pixel_size == 1.1
    lines[-3] = lines[-3][:-1] + "1"
    with pytest.raises(GeometryError, match=r"1\.1 Å .* 1\.4 Å .*take each group on its own"):
        read_picks(write(tmp_path, "\n".join(lines) + "\n"))


@pytest.mark.parametrize(("size", "what"), [("0", "is 0;"), ("-1", "is -1;"), ("none", "is 'none'")])
def test_wrong_pixel_size(tmp_path: Path, size: str, what: str) -> None:
    with pytest.raises(FormatError, match=f"x.star, line 10: _rlnMicrographOriginalPixelSize {what}"):
        read_picks(write(tmp_path, OPTICS.format(rows=f"1 2 {size}")))


def test_relion_30_magnification(tmp_path: Path) -> None:
    extra = "_rlnMagnification\n_rlnDetectorPixelSize\n"
    assert read_picks(write(tmp_path, HEAD + extra + "1 2 50000 5\n")).picks.pixel_size == pytest.approx(1.0)
    rescaled = HEAD + extra + "_rlnImageName\n1 2 50000 5 1@a.mrcs\n"
    assert read_picks(write(tmp_path, rescaled)).picks.pixel_size is None


def test_labelled(tmp_path: Path) -> None:
    head = "data_labels\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_pickeroptClass\n"
    file = read_picks(write(tmp_path, head + "a.mrc 1 2 ice\na.mrc 3 4 particle\na.mrc 5 6 ice\n"))
    assert file.format == "labelled"
    assert file.picks.class_names == ("ice", "particle", "ice")


def test_first_block_with_both_coordinates(tmp_path: Path) -> None:
    other = "data_a\nloop_\n_rlnCoordinateX\n7\n\ndata_b\n\ndata_c\nloop_\n_k\n_l\n1 2\nloop_\n_m\n3\n\n"
    file = read_picks(write(tmp_path, other + HEAD + "1 2\n\n" + HEAD + "5 6\n"))
    np.testing.assert_array_equal(file.picks.coordinates, [[1, 2]])


def test_names_like_keywords_are_rows(tmp_path: Path) -> None:
    head = "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n"
    file = read_picks(write(tmp_path, head + "data_1.mrc 1 2\nloop_ 3 4\n_a.mrc 5 6\n"))
    assert file.picks.micrograph_names == ("data_1.mrc", "loop_", "_a.mrc")


@pytest.mark.parametrize("content", [HEAD, HEAD[:-1], HEAD + "\n \n# none\n\n", HEAD + "\ndata_b\n_c 1\n"])
def test_no_rows_no_picks(tmp_path: Path, content: str) -> None:
    file = read_picks(write(tmp_path, content))
    assert len(file.picks) == 0
    assert file.picks.coordinates.shape == (0, 2)
    assert file.picks.micrograph_names == ()


def test_box_centres(tmp_path: Path) -> None:
    file = read_picks(write(tmp_path, "# x y w h score\n10\t20\t180\t181\t0.75\n\n-5.5 0 64 64 -1\n", "a.b.box"))
    assert file.format == "eman-box"
    assert file.names_from_stem
    np.testing.assert_array_equal(file.picks.coordinates, [[100, 110.5], [26.5, 32]])
    np.testing.assert_array_equal(file.picks.figure_of_merit, [0.75, -1])
    assert file.picks.micrograph_names == ("a.b",)


@pytest.mark.parametrize("content", ["", "\n", "# none\n"])
def test_empty_box_holds_no_picks(tmp_path: Path, content: str) -> None:
    file = read_picks(write(tmp_path, content, "x.box"))
    assert len(file.picks) == 0
    assert file.picks.coordinates.shape == (0, 2)
    with pytest.raises(FormatError, match=r"x\.star: holds no rows"):
        read_picks(write(tmp_path, content))


@pytest.mark.parametrize(("last", "height"), [("5", 5), ("56", 56), ("567", 567)])
def test_last_value_without_newline(tmp_path: Path, last: str, height: int) -> None:
    file = read_picks(write(tmp_path, f"1 2 4 64\n1 2 4 {last}", "x.box"))
    np.testing.assert_array_equal(file.picks.coordinates, [[3, 34], [3, 2 + height / 2]])


def test_format_is_told_by_content(tmp_path: Path) -> None:
    assert read_picks(write(tmp_path, HEAD + "1 2\n", "x.box")).format == "relion-coordinates"
    assert read_picks(write(tmp_path, "1 2 3 4\n", "x.star")).format == "eman-box"


STAR_FAULTS = [
    (HEAD + "1 2\n3\n", "line 7: 1 values where 2 are expected"),
    (HEAD + "1 2 3\n", "line 6: 3 values where 2"),
    (HEAD + "1 'a b\n", "line 6: 3 values where 2"),
    (HEAD + "1 2\nabc 4\n", "line 7: _rlnCoordinateX is 'abc', not a finite number"),
    (HEAD + "1 2\n\n# x\n3 nan\n", "line 9: _rlnCoordinateY is 'nan', not a finite number"),
    (HEAD + "-inf 2\n", "line 6: _rlnCoordinateX is '-inf'"),
    (HEAD + "1_0 2\n", "line 6: _rlnCoordinateX is '1_0'"),
    (HEAD + "1 1,5\n", "line 6: _rlnCoordinateY is '1,5'"),
    (HEAD + "1 ''\n", "line 6: _rlnCoordinateY is ''"),
    (HEAD + f"1 {'x' * 99}\n", "line 6: _rlnCoordinateY is 'xxx"),
    (HEAD + "_rlnCoordinateX\n1 2 3\n", "line 3: data_ has the column _rlnCoordinateX twice"),
    (HEAD + "_rlnOther\n_rlnOther\n1 2 3 4\n", "line 3: data_ has the column _rlnOther twice"),
    (
        HEAD + "_rlnAutopickFigureOfMerit\n1 2 high\n",
        "line 7: _rlnAutopickFigureOfMerit is 'high', not a number",
    ),
    ("data_\nloop_\n_rlnCoordinateX\n1\n", r"no loop_ with .*found: _rlnCoordinateX\)"),
    ("data_\n_rlnCoordinateX 1\n_rlnCoordinateY 2\n", "write the single row as a loop_"),
    ("data_\nloop_\n_CoordinateX\n1\n", "crYOLO CBOX file: give"),
    ("data_\nloop_\n_rlnMicrographName\n_rlnMicrographCoordinates\na b\n", "list of coordinate files: give"),
    ("data_\n", r"found: no column\)"),
    ("loop_\n_rlnCoordinateX\n_rlnCoordinateY\n1 2\n", "line 1: loop_ stands before any data_ line"),
    (HEAD.replace("\n", "\r\n") + "1 2\r\n", r"line 1: CR\+LF line ends.*sed -i 's/\\r\$//' .*x\.star"),
    (HEAD + "1 2\n3 4\r\n", r"line 7: CR\+LF"),
    ("data_\rloop_\r", r"line 1: CR line ends.*sed -i 's/\\r/\\n/g'"),
    (b"data_\n\0\1", "line 2: a NUL byte"),
    (b"data_\nloop_\n_rlnA\n\xff.mrc\n", r"line 4: byte b'\\xff' is not UTF-8.*iconv"),
    (b"\xef\xbb\xbfdata_\n", "line 1: the file starts with a byte order mark; remove"),
    (b"{}", r"line 1: no format of picks is recognised in '{}'; these are read: RELION STAR, EMAN .box"),
]


@pytest.mark.parametrize(("content", "message"), STAR_FAULTS)
def test_star_faults(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(FormatError, match=message) as caught:
        read_picks(path)
    assert str(caught.value).startswith(str(path))
    assert ";" in str(caught.value) or "list of" in message


BOX_FAULTS = [
    ("1\n", "line 1: no format of picks is recognised in '1'; these are read"),
    ("# c\nthis is some prose\n", "line 2: no format of picks is recognised in 'this is some prose'"),
    ("file,row,micrograph,x,y\na,0,b,1,2\n", "line 1: the scores of a pruning, not picks; give a file under"),
    ("1 2 3 4\n1 2 3 4 5\n", "line 2: 5 values where 4"),
    ("1 2 3 4\n\n1 y 3 4\n", "line 3: the box's y is 'y', not a finite number"),
    ("1 2 3 inf\n", "line 1: the box's height is 'inf'"),
    ("1 2 3 4\n1 2 0 4\n", "line 2: the box's width is 0; a row must be: x y width height"),
    ("1 2 3 -4\n", "line 1: the box's height is -4"),
    ("1 2 3 4 good\n", "line 1: the box's score is 'good', not a number"),
    ("1 2 3 4\r\n", r"line 1: CR\+LF"),
]


@pytest.mark.parametrize(("content", "message"), BOX_FAULTS)
def test_box_faults(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_picks(write(tmp_path, content, "x.box"))


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"none\.star: no such file; check the path"):
        read_picks(tmp_path / "none.star")
    with pytest.raises(FormatError, match="is a folder; name the file inside it"):
        read_picks(tmp_path)


def test_real_values(shared_data: Path) -> None:
    formats = shared_data / "formats"
    file = read_picks(formats / "relion30_autopick.star")
    assert (file.format, len(file.picks)) == ("relion-coordinates", 45)
    np.testing.assert_array_equal(file.picks.coordinates[0], [839.125024, 19.979167])
    np.testing.assert_array_equal(file.picks.figure_of_merit[-1], 0.089275)
    file = read_picks(formats / "sample_particles_relion31.star")
    assert file.picks.pixel_size == 0.885
    assert file.picks.micrograph_names == ("micrograph.mrc",)
    np.testing.assert_array_equal(file.picks.coordinates[0], [2158.111921, 3073.912046])
    labels = read_picks(shared_data / "empiar10017" / "labels.star")
    assert labels.picks.class_names is not None
    counts = {name: labels.picks.class_names.count(name) for name in set(labels.picks.class_names)}
    assert counts == {"particle": 600, "background": 360, "contaminant": 145, "carbon": 124}


def test_the_start_of_a_file_is_the_start_of_its_picks(tmp_path):
    """Whole rows only, and the same micrographs in the same order as in the whole file."""
    rows = [f"m{i // 10}.mrc {i} {2 * i}.5 0.{i:03d}" for i in range(100)]
    head = ["data_optics", "loop_", "_rlnMicrographPixelSize", "1.5", "", "data_particles", "loop_"]
    head += ["_rlnMicrographName", "_rlnCoordinateX", "_rlnCoordinateY", "_rlnAutopickFigureOfMerit"]
    path = tmp_path / "a.star"
    path.write_text("\n".join([*head, *rows, ""]))
    whole = read_picks(path).picks
    for most in (len("\n".join([*head, *rows[:37]])), len("\n".join([*head, *rows[:37]])) + 1, 10**6):
        start = read_picks_start(path, most)
        count = {10**6: 100}.get(most, len(start.picks))
        assert len(start.picks) == count >= 36
        assert (start.picks.coordinates == whole.coordinates[:count]).all()
        assert (start.picks.micrograph_index == whole.micrograph_index[:count]).all()
        assert start.picks.micrograph_names == whole.micrograph_names[: len(start.picks.micrograph_names)]
        assert start.picks.pixel_size == 1.5
    assert read_picks_start(path, 80) is None
    (tmp_path / "a.box").write_text("1 2 3 3\n" * 50)
    assert read_picks_start(tmp_path / "a.box", 100) is None
