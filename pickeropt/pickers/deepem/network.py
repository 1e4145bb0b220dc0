"""The network: C1, S2, C3, S4, C5, S6 and the output, with initial weights that learn.

Zhu, Ouyang & Mao, BMC Bioinformatics 18, 348 (2017), "Design of the DeepEM algorithm". The paper's initial
weights between 0 and 1 do not learn: with all weights positive every sigmoid of C3 and C5 sums hundreds
of positive numbers, is 1 to the last bit, and has no gradient. `initialise` says what stands in their place.
"""

import numpy as np
import torch
from torch import Tensor, nn

from pickeropt.pickers.deepem.geometry import Geometry

MAPS = (6, 12, 12)
"""Feature maps of C1, C3 and C5 (Table 1)."""
LEAST_SPREAD = 1e-6
"""A map that varies less over the windows is left unscaled."""


class DeepEMNetwork(nn.Module):
    """Eight layers: input, three convolutions and three mean pools in turn, and a fully connected output.

    Sigmoid after each convolution and at the output; none after a pool.
    """

    def __init__(self, geometry: Geometry, maps: tuple[int, int, int] = MAPS):
        super().__init__()
        self.geometry, self.maps = geometry, maps
        inputs = (1, *maps[:2])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, kernel)
            for before, after, kernel in zip(inputs, maps, geometry.kernels, strict=True)
        )
        self.pools = nn.ModuleList(nn.AvgPool2d(pool) for pool in geometry.pools)
        *_, last = geometry.sides()
        self.output = nn.Linear(maps[2] * last**2, 1)

    def forward(self, windows: Tensor) -> Tensor:
        """Scores between 0 and 1, (n,), of windows (n, 1, box, box)."""
        return self.logits(windows).sigmoid()

    def logits(self, windows: Tensor) -> Tensor:
        """The output before its sigmoid, (n,)."""
        x = windows
        for convolution, pool in zip(self.convolutions, self.pools, strict=True):
            x = pool(convolution(x).sigmoid())
        result: Tensor = self.output(x.flatten(1))[:, 0]
        return result

    def turned_scores(self, windows: Tensor) -> Tensor:
        """The mean score over four turns by 90°, (n,): as recognition has it."""
        turns = [self(torch.rot90(windows, quarter, (2, 3))) for quarter in range(4)]
        return torch.stack(turns).mean(dim=0)


@torch.no_grad()
def initialise(network: DeepEMNetwork, windows: Tensor, seed: int, spread: float) -> None:
    """Draw the weights, in place, so that every sigmoid works in its bent middle.

    windows : (n, 1, box, box), some of those it will learn from
    spread : standard deviation of a map before its sigmoid, over these windows

    Weights are normal deviates; layer by layer each map's weights are then scaled, and its bias set, so
    that over these windows its values before the sigmoid have mean 0 and the standard deviation `spread`
    (after Mishkin & Matas, ICLR 2016). The output starts at zero weights: at a score of 1/2 for all.
    """
    generator = torch.Generator().manual_seed(int(np.random.default_rng([seed, 1]).integers(2**62)))
    x = windows
    for convolution, pool in zip(network.convolutions, network.pools, strict=True):
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        convolution.weight.copy_(torch.randn(convolution.weight.shape, generator=generator))
        convolution.bias.zero_()
        before = convolution(x)
        mean, deviation = before.mean((0, 2, 3)), before.std((0, 2, 3))
        scale = torch.where(deviation > LEAST_SPREAD, spread / deviation, torch.ones_like(deviation))
        convolution.weight.mul_(scale[:, None, None, None])
        convolution.bias.copy_(-mean * scale)
        x = pool(convolution(x).sigmoid())
    nn.init.zeros_(network.output.weight)
    nn.init.zeros_(network.output.bias)
