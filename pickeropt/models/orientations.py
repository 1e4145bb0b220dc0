"""The eight ways a square grid can be turned and mirrored, and averages over them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

EIGHT = tuple((turns, mirror) for mirror in (False, True) for turns in range(4))
"""(quarter turns, mirrored), the plain one first."""


def turn(x: Tensor, orientation: tuple[int, bool]) -> Tensor:
    """Turn the last two axes by quarter turns, then mirror them."""
    turned = torch.rot90(x, orientation[0], (-2, -1))
    return turned.flip(-1) if orientation[1] else turned


def turn_back(x: Tensor, orientation: tuple[int, bool]) -> Tensor:
    """The inverse of `turn`."""
    plain = x.flip(-1) if orientation[1] else x
    return torch.rot90(plain, -orientation[0], (-2, -1))


def averaged_maps(
    network: Callable[[Tensor], list[Tensor]], view: Tensor, orientations: Sequence[tuple[int, bool]]
) -> list[Tensor]:
    """Feature maps of one view averaged over orientations, each turned back first.

    view : (1, 1, h, w), h and w of the form 16 k + 1 so that cells fall on cells
    returns : one (c, h/s, w/s) float32 a stage
    """
    total: list[Tensor] = []
    for orientation in orientations:
        maps = network(turn(view, orientation).contiguous())
        back = [turn_back(m[0], orientation).to(torch.float32) for m in maps]
        total = [a + b for a, b in zip(total, back, strict=True)] if total else back
    return [m / len(orientations) for m in total]
