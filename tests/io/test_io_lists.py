from pathlib import Path

import pytest

from pickeropt.errors import FormatError
from pickeropt.io.lists import find_coordinate_file, is_coordinate_list, read_coordinate_list, rewrite_coordinate_list

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
