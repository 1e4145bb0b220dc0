"""The eight orientations of a grid."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pickeropt.models.backbone import Backbone
from pickeropt.models.features import EIGHT, averaged_maps, turn, turn_back

X = torch.arange(2 * 3 * 5).reshape(2, 3, 5)
TURNS = [(turns, False) for turns in range(4)]


def test_there_are_eight_and_the_plain_one_is_first() -> None:
    square = torch.arange(9).reshape(3, 3)
    assert len({tuple(turn(square, o).flatten().tolist()) for o in EIGHT}) == 8
    assert torch.equal(turn(X, EIGHT[0]), X)
    assert EIGHT[0] == (0, False)


@pytest.mark.parametrize("orientation", EIGHT)
def test_turning_back_undoes_turning(orientation: tuple[int, bool]) -> None:
    turned = turn(X, orientation)
    assert torch.equal(turn_back(turned, orientation), X)
    assert turned.shape == ((2, 5, 3) if orientation[0] % 2 else (2, 3, 5))


@pytest.mark.parametrize("orientation", EIGHT)
def test_turning_as_numpy_does(orientation: tuple[int, bool]) -> None:
    expected = np.rot90(X.numpy(), orientation[0], (1, 2))
    expected = expected[:, :, ::-1] if orientation[1] else expected
    np.testing.assert_array_equal(turn(X, orientation).numpy(), expected)


def test_the_average_of_an_equivariant_function_is_the_function() -> None:
    view = torch.randn(1, 1, 17, 33, generator=torch.Generator().manual_seed(0))

    def network(x: Tensor) -> list[Tensor]:
        return [torch.cat([x**2, x.abs()], 1), torch.nn.functional.avg_pool2d(x, 3, 1, 1)]

    plain = network(view)
    for out, expected in zip(averaged_maps(network, view, EIGHT), plain, strict=True):
        torch.testing.assert_close(out, expected[0])


def test_the_average_of_a_one_sided_function_by_hand() -> None:
    """A shift by one to the right, in four turns: the mean of the four neighbours."""
    view = torch.zeros(1, 1, 17, 17)
    view[0, 0, 8, 5] = 1.0
    out = averaged_maps(lambda x: [x.roll(1, -1).to(torch.bfloat16)], view, TURNS)[0]
    expected = torch.zeros(1, 17, 17)
    for y, x in ((7, 5), (9, 5), (8, 4), (8, 6)):
        expected[0, y, x] = 0.25
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("stage", ["layer2", "layer3"])
def test_cells_fall_on_cells(stage: str) -> None:
    """A blob on a cell is seen strongest in that cell, in each orientation."""
    torch.manual_seed(0)
    backbone = Backbone("resnet18", (stage,)).eval()
    stride = backbone.strides[0]
    row, column = 5 * 16 // stride, 9 * 16 // stride
    y, x = torch.arange(161.0)[:, None] - row * stride, torch.arange(241.0) - column * stride
    view = 5 * torch.exp(-(y**2 + x**2) / (2 * stride**2))[None, None]
    with torch.inference_mode():
        empty = backbone(torch.zeros_like(view))[0]
        for orientation in EIGHT:
            seen = backbone(turn(view, orientation).contiguous())[0]
            back = turn_back((seen - turn(empty, orientation))[0], orientation)
            strength = back.square().sum(0)
            assert strength.shape == (160 // stride + 1, 240 // stride + 1)
            total = strength.sum()
            found = (
                float((strength.sum(1) * torch.arange(strength.shape[0])).sum() / total),
                float((strength.sum(0) * torch.arange(strength.shape[1])).sum() / total),
            )
            peak = divmod(int(strength.argmax()), strength.shape[1])
            assert abs(peak[0] - row) + abs(peak[1] - column) <= 1, (orientation, peak)
            assert abs(found[0] - row) < 0.5, (orientation, found)
            assert abs(found[1] - column) < 0.5, (orientation, found)
