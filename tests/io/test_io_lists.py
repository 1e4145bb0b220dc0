from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from pickeropt.errors import FormatError, OutputError
from pickeropt.io.labels import LabelRows, TruthPoints, labels_content, write_truth
from pickeropt.io.lists import (
    find_coordinate_file,
    is_coordinate_list,
    read_coordinate_list,
    read_suffix_file,
    rewrite_coordinate_list,
)
from pickeropt.io.relion_star import below_job, job_prefix, write_labelled_star
from pickeropt.io.star import is_plain_token, star_token

LIST = """
# version 30001

data_coordinate_files

loop_ 
_rlnMicrographName #1 
_rlnMicrographCoordinates #2 
MotionCorr/job002/a.mrc   AutoPick/job006/a_autopick.star  # first
# a comment
'MotionCorr/job002/b c.mrc'\t"AutoPick/job006/b c_autopick.star"
"""  # noqa: W291


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "project" / "AutoPick" / "job006"
    folder.mkdir(parents=True)
    path = folder / "autopick.star"
    path.write_text(LIST)
    return path


def test_read(path: Path) -> None:
    assert is_coordinate_list(path)
    found = read_coordinate_list(path)
    assert len(found) == 2
    assert found.micrograph_names == ("MotionCorr/job002/a.mrc", "MotionCorr/job002/b c.mrc")
    assert found.coordinate_paths == ("AutoPick/job006/a_autopick.star", "AutoPick/job006/b c_autopick.star")


def test_rewrite_changes_only_the_paths(path: Path) -> None:
    found = read_coordinate_list(path)
    new = rewrite_coordinate_list(found, ["External/job007/a.star", "out put/b's.star"]).decode()
    expected = LIST.replace("AutoPick/job006/a_autopick.star", "External/job007/a.star")
    assert new == expected.replace('"AutoPick/job006/b c_autopick.star"', '"out put/b\'s.star"')
    same = rewrite_coordinate_list(found, found.coordinate_paths)
    assert same == LIST.encode()


def test_rewrite_refuses(path: Path) -> None:
    found = read_coordinate_list(path)
    with pytest.raises(ValueError, match="zip"):
        rewrite_coordinate_list(found, ["one"])
    for name in ("", "a\nb", "a b'\"c"):
        with pytest.raises(FormatError, match="cannot stand in a STAR file"):
            rewrite_coordinate_list(found, ["fine", name])


def test_find_from_the_project_folder(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = read_coordinate_list(path)
    with pytest.raises(FormatError, match=r"autopick\.star, line 9: no coordinate file AutoPick/.*run in"):
        find_coordinate_file(found, 0)
    (path.parent / "a_autopick.star").write_text("data_\n")
    assert find_coordinate_file(found, 0).resolve() == (path.parent / "a_autopick.star").resolve()
    monkeypatch.chdir(tmp_path / "project")
    assert find_coordinate_file(found, 0) == Path("AutoPick/job006/a_autopick.star")


def test_other_files_are_no_lists(tmp_path: Path) -> None:
    star = tmp_path / "x.star"
    star.write_text("data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n1 2\n")
    binary = tmp_path / "x.cs"
    binary.write_bytes(b"\x93NUMPY\0\0")
    assert not is_coordinate_list(star)
    assert not is_coordinate_list(binary)
    with pytest.raises(FormatError, match="no loop_ with _rlnMicrographName and _rlnMicrographCoordinates"):
        read_coordinate_list(star)
    with pytest.raises(FormatError, match="cannot be read"):
        is_coordinate_list(tmp_path / "none.star")


@pytest.mark.parametrize(
    ("path", "prefix", "below"),
    [
        ("MotionCorr/job002/Movies/a.mrc", "MotionCorr/job002/", "Movies/a.mrc"),
        ("/d/proj/MotionCorr/job002/Movies/a.mrc", "/d/proj/MotionCorr/job002/", "Movies/a.mrc"),
        ("../proj/MotionCorr/job002/a.mrc", "../proj/MotionCorr/job002/", "a.mrc"),
        ("A/job001/B/job002/a.mrc", "A/job001/", "B/job002/a.mrc"),
        ("/d/myjob001/a.mrc", "", "d/myjob001/a.mrc"),
        ("job002/a.mrc", "", "job002/a.mrc"),
        ("Raw/job_2/a.mrc", "", "Raw/job_2/a.mrc"),
    ],
)
def test_the_job_in_a_path(path: str, prefix: str, below: str) -> None:
    assert job_prefix(path) == prefix
    assert below_job(path) == below


def test_a_suffix_file_of_micrographs_with_absolute_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "/d/proj/MotionCorr/job002/Movies/a.mrc"
    (tmp_path / "mics.star").write_text(f"data_\nloop_\n_rlnMicrographName\n{name}\n")
    job = tmp_path / "AutoPick" / "job006"
    (job / "Movies").mkdir(parents=True)
    (job / "Movies" / "a_autopick.star").write_text("data_\n")
    (job / "coords_suffix_autopick.star").write_text("mics.star\n")
    found = read_suffix_file(job / "coords_suffix_autopick.star")
    assert found.micrograph_names == (name,)
    assert found.coordinate_paths == (str(job / "Movies" / "a_autopick.star"),)


@pytest.mark.parametrize(
    ("value", "token", "in_labels"),
    [
        ("a.mrc", "a.mrc", True),
        ("a;b", "a;b", True),
        ("a#b", "a#b", False),
        (";x", '";x"', False),
        ("#x", '"#x"', False),
        ("$x", '"$x"', False),
        ("[x", '"[x"', False),
        ("_x", '"_x"', False),
        ("a b", '"a b"', False),
    ],
)
def test_what_a_star_token_may_be(tmp_path: Path, value: str, token: str, in_labels: bool) -> None:
    assert star_token(value).decode() == token
    assert is_plain_token(value) == (token == value)
    place, one = np.ones((1, 2)), np.ones(1)
    truth = TruthPoints("a.mrc", place, (value,), ("x",), np.zeros((1, 3)), (2.0, 1.0, 0.0), 100.0)
    writers = (
        lambda: write_truth(tmp_path / "t.star", truth),
        lambda: write_labelled_star(tmp_path / "t.star", [value], place, ["x"]),
        lambda: labels_content(tmp_path / "t.star", LabelRows((value,), place, ("x",), ("x",), one)),
    )
    for write in writers:
        with nullcontext() if in_labels else pytest.raises(OutputError, match="cannot stand in a STAR"):
            write()
