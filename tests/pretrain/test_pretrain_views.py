"""Where points land in the views that are trained on, and views on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pretrain_world import make_folders, make_micrographs, tiny

from pickeropt.errors import FormatError, MicrographError
from pickeropt.io.micrographs import write_mrc
from pickeropt.pretrain.pretrain_config import PretrainConfig
from pickeropt.pretrain.training_set import LabelledBox, LabelledMicrograph, read_data_set
from pickeropt.pretrain.training_views import (
    TrainingView,
    box_groups,
    fitted_box,
    labelled_pieces,
    missing,
    open_store,
    unlabelled_pieces,
    write_piece,
)

CONFIG = tiny(Path("unused"))


def test_points_of_a_micrograph_stay_on_what_they_mark(tmp_path: Path) -> None:
    data = read_data_set(make_micrographs(tmp_path), ())
    for seed in range(3):
        for view in labelled_pieces(data, CONFIG)[0](np.random.default_rng(seed)):
            side = view.pixels.shape[0]
            assert view.pixels.shape == (side, side)
            assert side % 16 == 1
            assert side <= 65
            assert 14 <= view.diameter <= 20
            for (y, x), label in zip(view.points.round().int().tolist(), view.labels.tolist(), strict=True):
                near = view.pixels[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4].float().mean()
                assert near < -1.0 if label == 0 else near > -0.8


def test_no_more_points_of_a_class_than_asked_for_and_none_outside(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_mrc(tmp_path / "m.mrc", rng.standard_normal((150, 150)).astype(np.float32), 2.0)
    points, labels = rng.uniform(-50, 200, (4000, 2)), np.arange(4000) % 3
    micrograph = LabelledMicrograph(tmp_path / "m.mrc", points, labels, 16.0)
    data = read_data_set(make_micrographs(tmp_path / "sim"), ())  # classes 0 and 1 are both particles
    config = replace(CONFIG, points_per_class=30)
    piece = labelled_pieces(replace(data, micrographs=(micrograph,)), config)[0]
    for view in piece(np.random.default_rng(1)):
        particles = int((view.labels < 2).sum())
        assert particles == 30
        assert len(view.labels) == 60
        assert (view.points > 0).all()
        assert (view.points < view.pixels.shape[0] - 1).all()


def test_a_box_is_a_view_with_one_point_in_its_middle(tmp_path: Path) -> None:
    data = read_data_set(make_folders(tmp_path, 2), ())
    pieces = labelled_pieces(data, CONFIG)
    assert len(pieces) == 6  # two micrographs of the entry, two of each of the others
    views = pieces[0](np.random.default_rng(0))
    assert [view.labels.tolist() for view in views] == [[0], [0], [3], [3]]
    for view in views:
        side = view.pixels.shape[0]
        assert side % 32 == 1
        assert view.points.tolist() == [[side // 2, side // 2]]
        assert not view.centred


def test_boxes_go_by_micrograph_or_in_handfuls() -> None:
    pixels = np.zeros((4, 4), dtype=np.float32)
    names = ["a", "b", "a", *[""] * 37]
    groups = box_groups([LabelledBox("x", pixels, 0, name) for name in names])
    assert groups[:3] == [0, 1, 0]
    assert set(groups[3:]) == {3, 4, 5}
    assert max(np.bincount(groups)) <= 16


def test_a_fitted_box_keeps_its_greys_or_is_scaled_by_itself(tmp_path: Path) -> None:
    grey = read_data_set(make_folders(tmp_path / "a", 2), ())
    bare = read_data_set(make_folders(tmp_path / "b", 2, micrographs=False), ())
    pixels = np.random.default_rng(0).normal(7, 3, (24, 24)).astype(np.float32)
    box = LabelledBox("box 1", pixels, 0, "")
    same = fitted_box(box, grey, 16.0, 33)  # 1.5 diameters of 16 px are its own 24 px
    assert torch.equal(same[0, 0, 4:28, 4:28], torch.from_numpy(pixels))
    assert torch.equal(same[0, 0, 16, 28:], torch.from_numpy(pixels)[12, 23].expand(5))
    scaled = fitted_box(box, bare, 16.0, 33)
    assert float(torch.corrcoef(torch.stack([scaled.flatten(), same.flatten()]))[0, 1]) > 0.999
    assert abs(float(scaled.median())) < 0.3
    assert 0.7 < float(scaled.std()) < 1.4
    with pytest.raises(FormatError, match="box 1: more than half of the pixels have one value"):
        fitted_box(LabelledBox("box 1", pixels * 0, 0, ""), bare, 16.0, 33)


def test_pictures_and_micrographs_without_labels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    write_mrc(tmp_path / "b.mrc", pixels.astype(np.float32), 1.0)
    paths = [tmp_path / "a.png", tmp_path / "b.mrc"]
    views = [piece(np.random.default_rng(3)) for piece in unlabelled_pieces(paths, CONFIG)]
    assert [len(found) for found in views] == [3, 3]
    for a, b in zip(*views, strict=True):
        assert torch.equal(a.pixels, b.pixels)
        assert len(a.labels) == 0
        assert a.centred
        assert 32 < a.pixels.shape[0] <= 65
    (tmp_path / "c.png").write_bytes(b"not a picture")
    with pytest.raises(MicrographError, match=r"c.png: cannot be decoded"):
        unlabelled_pieces([tmp_path / "c.png"], CONFIG)[0](np.random.default_rng(0))


def test_a_flat_micrograph_is_named(tmp_path: Path) -> None:
    pixels = np.zeros((80, 80), dtype=np.float32)
    pixels[0, 0] = 1
    write_mrc(tmp_path / "flat.mrc", pixels, 1.0)
    for config in (CONFIG, PretrainConfig()):
        with pytest.raises(MicrographError, match=r"flat.mrc: more than half"):
            unlabelled_pieces([tmp_path / "flat.mrc"], config)[0](np.random.default_rng(0))


def test_views_on_disk_are_read_one_by_one(tmp_path: Path) -> None:
    views = []
    for n in range(3):
        pixels, maps = torch.full((17, 17), float(n)).half(), (torch.ones(2, 3, 3).half() * n,)
        views.append(TrainingView(pixels, 10.0 + n, torch.zeros(n, 2) + n, torch.arange(n), n != 1, maps))
    paths = [tmp_path / "0", tmp_path / "1"]
    write_piece(paths[0], views[:2])
    assert list(missing(paths)) == [1]
    write_piece(paths[1], views[2:])
    store = open_store(paths)
    assert (len(store), store.pieces) == (3, (0, 0, 1))
    for n, view in enumerate(views):
        found = store.load(n)
        assert (found.diameter, found.centred) == (view.diameter, view.centred)
        for a, b in zip(
            (found.pixels, found.points, found.labels, *found.maps),
            (view.pixels, view.points, view.labels, *view.maps),
            strict=True,
        ):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
