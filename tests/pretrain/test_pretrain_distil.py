"""What the default recipe minimises, against hand-computed values and the pooling that pruning uses."""

from pathlib import Path

import pytest
import torch

from pickeropt.finetune.recipes import STAGES, WINDOWS
from pickeropt.models.backbone import Backbone
from pickeropt.models.features import dense_features, integral_image, typical_feature, window_means
from pickeropt.models.head import ModelSpec
from pickeropt.pretrain import pretrain_recipes as default_recipe
from pickeropt.pretrain import pretrain_recipes as distil
from pickeropt.pretrain.pretrain_recipes import (
    at_scales,
    channel_spreads,
    head_scales,
    point_features,
    rotation_loss,
    window_features,
    window_weights,
)
from pickeropt.pretrain.training_views import TrainingView, open_store, write_piece


def test_scales_are_means_over_half_overlapping_squares() -> None:
    feature_map = torch.arange(16.0).reshape(1, 4, 4)
    one, two, four = at_scales(feature_map)
    assert torch.equal(one, feature_map)
    assert two[0].tolist() == [[2.5, 3.5, 4.5], [6.5, 7.5, 8.5], [10.5, 11.5, 12.5]]
    assert four.tolist() == [[[7.5]]]
    assert len(at_scales(feature_map[:, :3])) == 2


def test_window_weights_by_hand() -> None:
    weights = window_weights(torch.tensor([1.0, 0.0, 9.0]), 2.0, 4)
    # cells 0..3 are [i, i + 1]; around cell 1 the window is [0.5, 2.5]; outside it is cut, and moved inside
    expected = [[0.25, 0.5, 0.25, 0.0], [2 / 3, 1 / 3, 0.0, 0.0], [0.0, 0.0, 1 / 3, 2 / 3]]
    torch.testing.assert_close(weights, torch.tensor(expected))


@pytest.mark.parametrize("centred", [True, False])
def test_window_features_are_those_of_pruning(centred: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    feature_map = torch.randn(5, 9, 12, generator=generator)
    centres = torch.rand(7, 2, generator=generator) * torch.tensor([10.0, 13.0]) - 1
    found = window_features(feature_map, centres, 3.7, centred)
    level = typical_feature(feature_map)[:, None, None] if centred else 0
    table = integral_image(feature_map - level)
    expected = torch.cat([window_means(table, centres, window * 3.7) for window in WINDOWS], 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_head_sees_what_finetune_sees() -> None:
    assert (distil.WINDOWS, default_recipe.STAGES) == (WINDOWS, STAGES)
    torch.manual_seed(0)
    backbone = Backbone("resnet18", STAGES).eval()
    about = {"stages": STAGES, "channels": backbone.channels, "windows": WINDOWS, "view_diameters": (20.0,)}
    spec = ModelSpec("resnet18", **about, orientations=1, dense=True, box_diameters=2.7, centred=True,  # type: ignore[arg-type]
                     normalise="micrograph", loss_weights=(1.0,), class_names=("a",))  # fmt: skip
    view, points = torch.randn(1, 1, 81, 65), torch.rand(5, 2) * 90 - 10
    with torch.inference_mode():
        expected = dense_features(backbone, spec, view, points.double(), 0)
        maps = [m[0] for m in backbone(view)]
        found = point_features(maps, backbone.strides, points, 20.0, centred=True)
    assert found.shape == (5, spec.layout.width)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_head_scales_are_those_of_the_coarsest_scale() -> None:
    spreads = [
        [torch.full((2, 1, 1), 9.0), torch.tensor([4.0, 0.25])[:, None, None]],
        [torch.full((1, 1, 1), 1 / 9)],
    ]
    expected = [0.5, 2.0, 0.5, 2.0, 0.5, 2.0, 3.0, 3.0, 3.0]
    torch.testing.assert_close(head_scales(spreads), torch.tensor(expected))


def test_rotation_loss_by_hand() -> None:
    difference = torch.tensor([[[1.0, -1.0], [3.0, 1.0]]])
    target = torch.randn(1, 2, 2, generator=torch.Generator().manual_seed(1))
    spreads = [[torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), 0.5)]]
    # cells: (1 + 1 + 9 + 1) / 4 / 2 = 1.5; the one square of two cells: 1² / 0.5 = 2
    assert rotation_loss([target + difference], [target], spreads, centred=False) == pytest.approx(1.75)
    # less the mean of 1: (0 + 4 + 4 + 0) / 4 / 2 = 1; and 0
    assert rotation_loss([target + difference], [target], spreads, centred=True) == pytest.approx(0.5)
    assert rotation_loss([target + 5], [target], spreads, centred=True) == pytest.approx(0, abs=1e-6)
    both = rotation_loss([target + 2, target], [target, target], [*spreads, *spreads], centred=False)
    assert both == pytest.approx((4 / 2 + 4 / 0.5) / 2 / 2)


@pytest.mark.parametrize("centred", [True, False])
def test_spreads_are_variances_within_or_over_all_maps(tmp_path: Path, centred: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    maps = [(torch.randn(2, 6, 6, generator=generator) + 3 * i).half() for i in range(3)]
    nothing = torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)
    views = [TrainingView(torch.zeros(17, 17).half(), 9.0, *nothing, centred, (m,)) for m in maps]
    write_piece(tmp_path / "a", views[:2])
    write_piece(tmp_path / "b", views[2:])
    (spread,) = channel_spreads(open_store([tmp_path / "a", tmp_path / "b"]), torch.device("cpu"))
    for i, pooled in enumerate(zip(*(at_scales(m.float()) for m in maps), strict=True)):
        values = torch.stack(pooled)  # (views, c, h, w)
        level = torch.stack([m.float().mean((1, 2)) for m in maps])[:, :, None, None]
        kept = values - level if centred else values
        expected = kept.square().mean((0, 2, 3)) - kept.mean((0, 2, 3)).square()
        torch.testing.assert_close(spread[i].flatten(), expected, rtol=1e-3, atol=1e-5)
