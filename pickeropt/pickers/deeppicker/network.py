"""DeepPicker's network on one patch, and on every window of a picture at once.

Wang et al. (2016), section 4.2: four convolutions, each with ReLU and max pooling, two fully connected
layers, dropout in the first, softmax over two units; patches of 64 x 64. Kernels, maps and units are not
in the paper ("typically less than 10" for the kernels): here 5, 3, 3, 3, so that each pooling halves an
even map, as many maps more as a pooling leaves fewer rows, and 128 units.

    layer    C1       S2       C3       S4       C5       S6      C7      S8     F9   F10
    output   8@60x60  8@30x30  16@28x28 16@14x14 32@12x12 32@6x6  64@4x4  64@2x2 128  2

A window every 4 px meets the cells of S2 and S4 that its neighbours meet, so those layers are computed
once for the whole picture; behind them poolings keep every cell and what follows is spread out by as
much (dilation 1, 2, 4). The result is that of the single windows (Giusti et al. 2013).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCH = 64
"""Side of a patch, px (section 4.3)."""
STEP = 4
"""px of the resampled picture from one window to the next (section 4.5)."""
KERNELS = (5, 3, 3, 3)
MAPS = (8, 16, 32, 64)
HIDDEN = 128
LAST_MAP = 2
"""Cells a side that the fully connected layers look at."""
PARTICLE = 1
"""Output unit of the particles."""
BAND = 96
"""Rows of windows that are scored together, so that the maps between stay small."""


class DeepPickerNetwork(nn.Module):
    """Patch to two logits.

    dropout : chance that a unit of the first fully connected layer is left out in training
    """

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        before = (1, *MAPS[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, k) for i, o, k in zip(before, MAPS, KERNELS, strict=True)
        )
        self.hidden = nn.Linear(MAPS[-1] * LAST_MAP**2, HIDDEN)
        self.output = nn.Linear(HIDDEN, 2)
        self.dropout = dropout
        for layer in (*self.convolutions, self.hidden):
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, patches: Tensor) -> Tensor:
        """(n, 1, 64, 64) -> logits (n, 2), of background and of particle."""
        x = patches
        for convolution in self.convolutions:  # the greatest cell is the same before ReLU and after
            x = functional.relu(functional.max_pool2d(convolution(x), 2))
        x = functional.relu(self.hidden(x.flatten(1)))
        logits: Tensor = self.output(functional.dropout(x, self.dropout, self.training))
        return logits

    def log_odds(self, view: Tensor) -> Tensor:
        """How likely a particle is in each window: ln(p / (1 - p)).

        view : (1, 1, h, w), h and w at least 64
        returns : (rows, columns) float32; [i, j] is of the window whose first px is [4 i, 4 j]
        """
        rows = (view.shape[-2] - PATCH) // STEP + 1
        bands = []
        for top in range(0, rows, BAND):
            last = min(top + BAND, rows) - 1
            bands.append(self._band(view[:, :, top * STEP : last * STEP + PATCH]))
        return torch.cat(bands)

    def _band(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        dilation, stride = 1, 1
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv2d)
            x = functional.conv2d(x, convolution.weight, convolution.bias, dilation=dilation)
            shares = stride < STEP  # windows still step over whole cells
            x = functional.relu(functional.max_pool2d(x, 2, 2 if shares else 1, dilation=dilation))
            stride, dilation = (2 * stride, 1) if shares else (stride, 2 * dilation)
        kernel = self.hidden.weight.reshape(HIDDEN, MAPS[-1], LAST_MAP, LAST_MAP)
        x = functional.relu(functional.conv2d(x, kernel, self.hidden.bias, dilation=dilation))
        weight, bias = self.output.weight, self.output.bias
        toward = (weight[PARTICLE] - weight[1 - PARTICLE])[None, :, None, None]
        odds = functional.conv2d(x, toward, (bias[PARTICLE] - bias[1 - PARTICLE])[None])
        return odds[0, 0]
