from pathlib import Path

import numpy as np
import pytest
import starfile

from pickeropt.errors import OutputError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.picks import read_picks
from pickeropt.io.relion_star import write_coordinate_star, write_labelled_star

XY = np.array([[1.5, 4095.123456], [1e-3, 12.0], [123456.654321, 0.0]])


def test_atomic_write(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.star"
    write_bytes_atomically(path, b"one")
    write_bytes_atomically(path, b"two\n")
    assert path.read_bytes() == b"two\n"
    assert [p.name for p in path.parent.iterdir()] == ["a.star"]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.star"
    path.write_bytes(b"old")

    def no_space(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(OutputError, match=r"a\.star: cannot be written \(No space left on device\); choose"):
        write_bytes_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.star"]


def test_output_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        write_bytes_atomically(tmp_path / "file" / "a.star", b"")


def test_labelled_star(tmp_path: Path) -> None:
    path = tmp_path / "labels.star"
    write_labelled_star(path, ["m/1.mrc", "007.mrc", "m/1.mrc"], XY, ["particle", "ice", "particle"])
    file = read_picks(path)
    assert file.format == "labelled"
    np.testing.assert_allclose(file.picks.coordinates, XY, rtol=0, atol=5e-7)
    assert file.picks.micrograph_names == ("m/1.mrc", "007.mrc")
    np.testing.assert_array_equal(file.picks.micrograph_index, [0, 1, 0])
    assert file.picks.class_names == ("particle", "ice", "particle")
    table = starfile.read(path)
    assert list(table.columns) == ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "pickeroptClass"]
    np.testing.assert_allclose(table[["rlnCoordinateX", "rlnCoordinateY"]], XY, rtol=0, atol=5e-7)


@pytest.mark.parametrize("name", ["a b.mrc", "a#.mrc", "", "_a", "'a"])
def test_labelled_star_refuses_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="cannot stand in a STAR file"):
        write_labelled_star(tmp_path / "a.star", [name], XY[:1], ["ice"])
    with pytest.raises(OutputError, match="cannot stand in a STAR file"):
        write_labelled_star(tmp_path / "a.star", ["a.mrc"], XY[:1], [name])
    assert not (tmp_path / "a.star").exists()


def test_coordinate_star(tmp_path: Path) -> None:
    path = tmp_path / "mic.star"
    score = np.array([0.25, -1.5, 1e-4])
    write_coordinate_star(path, XY, score)
    first = path.read_bytes()
    write_coordinate_star(path, XY, score)
    assert path.read_bytes() == first
    assert b"\r" not in first
    assert b"4095.123456" in path.read_bytes()
    file = read_picks(path)
    assert file.format == "relion-coordinates"
    np.testing.assert_allclose(file.picks.coordinates, XY, rtol=0, atol=5e-7)
    np.testing.assert_allclose(file.picks.figure_of_merit, score, rtol=0, atol=5e-7)
    np.testing.assert_allclose(starfile.read(path).to_numpy(), np.column_stack([XY, score]), atol=5e-7)


def test_no_rows(tmp_path: Path) -> None:
    write_coordinate_star(tmp_path / "a.star", np.zeros((0, 2)), np.zeros(0))
    assert len(read_picks(tmp_path / "a.star").picks) == 0
