"""The eight ways a square grid can be turned and mirrored, and averages over them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

EIGHT = ((0, False), (2, True), (1, False), (3, True), (2, False), (0, True), (3, False), (1, True))
"""(quarter turns, mirrored), the plain one first; the first two and the first four differ most."""


def turn(x: Tensor, orientation: tuple[int, bool]) -> Tensor:
    """Turn the last two axes by quarter turns (as torch.rot90), then mirror the last one."""
    turned = x.transpose(-2, -1) if orientation[0] % 2 else x
    axes = _flipped(orientation)
    return turned.flip(axes) if axes else turned


def turn_back(x: Tensor, orientation: tuple[int, bool]) -> Tensor:
    """The inverse of `turn`."""
    axes = _flipped(orientation)
    plain = x.flip(axes) if axes else x
    return plain.transpose(-2, -1) if orientation[0] % 2 else plain


def _flipped(orientation: tuple[int, bool]) -> list[int]:
    """Axes to flip, after the transposition of odd quarter turns; mirroring undoes or adds the last."""
    turns, mirror = orientation
    axes = {0: set[int](), 1: {-2}, 2: {-2, -1}, 3: {-1}}[turns]
    return sorted(axes ^ ({-1} if mirror else set()))


def averaged_maps(
    network: Callable[[Tensor], list[Tensor]], view: Tensor, orientations: Sequence[tuple[int, bool]]
) -> list[Tensor]:
    """Feature maps of one view averaged over orientations, each turned back first.

    view : (1, 1, h, w), h and w of the form 16 k + 1 so that cells fall on cells
    returns : one (c, h/s, w/s) a stage, in the memory layout of the network's maps; float32, or for one
        orientation as the network gives them
    """
    if len(orientations) == 1:
        return [turn_back(m[0], orientations[0]) for m in network(turn(view, orientations[0]).contiguous())]
    total: list[Tensor] = []
    for orientation in orientations:
        back = [turn_back(m[0], orientation) for m in network(turn(view, orientation).contiguous())]
        total = (
            [a.add_(b) for a, b in zip(total, back, strict=True)]
            if total
            else [m.to(torch.float32) for m in back]
        )
    return [m.div_(len(orientations)) for m in total]
