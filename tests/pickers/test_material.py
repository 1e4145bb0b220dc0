from pathlib import Path

import numpy as np
import pytest
from picker_world import make_coordinates, make_micrograph

from pickeropt.errors import PickeroptError
from pickeropt.io.labels import LabelRows, labels_content
from pickeropt.pickers.picker_config import PickTrainConfig
from pickeropt.pickers.picker_records import PickedMicrograph
from pickeropt.pickers.picking import chosen, read_material, split

CONFIG = PickTrainConfig("deepem", diameter_angstrom=24.0)


def labelled(count: int, name: str = "a") -> PickedMicrograph:
    return PickedMicrograph(Path(f"{name}.mrc"), np.arange(2.0 * count).reshape(-1, 2), 2.0, 24.0)


def test_labels_bring_their_diameters_and_only_particles_count(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_micrograph(tmp_path / f"{name}.mrc", [(1, 1, 9)])
    rows = LabelRows(
        ("a.mrc", "a.mrc", "b.mrc"),
        np.array([[10, 20], [30, 40], [50, 60]], dtype=np.float64),
        ("particle", "carbon", "particle"),
        ("x", "film", "y"),
        np.array([30.0, 30.0, 50.0]),
    )
    (tmp_path / "truth.star").write_bytes(labels_content(tmp_path / "truth.star", rows))
    material, warnings = read_material([tmp_path / "truth.star"], [], PickTrainConfig("deepem"))
    both = {one.path.stem: one for one in (*material.training, *material.testing)}
    assert both["a"].coordinates.tolist() == [[10, 20]]
    assert both["a"].diameter_px == 15
    assert both["b"].diameter_px == 25
    assert warnings == ()
    given, _ = read_material([tmp_path / "truth.star"], [], CONFIG)
    assert {one.diameter_angstrom for one in (*given.training, *given.testing)} == {24.0}


def test_particles_left_out_are_known_all_the_same() -> None:
    parts = chosen([labelled(5), labelled(7, "b")], 4, seed=3)
    assert sum(len(one.coordinates) for one in parts) == 4
    for one, size in zip(parts, (5, 7), strict=True):
        assert len(one.known) == size
        assert sorted(map(tuple, one.known.tolist())) == sorted(map(tuple, labelled(size).coordinates.tolist()))
    fewer = chosen([labelled(5), labelled(7, "b")], 2, seed=3)
    for few, more in zip(fewer, parts, strict=True):
        assert {*map(tuple, few.coordinates.tolist())} <= {*map(tuple, more.coordinates.tolist())}


def test_a_micrograph_at_least_is_held_back_where_there_are_two() -> None:
    ten = [labelled(1, str(i)) for i in range(10)]
    material = split(ten, 0.2, seed=0)
    assert (len(material.training), len(material.testing)) == (8, 2)
    assert material.evaluation == material.testing
    assert len(split(ten[:2], 0.01, 0).testing) == 1
    alone = split(ten[:1], 0.5, 0)
    assert alone.evaluation == alone.training == (ten[0],)


def test_one_micrograph_and_too_few_particles_are_told(tmp_path: Path) -> None:
    make_micrograph(tmp_path / "a.mrc", [])
    coords = make_coordinates(tmp_path / "a_autopick.star", [(10, 20)])
    config = PickTrainConfig("deepem", diameter_angstrom=24.0, particles=5)
    _, warnings = read_material([coords], [tmp_path], config)
    assert any("one micrograph only" in text for text in warnings)
    assert any("1 particles where --particles asks for 5" in text for text in warnings)


@pytest.mark.parametrize(
    ("xy", "config", "message"),
    [
        ([(81, 20)], CONFIG, "line 7: the particle at x 81, y 20 lies outside"),
        ([], CONFIG, "no picks"),
        ([(10, 20)], PickTrainConfig("deepem"), "name no particle diameter"),
    ],
)
def test_coordinates_that_cannot_be_learnt_from(
    tmp_path: Path, xy: list[tuple[float, float]], config: PickTrainConfig, message: str
) -> None:
    make_micrograph(tmp_path / "a.mrc", [])
    coords = make_coordinates(tmp_path / "a_autopick.star", xy)
    with pytest.raises(PickeroptError, match=message):
        read_material([coords], [tmp_path], config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PickTrainConfig("cryolo"), "--picker is 'cryolo'; give one of deepem"),
        (PickTrainConfig("yolo", diameter_angstrom=0.0), "--diameter is 0"),
        (PickTrainConfig("yolo", pixel_size=float("nan")), "--pixel-size is nan"),
        (PickTrainConfig("yolo", particles=0), "--particles is 0"),
        (PickTrainConfig("yolo", held_back=1.0), "--held-back is 1"),
    ],
)
def test_settings_that_mean_nothing(config: PickTrainConfig, message: str) -> None:
    with pytest.raises(PickeroptError, match=message):
        config.check()
