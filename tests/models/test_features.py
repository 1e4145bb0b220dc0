"""Dense and boxed features against each other, against arithmetic, and in strips."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from pickeropt.models import features
from pickeropt.models.backbone import Backbone
from pickeropt.models.features import (
    EIGHT,
    box_features,
    dense_features,
    integral_image,
    strip_maps,
    turn,
    typical_feature,
    window_means,
)
from pickeropt.models.head import ModelSpec


def spec_of(backbone: nn.Module, **changes) -> ModelSpec:
    settings = {
        "backbone": "resnet18",
        "stages": backbone.stages,
        "channels": backbone.channels,
        "view_diameters": (99.0, 40.0),
        "windows": (0.5, 1.2),
        "orientations": 1,
        "dense": True,
        "box_diameters": 8.0,
        "centred": False,
        "normalise": "micrograph",
        "loss_weights": (1.0, 0.3),
        "class_names": ("particle", "ice"),
    }
    return ModelSpec(**{**settings, **changes})


class Ruler(nn.Module):
    """A "network" whose maps hold the pixels themselves: every second, every fourth, and their negatives."""

    stages, channels, strides, reach = ("layer1", "layer2"), (2, 2), (2, 4), 0

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.cat([x, -x], 1)[:, :, ::s, ::s] * self.one for s in self.strides]


class Tiny(nn.Module):
    """Two convolutions at stride 2: a cell of the last map sees 3 px on each side."""

    stages, channels, strides, reach = ("layer1", "layer2"), (3, 4), (2, 4), 3

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 3, 3, 2, 1), nn.Conv2d(3, 4, 3, 2, 1)
        self.heights: list[int] = []

    def forward(self, x: Tensor) -> list[Tensor]:
        self.heights.append(x.shape[2])
        first = self.first(x)
        return [first, self.second(first.relu())]


def real_backbone(name: str = "resnet18", stages: Sequence[str] = ("layer2", "layer3")) -> Backbone:
    torch.manual_seed(0)
    return Backbone(name, tuple(stages)).eval()


@pytest.mark.parametrize(("view_index", "diameter"), [(0, 16.0), (1, 24.0)])
def test_dense_features_by_hand(view_index: int, diameter: float) -> None:
    """On a ramp the mean of whole cells is the value in their middle, in px, whatever stride and window."""
    rows, columns = torch.arange(97.0)[:, None], torch.arange(129.0)
    view = (1000 * rows + columns)[None, None]
    spec = spec_of(Ruler(), view_diameters=(16.0, 24.0), windows=(0.5, 1.0))
    centres = torch.tensor([[40.0, 60.0], [33.3, 77.75]], dtype=torch.float64)
    with torch.inference_mode():
        out = dense_features(Ruler(), spec, view, centres, view_index)
    value = (1000 * centres[:, 0] + centres[:, 1]).float()
    torch.testing.assert_close(out, torch.stack([value, -value] * 4, 1), rtol=1e-5, atol=0.01)
    assert out.shape[1] * 2 == spec.layout.width
    edge = dense_features(Ruler(), spec, view, torch.zeros(1, 2, dtype=torch.float64), view_index)[0]
    means = []
    for stride in (2, 4):
        for window in (0.5, 1.0):
            cells = 0.5 + window * diameter / 2 / stride  # from the edge of cell 0 on
            whole = int(cells)
            means.append(stride * (sum(range(whole)) + (cells - whole) * whole) / cells)
    torch.testing.assert_close(edge[::2], 1001 * torch.tensor(means), rtol=1e-4, atol=0.01)


def test_features_are_freed_of_the_typical_feature() -> None:
    view = torch.randn(1, 1, 97, 129)
    backbone = Ruler()
    centres = torch.tensor([[40.0, 60.0]], dtype=torch.float64)
    with torch.inference_mode():
        plain = dense_features(backbone, spec_of(backbone), view, centres, 1)
        centred = dense_features(backbone, spec_of(backbone, centred=True), view + 50, centres, 1)
        levels = [typical_feature(m[0]) for m in backbone(view)]
    torch.testing.assert_close(centred, plain - torch.cat([levels[0]] * 2 + [levels[1]] * 2), atol=1e-4, rtol=0)


def test_a_high_level_does_not_drown_what_is_local() -> None:
    view = 1000 + torch.randn(1, 1, 769, 769, generator=torch.Generator().manual_seed(0))
    spec = spec_of(Ruler(), view_diameters=(16.0,), windows=(0.5,))
    with torch.inference_mode():
        out = dense_features(Ruler(), spec, view, torch.tensor([[763.0, 763.0]], dtype=torch.float64), 0)
    expected = view[0, 0, 760:768:2, 760:768:2].mean()  # cells 380 to 383 of 2 px
    assert out[0, 0].item() == pytest.approx(expected.item(), abs=2e-3)
    assert out[0, 1].item() == pytest.approx(-expected.item(), abs=2e-3)


def test_the_typical_feature_by_hand() -> None:
    maps = torch.zeros(2, 9, 9)
    maps[0, ::4, ::4] = torch.arange(9.0).reshape(3, 3)
    maps[1] = 7.0
    maps[1, :5, :5] = 1000.0  # 4 of the 9 cells that are looked at
    assert typical_feature(maps).tolist() == [4.0, 7.0]


@pytest.mark.parametrize("orientations", [1, 5])
def test_a_box_sees_what_the_whole_micrograph_shows(orientations: int) -> None:
    """Where box and view reach beyond the receptive field, and the pick is on a cell."""
    backbone = real_backbone()
    spec = spec_of(backbone, orientations=orientations)
    view = torch.randn(1, 1, 353, 385, generator=torch.Generator().manual_seed(1))
    y, x = 176, 192
    assert spec.box_px(40.0) == 321
    box = view[:, :, y - 160 : y + 161, x - 160 : x + 161]
    with torch.inference_mode():
        dense = dense_features(backbone, spec, view, torch.tensor([[y, x]], dtype=torch.float64), 1)
        boxed = box_features(backbone, spec, box, 1)
        aside = dense_features(backbone, spec, view, torch.tensor([[y, x + 8]], dtype=torch.float64), 1)
    torch.testing.assert_close(dense, boxed, atol=2e-5 * float(boxed.abs().max()), rtol=0)
    assert (aside - boxed).abs().max() > 100 * (dense - boxed).abs().max()


def test_the_average_over_all_orientations_does_not_turn() -> None:
    backbone = real_backbone(stages=("layer1", "layer2"))
    spec = spec_of(backbone, orientations=8)
    view = torch.randn(1, 1, 65, 97, generator=torch.Generator().manual_seed(2))
    marks = torch.zeros(1, 1, 65, 97)
    marks[0, 0, 20, 50] = 1
    with torch.inference_mode():
        plain = dense_features(backbone, spec, view, torch.tensor([[20.0, 50.0]], dtype=torch.float64), 1)
        boxed = box_features(backbone, spec, view[:, :, :, :65], 1)
        for orientation in EIGHT:
            at = turn(marks, orientation)[0, 0].nonzero().double()
            turned = turn(view, orientation).contiguous()
            out = dense_features(backbone, spec, turned, at, 1)
            torch.testing.assert_close(out, plain, atol=1e-5, rtol=1e-4)
            box = turn(view[:, :, :, :65], orientation)
            torch.testing.assert_close(box_features(backbone, spec, box, 1), boxed, atol=1e-5, rtol=1e-4)
        alone = dense_features(
            backbone, spec_of(backbone), turned, turn(marks, orientation)[0, 0].nonzero().double(), 1
        )
    assert (alone - plain).abs().max() > 1e-2  # one turn alone does


@pytest.mark.parametrize("height", range(5, 90, 4))
def test_strips_are_the_whole_at_any_height(monkeypatch: pytest.MonkeyPatch, height: int) -> None:
    backbone = Tiny()
    view = torch.randn(1, 1, height, 21, generator=torch.Generator().manual_seed(height))
    with torch.inference_mode():
        whole = backbone(view)
        for rows in (1, 13, 16, 24, 40, height):
            monkeypatch.setattr(features, "STRIP_PX", rows * 21)
            backbone.heights.clear()
            for a, b in zip(strip_maps(backbone, view), whole, strict=True):
                torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
            assert max(backbone.heights) <= max(rows, 12) + 1  # two halos and a cell at least, and a row
            assert len(backbone.heights) > 1 or height <= max(rows, 12)


@pytest.mark.parametrize(
    ("name", "stages"),
    [("resnet18", ("layer2", "layer3")), ("resnet18", ("layer4",)), ("resnet50", ("layer3",))],
)
def test_strips_are_the_whole_for_resnets(monkeypatch: pytest.MonkeyPatch, name, stages) -> None:
    backbone = real_backbone(name, stages)
    view = torch.randn(1, 1, 32 * 24 + 1, 33, generator=torch.Generator().manual_seed(3))
    calls: list[int] = []
    backbone.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0].shape[2]))
    with torch.inference_mode():
        whole = strip_maps(backbone, view)
        monkeypatch.setattr(features, "STRIP_PX", 1)
        strips = strip_maps(backbone, view)
    assert calls[0] == 769
    assert len(calls) > 4
    for a, b in zip(strips, whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max()), rtol=0)


def test_a_small_view_passes_in_one() -> None:
    backbone = Tiny()
    with torch.inference_mode():
        strip_maps(backbone, torch.zeros(1, 1, 401, 401))
    assert backbone.heights == [401]


def test_boxes_without_windows_are_pooled_over_the_whole_map() -> None:
    backbone = real_backbone(stages=("layer1",))
    boxes = torch.randn(3, 1, 65, 65)
    with torch.inference_mode():
        out = box_features(backbone, spec_of(backbone, windows=()), boxes, 0)
        torch.testing.assert_close(out, backbone(boxes)[0].mean((2, 3)))


@pytest.mark.parametrize("diameter", [3.0, 10.0, 37.3, 400.0])
def test_windows_of_boxes_are_those_of_maps(diameter: float) -> None:
    backbone = Ruler()
    spec = spec_of(backbone, view_diameters=(diameter,))
    boxes = torch.randn(2, 1, 33, 33)
    out = box_features(backbone, spec, boxes, 0)
    for row, box in zip(out, boxes, strict=True):
        expected = []
        for maps, stride in zip(backbone(box[None]), (2, 4), strict=True):
            middle = torch.tensor([[16 / stride, 16 / stride]], dtype=torch.float64)
            for window in spec.windows:
                expected.append(window_means(integral_image(maps[0]), middle, window * diameter / stride)[0])
        torch.testing.assert_close(row, torch.cat(expected), atol=1e-5, rtol=1e-5)


def test_boxes_teach_the_backbone() -> None:
    backbone = real_backbone(stages=("layer1",))
    for windows in ((), (0.5, 1.2)):
        backbone.zero_grad()
        out = box_features(backbone, spec_of(backbone, windows=windows, orientations=2), torch.randn(2, 1, 65, 65), 1)
        out.square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in backbone.body.conv1.parameters())
