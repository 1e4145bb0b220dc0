"""What is read from CBOX, EMAN2's JSON, Topaz, CSV, CryoPPP, bare text and Xmipp, by hand-computed values."""

import json
from pathlib import Path

import numpy as np
import pytest

from pickeropt.errors import FormatError
from pickeropt.io.delimited import read_cryoppp
from pickeropt.io.lists import is_suffix_file, read_suffix_file, rewrite_coordinate_list
from pickeropt.io.picks import is_picks, read_picks, subset
from pickeropt.io.picks_file import placed, row_place

CBOX = """
data_global

_cbox_format_version 1.0

data_cryolo

loop_
_CoordinateX #1
_CoordinateY #2
_CoordinateZ #3
_Width #4
_Height #5
_Confidence #6
{more}{rows}
data_cryolo_include

loop_
_slice_index #1
"""
ROWS = "10.5 20 <NA> 100.0 200.0 0.5\n-5 0.25 <NA> 64 64 <NA>\n"
POS = """# XMIPP_STAR_1 *
#
data_header
loop_
 _pickingMicrographState
Auto
data_particles
loop_
 _itemId
 _enabled
 _xcoor
 _ycoor
 _cost
 1 1 120 45 0.75
 2 -1 7 8 0
"""
INFO = """{
"boxes": [
[120.5, 45, "manual"],
 [7, 8.25, "auto_convnet", 0.75] , [1e2,-3,"x",null]
],
"ctf": [["a, ]", 1.5e-3, {"b": NaN}], true], "\\u00e9\\"[": -Infinity
}
"""


def write(tmp_path: Path, content: str | bytes, name: str) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def merits(path: Path) -> list[float]:
    return read_picks(path).picks.figure_of_merit.tolist()


# ---------------------------------------------------------------- CBOX


def test_cbox(tmp_path: Path) -> None:
    file = read_picks(write(tmp_path, CBOX.format(more="", rows=ROWS), "mic.txt"))
    assert (file.format, file.names_from_stem, file.rows_from_top) == ("cbox", True, False)
    np.testing.assert_array_equal(file.picks.coordinates, [[60.5, 120], [27, 32.25]])
    np.testing.assert_array_equal(file.picks.figure_of_merit, [0.5, np.nan])
    np.testing.assert_array_equal(file.box_sizes, [[100, 200], [64, 64]])
    assert file.picks.micrograph_names == ("mic",)
    assert b"data_cryolo_include" in subset(file, np.zeros(2, bool))
    assert subset(file, np.array([False, True])).decode() == CBOX.format(more="", rows=ROWS.splitlines()[1] + "\n")


@pytest.mark.parametrize("empty", ["", "\n", CBOX.format(more="", rows="")])
def test_an_empty_cbox_stays_one(tmp_path: Path, empty: str) -> None:
    file = read_picks(write(tmp_path, empty, "mic.cbox"))
    assert len(file.picks) == 0
    assert subset(file, np.zeros(0, bool)) == empty.encode()


def test_old_cbox_is_a_box_file_of_seven_values(tmp_path: Path) -> None:
    file = read_picks(write(tmp_path, "10\t20\t100\t200\t0.5\t98.0\t97\n", "mic.cbox"))
    assert file.format == "eman-box"
    np.testing.assert_array_equal(file.picks.coordinates, [[60, 120]])
    np.testing.assert_array_equal(file.picks.figure_of_merit, [0.5])


@pytest.mark.parametrize(
    ("more", "rows", "tail"),
    [
        ("_filamentid #7\n", "1 2 <NA> 4 4 0.5 0.0\n3 4 <NA> 4 4 0.5 <NA>\n", ""),
        (
            "",
            "1 2 0 4 4 0.5\n3 4 0 4 4 0.5\n",
            "data_filament_vertices\nloop_\n_filamentid\n_CoordinateX\n0 1\n",
        ),
    ],
)
def test_filaments_are_kept_whole(tmp_path: Path, more: str, rows: str, tail: str) -> None:
    content = CBOX.format(more=more, rows=rows) + tail
    path = write(tmp_path, content, "mic.cbox")
    file = read_picks(path)
    assert file.format == "cbox-filaments"
    np.testing.assert_array_equal(file.picks.coordinates, [[3, 4], [5, 6]])
    assert subset(file, np.ones(2, bool)) == content.encode()
    assert len(read_picks(write(tmp_path, subset(file, np.zeros(2, bool)), "none.cbox")).picks) == 0
    with pytest.raises(FormatError, match=r"mic\.cbox: holds filaments.*pickeropt convert .*mic\.cbox"):
        subset(file, np.array([True, False]))


def test_no_filament_where_all_ids_are_na(tmp_path: Path) -> None:
    content = CBOX.format(more="_filamentid #7\n", rows="1 2 <NA> 4 4 0.5 <NA>\n")
    assert read_picks(write(tmp_path, content, "mic.cbox")).format == "cbox"


# ---------------------------------------------------------------- EMAN2


def test_info_json(tmp_path: Path) -> None:
    file = read_picks(write(tmp_path, INFO, "mic_01_info.json"))
    assert (file.format, file.names_from_stem) == ("eman2-json", True)
    assert file.picks.micrograph_names == ("mic_01",)
    np.testing.assert_array_equal(file.picks.coordinates, [[120.5, 45], [7, 8.25], [100, -3]])
    np.testing.assert_array_equal(file.picks.figure_of_merit, [np.nan, 0.75, np.nan])
    assert row_place(file, 1).endswith("mic_01_info.json, line 4")


def test_info_json_less_boxes(tmp_path: Path) -> None:
    file = read_picks(write(tmp_path, INFO, "a_info.json"))
    entries = ['[120.5, 45, "manual"]', '[7, 8.25, "auto_convnet", 0.75]', '[1e2,-3,"x",null]']
    for keep in np.ndindex(2, 2, 2):
        kept = [entry for entry, flag in zip(entries, keep, strict=True) if flag]
        content = subset(file, np.array(keep, bool)).decode()
        found = json.loads(content)
        assert found["boxes"] == [json.loads(entry) for entry in kept]
        assert list(found)[1:] == list(json.loads(INFO))[1:]
        assert content.startswith('{\n"boxes": [\n')
        assert content.endswith(INFO[INFO.index("\n],\n") :])
    assert subset(file, np.array([0, 1, 1], bool)).decode() == INFO.replace(f"{entries[0]},\n ", "")
    assert subset(file, np.array([1, 0, 1], bool)).decode() == INFO.replace(f",\n {entries[1]}", "")


def test_info_json_without_boxes(tmp_path: Path) -> None:
    file = read_picks(write(tmp_path, '{"boxes": [ ]}', "a_info.json"))
    assert len(file.picks) == 0
    assert subset(file, np.zeros(0, bool)) == b'{"boxes": [ ]}'


JSON_FAULTS = [
    ('{"boxes": [[1,2,"a"]}', "this is no JSON"),
    ('{"boxes": [[1,2,"a"],]}', "this is no JSON"),
    ('{"boxes": [[1,2,"a"]]} x', "this is no JSON"),
    ('{"boxes": [[1,2,"\\q"]]}', "this is no JSON"),
    ('{"boxes": [[01,2,"a"]]}', "this is no JSON"),
    ('{\n"a": {"boxes": []}}', 'line 1: no list "boxes"'),
    ('{"boxes": 3}', 'no list "boxes"'),
    ('{"boxes": [], "boxes": []}', "there twice"),
    ('{"boxes": [\n[1,2,3,"manual"]]}', r"line 2: a box is \[1,2,3"),
    ('{"boxes": [[1,"2","a"]]}', "a box is"),
    ('{"boxes": [[1,NaN,"a"]]}', "a box is"),
    ('{"boxes": [[true,2,"a"]]}', "a box is"),
    ('{"boxes": [[1]]}', "a box is"),
    ('{"boxes": [{"x":1}]}', "a box is"),
    ('{"boxes": [1e999]}', "a box is 1e999"),
    (f'{{"boxes": [[{"1" * 4300}, 2, "a"]]}}', "a box is"),
    (f'{{"boxes": [{"[" * 5000}', "this is no JSON"),
]


@pytest.mark.parametrize(("content", "message"), JSON_FAULTS)
def test_json_faults(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_picks(write(tmp_path, content, "a_info.json"))


# ---------------------------------------------------------------- tables


def test_topaz(tmp_path: Path) -> None:
    path = write(tmp_path, "image_name\tx_coord\ty_coord\tscore\na.b\t10\t20\t-1.5\nc\t3.5\t4\t\na.b\t5\t6\t2\n", "p")
    file = read_picks(path)
    assert (file.format, file.names_from_stem) == ("topaz", False)
    assert file.picks.micrograph_names == ("a.b", "c")
    np.testing.assert_array_equal(file.picks.micrograph_index, [0, 1, 0])
    np.testing.assert_array_equal(file.picks.coordinates, [[10, 20], [3.5, 4], [5, 6]])
    np.testing.assert_array_equal(file.picks.figure_of_merit, [-1.5, np.nan, 2])
    assert np.isnan(merits(write(tmp_path, "image_name\tx_coord\ty_coord\na\t1\t2\n", "q"))).all()


@pytest.mark.parametrize(
    ("content", "kind", "coordinates", "scores"),
    [
        ("1 2\n3.5 -4\n", "xy", [[1, 2], [3.5, -4]], [np.nan, np.nan]),
        ("# x y s\n\n1 2 0.5\n\t3 4 nan # last\n", "xy", [[1, 2], [3, 4]], [0.5, np.nan]),
        ("1,2,0.5\r\n3,4,\r\n", "xy", [[1, 2], [3, 4]], [0.5, np.nan]),
        ("x,y\n1,2\n", "csv", [[1, 2]], [np.nan]),
        ("\ufeffX, Y ,Confidence\r\n1,2,0.5\r\n\r\n", "csv", [[1, 2]], [0.5]),
        ("id,coordinate_y,coordinate_x\nA,1,2\n", "csv", [[2, 1]], [np.nan]),
        ('"X (px)","Y (px)","Score"\n"1","2","3"\n', "csv", [[1, 2]], [3]),
        ("x y score\n1 2 3\n", "csv", [[1, 2]], [3]),
        ("x,y\n", "csv", np.empty((0, 2)), []),
    ],
)
def test_tables(tmp_path: Path, content: str, kind: str, coordinates: list[list[float]], scores: list[float]) -> None:
    file = read_picks(write(tmp_path, content, "mic_1.dat"))
    assert (file.format, file.names_from_stem) == (kind, True)
    np.testing.assert_array_equal(file.picks.coordinates, coordinates)
    np.testing.assert_array_equal(file.picks.figure_of_merit, scores)
    assert file.picks.micrograph_names == (("mic_1",) if len(scores) else ())


def test_csv_with_micrographs(tmp_path: Path) -> None:
    content = 'micrograph,x,y\n"a,1.mrc",1,2\nb.mrc,3,4\n'
    file = read_picks(write(tmp_path, content, "p.csv"))
    assert (file.format, file.names_from_stem) == ("csv", False)
    assert file.picks.micrograph_names == ("a,1.mrc", "b.mrc")
    assert subset(file, np.array([False, True])).decode() == "micrograph,x,y\nb.mrc,3,4\n"


def test_cryoppp_counts_from_the_last_row(tmp_path: Path) -> None:
    path = write(tmp_path, "X-Coordinate,Y-Coordinate,Diameter\r\n10,30,5\r\n20,0,5\r\n", "mic.csv")
    file = read_picks(path)
    assert (file.format, file.rows_from_top, file.names_from_stem) == ("cryoppp", True, True)
    np.testing.assert_array_equal(file.picks.coordinates, [[10, 30], [20, 0]])
    np.testing.assert_array_equal(placed(file, np.array([100, 50])), [[10, 70], [20, 50]])
    np.testing.assert_array_equal(read_cryoppp(path, 100), [[10, 70], [20, 100]])
    assert subset(file, np.array([True, False])) == b"X-Coordinate,Y-Coordinate,Diameter\r\n10,30,5\r\n"


def test_placed_leaves_other_files_alone(tmp_path: Path) -> None:
    file = read_picks(write(tmp_path, "1 2\n", "a.txt"))
    assert placed(file, np.array([100])) is file.picks.coordinates


TABLE_FAULTS = [
    ("x,y\n1\n", "line 2: 1 values where 2 are expected"),
    ("x,y\n1,2,3\n", "line 2: 3 values where 2"),
    ("x,y\n1,\n", "line 2: y is '', not a finite number"),
    ("x,y\n\n#\n1,inf\n", "line 4: y is 'inf', not a finite number"),
    ("x,y\n1_0,2\n", "line 2: x is '1_0'"),
    ("x,y,score\n1,2,good\n", "line 2: the score is 'good', not a number"),
    ('x,y\n"1,2\n', "line 2: a quote is not closed"),
    ("micrograph,x,y\n,1,2\n", "line 2: the micrograph's name is empty"),
    ("1 2\n1 2 3\n", "line 2: 3 values where 2"),
    ("1 2\nx 2\n", "line 2: x is 'x'"),
    ("x,y,width,height\n1,2,3,4\n", "no format of picks is recognised"),
    ("x,y,z\n1,2,3\n", "no format of picks is recognised"),
    ("x,x,y\n1,2,3\n", "no format of picks is recognised"),
    ("1,2,3,4\n", "no format of picks is recognised"),
    ("x;y\n1;2\n", "no format of picks is recognised"),
    ("x,y\r1,2\r", "line 1: CR line ends"),
    (b"x,y\n1,\xff\n", "line 2: byte"),
    (b"x,y\n1,\0\n", "line 2: a NUL byte"),
    ("x,y\n" + "1" * 70_000 + ",2\n", "line 2: a line of 70003 bytes"),
]


@pytest.mark.parametrize(("content", "message"), TABLE_FAULTS)
def test_table_faults(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_picks(write(tmp_path, content, "a.csv"))


# ---------------------------------------------------------------- Xmipp, faults of CBOX, lists


def test_pos(tmp_path: Path) -> None:
    file = read_picks(write(tmp_path, POS, "mic.pos"))
    assert (file.format, file.names_from_stem) == ("xmipp-pos", True)
    np.testing.assert_array_equal(file.picks.coordinates, [[120, 45], [7, 8]])
    np.testing.assert_array_equal(file.picks.figure_of_merit, [0.75, 0])
    assert subset(file, np.array([False, True])).decode() == POS.replace(" 1 1 120 45 0.75\n", "")


STAR_FAULTS = [
    (CBOX.format(more="", rows="1 2 3\n"), "line 15: 3 values where 6"),
    (CBOX.format(more="", rows="1 x <NA> 4 4 1\n"), "line 15: _CoordinateY is 'x'"),
    (CBOX.format(more="", rows="1 <NA> <NA> 4 4 1\n"), "line 15: _CoordinateY is '<NA>'"),
    (CBOX.format(more="", rows="1 2 <NA> 0 4 1\n"), "line 15: _Width is 0"),
    (CBOX.format(more="", rows="1 2 3 4 4 1\n1 2 4 4 4 1\n"), "tomogram"),
    (CBOX.format(more="_CoordinateX #7\n", rows="1 2 3 4 4 1 1\n"), "_CoordinateX twice"),
    ("data_cryolo\nloop_\n_CoordinateX\n_CoordinateY\n1 2\n", "line 2: data_cryolo has no column _Width"),
    (POS.replace("120", "1.5x"), "line 14: _xcoor is '1.5x'"),
    (POS.replace(" 0.75", ""), "line 14: 4 values where 5"),
]


@pytest.mark.parametrize(("content", "message"), STAR_FAULTS)
def test_star_faults(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_picks(write(tmp_path, content, "a.cbox"))


def test_what_is_picks(tmp_path: Path) -> None:
    for content in (POS, INFO, CBOX, "x,y\n", "1 2\n", "1 2 3 4\n", "image_name\tx_coord\ty_coord\n"):
        assert is_picks(write(tmp_path, content, "a").read_bytes())
    for content in ("", "some prose, and more\n", '{"a": 1}', "file,row,micrograph,x,y\n", "1\n", "# 1 2\n"):
        assert not is_picks(write(tmp_path, content, "a").read_bytes())


def test_minus_999_is_no_score(tmp_path: Path) -> None:
    head = "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnAutopickFigureOfMerit\n"
    found = merits(write(tmp_path, head + "1 2 -999.0\n3 4 0.5\n", "a.star"))
    np.testing.assert_array_equal(found, [np.nan, 0.5])


def test_suffix_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    star = "data_\nloop_\n_rlnMicrographName\nMotionCorr/job002/Movies/a.mrc\nMotionCorr/job002/Movies/b.mrc\n"
    (tmp_path / "mics.star").write_text(star)
    job = tmp_path / "AutoPick" / "job006"
    (job / "Movies").mkdir(parents=True)
    path = write(job, "mics.star\n", "coords_suffix_autopick.star")
    assert is_suffix_file(path)
    with pytest.raises(FormatError, match=r"no coordinate file \(such as .*Movies/a_autopick\.star\) of the 2"):
        read_suffix_file(path)
    write(job / "Movies", "", "b_autopick.star")
    found = read_suffix_file(path)
    assert found.micrograph_names == ("MotionCorr/job002/Movies/b.mrc",)
    assert [Path(name).name for name in found.coordinate_paths] == ["b_autopick.star"]
    assert rewrite_coordinate_list(found, ["elsewhere"]) == b"mics.star\n"
    write(job, "gone.star\n", "coords_suffix_autopick.star")
    with pytest.raises(FormatError, match="no STAR file of micrographs gone"):
        read_suffix_file(path)
    assert not is_suffix_file(write(job, "data_\nloop_\n", "coords_suffix_x.star"))


def test_real_files(shared_data: Path) -> None:
    file = read_picks(shared_data / "formats" / "TcdA1-0018_frames_sum.cbox")
    assert (file.format, len(file.picks)) == ("cbox", 120)
    np.testing.assert_allclose(file.picks.coordinates[0], [3810.3671875, 3984.455551147461], rtol=0, atol=1e-9)
    assert file.picks.figure_of_merit[0] == 0.6578449010848999
    assert read_picks(shared_data / "formats" / "ActLifeact_03047.cbox").format == "cbox-filaments"
    assert len(read_picks(shared_data / "formats" / "empty.cbox").picks) == 0
    truth = shared_data / "empiar10017" / "truth" / "Falcon_2012_06_12-14_57_34_0.csv"
    file = read_picks(truth)
    assert file.format == "csv"
    np.testing.assert_array_equal(file.picks.coordinates[0], [3616, 1901])
