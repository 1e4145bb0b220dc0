"""A ResNet's stem in bands of rows, for inference on CPUs.

The stem's map is the largest of the network (64 channels at stride 2: 180 MB for a 2400 px view in bfloat16),
and its convolution, ReLU and pooling are cheap: their time is that of moving the map to memory and
back. A band stays in the processor's cache, and only the pooled quarter leaves it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

BAND_ROWS = 32
"""Pooled rows at a time."""


class BandedStem(nn.Module):
    """Convolution at stride 2, ReLU and 3 x 3 max pooling at stride 2: the same numbers in half the time.

    forward : (n, 1, h, w) -> (n, c, h/4, w/4) as the plain layers round it, channels last; without gradients
    """

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        kernel, padding = self.convolution.kernel_size[0], _padding(self.convolution)
        height, width = ((side + 2 * padding - kernel) // 2 + 1 for side in x.shape[-2:])
        padded = functional.pad(x, (padding, padding, padding, padding))
        shape = (len(x), self.convolution.out_channels, (height - 1) // 2 + 1, (width - 1) // 2 + 1)
        pooled = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        for top in range(0, shape[2], BAND_ROWS):
            band = pooled[:, :, top : top + BAND_ROWS]
            first, last = max(0, 2 * top - 1), min(height, 2 * (top + band.shape[2]))
            rows = functional.conv2d(
                padded[:, :, 2 * first : 2 * (last - 1) + kernel],
                self.convolution.weight,
                self.convolution.bias,
                stride=2,
            )
            _pool(_pool(rows, 2, 2 * top - first, band.shape[2]), 3, 0, shape[3], out=band)
        return pooled.relu_()


def _pool(x: Tensor, axis: int, first: int, count: int, out: Tensor | None = None) -> Tensor:
    """The largest of three neighbours along an axis, around index first, first + 2, ...; fewer at the edges.

    `first` is 0 where there is nothing above the first, else 1.
    """
    centres = _every_other(x, axis, first)
    after = _every_other(x, axis, first + 1)
    if out is None:
        out = torch.empty_like(centres, memory_format=torch.channels_last)
    both = after.shape[axis]
    torch.maximum(centres.narrow(axis, 0, both), after, out=out.narrow(axis, 0, both))
    if both < count:
        out.narrow(axis, both, 1).copy_(centres.narrow(axis, both, 1))
    before = _every_other(x, axis, 0) if first else after
    start = 0 if first else 1
    later = out.narrow(axis, start, count - start)
    torch.maximum(later, before.narrow(axis, 0, count - start), out=later)
    return out


def _every_other(x: Tensor, axis: int, first: int) -> Tensor:
    return x[:, :, first::2] if axis == 2 else x[..., first::2]


def _padding(convolution: nn.Conv2d) -> int:
    padding = convolution.padding[0]
    assert isinstance(padding, int)
    return padding


def band_stem(body: nn.Module) -> None:
    """Let a banded stem stand for `conv1`, `act1` and `maxpool` of a ResNet with its batch norm folded in."""
    convolution = body.get_submodule("conv1")
    assert isinstance(convolution, nn.Conv2d)
    body.set_submodule("conv1", BandedStem(convolution))
    for name in ("act1", "maxpool"):
        body.set_submodule(name, nn.Identity())
