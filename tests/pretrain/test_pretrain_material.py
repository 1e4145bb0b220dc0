"""Both layouts of a data set, what is left out of them, and what is wrong with them."""

import json
from pathlib import Path

import numpy as np
import pytest
from pretrain_world import DIAMETER, PIXEL_SIZE, make_folders, make_micrographs

from pickeropt.errors import FormatError, MicrographError, PickeroptError
from pickeropt.pretrain.training_set import find_unlabelled, read_data_set


def test_simulated_micrographs(tmp_path: Path) -> None:
    data = read_data_set(make_micrographs(tmp_path), ())
    assert data.classes.names == ("big", "small", "empty_ice", "stripes")
    assert data.classes.parents == ("particle", "particle", "background", "carbon")
    assert [m.path.name for m in data.micrographs] == ["m0.mrc", "m1.mrc", "m2.mrc", "m3.mrc"]
    third = data.micrographs[2]
    assert third.labels.tolist() == [0, 0, 2, 3]
    assert third.coordinates.tolist() == [[28, 28], [84, 28], [28, 84], [84, 84]]
    assert third.diameter_px == pytest.approx(DIAMETER / PIXEL_SIZE)


def test_a_micrograph_with_what_is_excluded_is_left_out_whole(tmp_path: Path) -> None:
    make_micrographs(tmp_path)
    data = read_data_set(tmp_path, ("stripes",))
    assert [m.path.name for m in data.micrographs] == ["m0.mrc", "m1.mrc"]
    assert data.classes.names == ("big", "small", "empty_ice")
    assert [m.labels.tolist() for m in data.micrographs] == [[0, 0, 2], [1, 1, 2]]
    assert data.fingerprint != read_data_set(tmp_path, ()).fingerprint
    with pytest.raises(PickeroptError, match=r"none left to train on; two classes"):
        read_data_set(tmp_path, ("empty_ice",))


def test_what_is_ignored_loses_its_labels_only(tmp_path: Path) -> None:
    data = read_data_set(make_micrographs(tmp_path / "a"), ("small",), ("empty_ice",))
    assert data.classes.names == ("big", "stripes")
    assert [m.path.name for m in data.micrographs] == ["m0.mrc", "m2.mrc"]
    assert [m.labels.tolist() for m in data.micrographs] == [[0, 0], [0, 0, 1]]
    assert data.micrographs[1].coordinates.tolist() == [[28, 28], [84, 28], [84, 84]]
    data = read_data_set(make_folders(tmp_path / "b", 2), ("small",), ("stripes",))
    assert [(box.label, box.micrograph) for box in data.boxes] == [
        (0, "EMPIAR-1-0.mrc"),
        (0, "EMPIAR-1-1.mrc"),
        (1, "empty_ice-0.mrc"),
        (1, "empty_ice-1.mrc"),
    ]
    with pytest.raises(PickeroptError, match=r"--ignore EMPIAR-1: no such name .* big, empty_ice, small"):
        read_data_set(tmp_path / "b", (), ("EMPIAR-1",))


def test_class_folders(tmp_path: Path) -> None:
    data = read_data_set(make_folders(tmp_path, 3), ())
    assert data.classes.names == ("big", "small", "empty_ice", "stripes")
    assert data.box_diameters == 1.5
    assert data.by_micrograph
    assert sorted(box.label for box in data.boxes) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    small = [box for box in data.boxes if box.label == 1]
    assert [box.source.split("/")[-1] for box in small] == ["small.mrcs"] * 3
    assert [box.micrograph for box in small] == ["small-0.mrc", "small-1.mrc", "small-2.mrc"]


def test_an_entry_is_left_out_with_all_its_classes_and_boxes_of_its_micrographs(tmp_path: Path) -> None:
    make_folders(tmp_path, 3)
    about = json.loads((tmp_path / "dataset.json").read_text())
    about["classes"]["empty_ice"]["micrographs"] = ["EMPIAR-1-2.mrc", "other.mrc", "other.mrc"]
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    data = read_data_set(tmp_path, ("EMPIAR-1",))
    assert data.classes.names == ("small", "empty_ice")
    assert [box.label for box in data.boxes if box.label] == [1, 1]
    # every box of stripes is from a micrograph of big ones
    assert read_data_set(tmp_path, ("big",)).classes.names == ("small", "empty_ice")
    assert read_data_set(tmp_path, ("small",)).classes.names == ("big", "empty_ice", "stripes")


def test_boxes_whose_micrographs_are_not_known(tmp_path: Path) -> None:
    data = read_data_set(make_folders(tmp_path, 2, micrographs=False), ("small",))
    assert {box.micrograph for box in data.boxes} == {""}
    assert len(data.boxes) == 6
    assert not data.by_micrograph


@pytest.mark.parametrize("make", [make_micrographs, make_folders])
def test_a_name_to_exclude_that_is_not_there(tmp_path: Path, make: object) -> None:
    make(tmp_path)  # type: ignore[operator]
    with pytest.raises(PickeroptError, match=r"--exclude 5A1A: no such name .* big, empty_ice, small, stripes"):
        read_data_set(tmp_path, ("5A1A",))


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"neither truth.star nor dataset.json .* `pickeropt dataset"):
        read_data_set(tmp_path, ())


def test_a_missing_micrograph_and_a_diameter_that_does_not_fit(tmp_path: Path) -> None:
    make_micrographs(tmp_path)
    text = (tmp_path / "truth.star").read_text()
    (tmp_path / "truth.star").write_text(text.replace("64.000", "640.000"))
    with pytest.raises(MicrographError, match=r"m0.mrc: a particle of 640 Å is 160.0 px .* 112 x 112"):
        read_data_set(tmp_path, ())
    (tmp_path / "micrographs/m0.mrc").unlink()
    with pytest.raises(MicrographError, match=r"m0.mrc: no such file"):
        read_data_set(tmp_path, ())


def test_one_source_class_of_two_classes(tmp_path: Path) -> None:
    make_micrographs(tmp_path)
    text = (tmp_path / "truth.star").read_text()
    (tmp_path / "truth.star").write_text(text.replace("background empty_ice", "carbon empty_ice", 1))
    with pytest.raises(FormatError, match=r"empty_ice is both background and carbon"):
        read_data_set(tmp_path, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not of 'pickeropt class folders'"),
        ({"box_diameters": 0.5}, "narrower than a particle"),
        ({"classes": {}}, "says nothing of big, empty_ice, small, stripes"),
        ({"classes": {"big": {}}}, "not of 'pickeropt class folders'"),
        ({"classes": []}, "cannot be read"),
    ],
)
def test_a_description_that_is_wrong(tmp_path: Path, change: dict[str, object], message: str) -> None:
    make_folders(tmp_path, 2)
    about = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps(about | change))
    with pytest.raises(FormatError, match=message):
        read_data_set(tmp_path, ())


def test_a_wrong_parent_and_a_wrong_number_of_micrographs(tmp_path: Path) -> None:
    make_folders(tmp_path, 2)
    about = json.loads((tmp_path / "dataset.json").read_text())
    about["classes"]["big"]["micrographs"] = ["a.mrc"]
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(FormatError, match="says 1 boxes of big, there are 2"):
        read_data_set(tmp_path, ())
    about["classes"]["big"]["class"] = "junk"
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(FormatError, match="big is of class 'junk'; use particle, background"):
        read_data_set(tmp_path, ())


def test_files_without_labels(tmp_path: Path) -> None:
    for name in ("b/x.png", "a.mrc", ".hidden.png", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(np.zeros(1).tobytes())
    assert [path.name for path in find_unlabelled(tmp_path)] == ["a.mrc", "x.png"]
    with pytest.raises(MicrographError, match="no micrograph or picture"):
        find_unlabelled(tmp_path / "b/none")
