"""The banded stem against the plain layers it stands for."""

import pytest
import torch
from torch import nn

from pickeropt.models.backbone import BAND_ROWS, Backbone, BandedStem, fuse_batch_norm, inference_copy

WIDTHS = [(torch.float32, 1), *((dtype, w) for dtype in (torch.float32, torch.bfloat16) for w in (4, 30, 33))]
"""In bfloat16 torch's own convolution reads beyond an image of one or two columns (NaN, now and then)."""


@pytest.mark.parametrize("height", [1, 2, 7, 33, 4 * BAND_ROWS, 4 * BAND_ROWS + 1, 8 * BAND_ROWS + 5])
@pytest.mark.parametrize(("dtype", "width"), WIDTHS)
def test_a_banded_stem_is_the_plain_stem(height: int, width: int, dtype: torch.dtype) -> None:
    torch.manual_seed(height)
    convolution = nn.Conv2d(1, 8, 7, 2, 3).to(dtype)
    plain = nn.Sequential(convolution, nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    x = torch.randn(2, 1, height, width).to(dtype)
    with torch.inference_mode():
        torch.testing.assert_close(BandedStem(convolution)(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_an_inference_copy_says_what_its_backbone_says(name: str) -> None:
    torch.manual_seed(0)
    backbone = Backbone(name, ("layer1", "layer2")).eval()
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.bias)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    copy = inference_copy(backbone, torch.device("cpu"), torch.float32)
    assert any(isinstance(layer, BandedStem) for layer in copy.modules())
    x = torch.randn(1, 1, 289, 161)
    with torch.inference_mode():
        for ours, theirs in zip(copy(x), backbone(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_folding_leaves_a_plain_stem_to_other_devices() -> None:
    backbone = Backbone("resnet18", ("layer1",)).eval()
    fuse_batch_norm(backbone)
    assert not any(isinstance(layer, BandedStem) for layer in backbone.modules())
