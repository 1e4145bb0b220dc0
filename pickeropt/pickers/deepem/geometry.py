"""The sizes of DeepEM's layers: the four that were published, and a rule for any box.

Zhu, Ouyang & Mao, BMC Bioinformatics 18, 348 (2017), Table 1 and "Training of the DeepEM network".
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pickeropt.errors import GeometryError

LEAST_OUTPUT, MOST_OUTPUT = 0.7, 0.9
"""What a convolution leaves of the side of its input, in general (the paper)."""
SHARES = (98 / 112, 40 / 49, 14 / 20)
"""What C1, C3 and C5 leave in the inflammasome's network, the one with pools of 2 only."""
LEAST_BOX = 40
"""px; below it no even output lies within `LEAST_OUTPUT` and `MOST_OUTPUT` any more."""


@dataclass(frozen=True)
class Geometry:
    """Sides of the input, of the three kernels C1, C3, C5 and of the three pools S2, S4, S6, px.

    Raises GeometryError for kernels that do not fit and pools that leave a rest.
    """

    box: int
    kernels: tuple[int, int, int]
    pools: tuple[int, int, int]

    def __post_init__(self) -> None:
        side = self.box
        for number, (kernel, pool) in enumerate(zip(self.kernels, self.pools, strict=True)):
            output = side - kernel + 1
            if kernel < 1 or pool < 1 or output < 1:
                raise GeometryError(
                    f"kernel {kernel} px and pool {pool} px of layer C{2 * number + 1} do not fit its input "
                    f"of {side} px; give smaller ones, or none and take those of the rule"
                )
            if output % pool:
                raise GeometryError(
                    f"layer C{2 * number + 1} gives {output} px, which a pool of {pool} px does not divide; "
                    f"change its kernel of {kernel} px by {output % pool}"
                )
            side = output // pool

    def sides(self) -> Iterator[int]:
        """Sides of C1, S2, C3, S4, C5, S6, px, as in the columns of Table 1."""
        side = self.box
        for kernel, pool in zip(self.kernels, self.pools, strict=True):
            yield side - kernel + 1
            side = (side - kernel + 1) // pool
            yield side


PUBLISHED = {
    "klh": Geometry(272, (51, 21, 10), (3, 2, 2)),
    "19s": Geometry(160, (20, 10, 4), (3, 2, 2)),
    "26s": Geometry(150, (31, 15, 10), (2, 2, 2)),
    "inflammasome": Geometry(112, (15, 10, 7), (2, 2, 2)),
}
"""Table 1 of the paper, by data set."""


def derived(box: int) -> Geometry:
    """The geometry of any box: pools of 2, and outputs in the proportions of the inflammasome's.

    Each output is the even number nearest to its share of `SHARES` within 70 to 90 % of its input.
    Raises GeometryError for a box below `LEAST_BOX`.
    """
    if box < LEAST_BOX:
        raise GeometryError(f"a box of {box} px is too small for six layers; give {LEAST_BOX} px or more")
    side, kernels = box, []
    for share in SHARES:
        fitting = [n for n in range(2, side, 2) if LEAST_OUTPUT * side <= n <= MOST_OUTPUT * side]
        output = min(fitting, key=lambda n: abs(n - share * side))
        kernels.append(side - output + 1)
        side = output // 2
    return Geometry(box, (kernels[0], kernels[1], kernels[2]), (2, 2, 2))
