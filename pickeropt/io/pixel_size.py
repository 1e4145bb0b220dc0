"""Which pixel size counts, where flag, optics block and MRC header may all name one."""

from collections.abc import Mapping

from pickeropt.errors import GeometryError
from pickeropt.io.micrographs import MicrographHeader

AGREE = 0.01
"""Pixel sizes that differ by no more than this share are the same."""


def choose_pixel_size(flag: float | None, header: MicrographHeader, optics: Mapping[str, float]) -> float:
    """Å/px of a micrograph: the flag, else what the coordinate files and the header agree on.

    optics : by file, as its optics block says
    Raises GeometryError where two of them differ by more than 1 %, and where there is none.
    """
    if flag is not None:
        return flag
    said = dict(optics)
    if header.pixel_size is not None:
        said["the header"] = header.pixel_size
    if not said:
        what = f"{header.path}: neither its header nor the coordinate files say the pixel size"
        raise GeometryError(f"{what}; give it with --pixel-size")
    low, high = min(said, key=lambda who: said[who]), max(said, key=lambda who: said[who])
    if said[high] > said[low] * (1 + AGREE):
        sizes = f"{said[low]:.6g} Å/px by {low}, {said[high]:.6g} Å/px by {high}"
        raise GeometryError(f"{header.path}: {sizes}; give the right one with --pixel-size")
    return next(iter(said.values()))
