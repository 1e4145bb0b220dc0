"""What the making of a backbone can be told; its defaults stand here only."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PretrainConfig:
    """One pretraining on simulated micrographs.

    micrographs : simulated, each seen at two sizes
    view_px : side of a training view
    view_diameters : least and most px that a particle is across in a view
    diameters_angstrom, pixel_sizes : ranges of the simulated particles and micrographs, Å and Å/px
    points_per_class : labelled points a micrograph
    steps, batch, learning_rate, head_learning_rate : AdamW with a cosine decline
    class_weight : of the cross-entropy over source classes, beside the rotation term
    """

    micrographs: int = 300
    view_px: int = 577
    view_diameters: tuple[float, float] = (36.0, 70.0)
    diameters_angstrom: tuple[float, float] = (110.0, 260.0)
    pixel_sizes: tuple[float, float] = (2.5, 5.0)
    points_per_class: int = 30
    steps: int = 1400
    batch: int = 4
    learning_rate: float = 2e-4
    head_learning_rate: float = 1e-3
    class_weight: float = 0.05
    seed: int = 77
