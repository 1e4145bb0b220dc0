"""What the YOLO picker is trained and picks with."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from pickeropt.errors import CheckpointError, PickeroptError

STRIDE = 32
"""Pixels a grid cell: five max poolings."""


@dataclass(frozen=True)
class YoloSettings:
    """The paper's values where it has one (Wagner et al. 2019, Methods, Table 2), else ours, marked so.

    width : filters of every layer but the detection's, 1 for those of Table 2; ours
    input_size : side of the image that the network sees, px, a multiple of 32
    patches : overlapping patches along the micrograph's longer side; 0 takes the fewest for which two
        particles that touch cannot share a grid cell; ours
    overlap : of patches, in particle diameters; ours
    low_pass : where a Gaussian filter falls to exp(-1/2), cycles/px of the micrograph, 0 for none; the
        paper has "preprocessing procedures" only
    box_diameters : side of the training boxes in particle diameters; ours
    epochs : how often each patch is seen; batch_size : patches; learning_rate : Adam's; ours
    dropout : share of the last feature map's entries set to 0 in training
    coordinate_weight, object_weight, no_object_weight : of the loss; ours
    augmented : chance of each of the six augmentations; ours
    merged : two boxes of greater IoU are one particle; ours
    particle_px : diameter of the particle in the network's image, px; 0 lets training fix it by the patches
    anchor : side of the reference box in grid cells; 0 until training has fixed it
    """

    width: float = 1.0
    input_size: int = 1024
    patches: int = 0
    overlap: float = 1.0
    low_pass: float = 0.1
    box_diameters: float = 1.0
    epochs: int = 100
    batch_size: int = 4
    learning_rate: float = 1e-3
    dropout: float = 0.2
    coordinate_weight: float = 5.0
    object_weight: float = 5.0
    no_object_weight: float = 1.0
    augmented: float = 0.5
    merged: float = 0.4
    particle_px: float = 0.0
    anchor: float = 0.0

    def __post_init__(self) -> None:
        """Raise PickeroptError for a setting that means nothing."""
        least = {"width": 0.0, "box_diameters": 0.0, "learning_rate": 0.0, "input_size": 0, "epochs": 0}
        for name, bound in {**least, "batch_size": 0}.items():
            _check(name, getattr(self, name), getattr(self, name) > bound, "a number above 0")
        _check("input_size", self.input_size, self.input_size % STRIDE == 0, "a multiple of 32, such as 1024")
        _check("patches", self.patches, self.patches >= 0, "1, 2 or 3, or 0 to choose by the particle's size")
        for name in ("overlap", "low_pass", "coordinate_weight", "object_weight", "no_object_weight"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "a number of 0 or more")
        for name in ("dropout", "augmented", "merged"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "a number between 0 and 1")

    def fixed(self, particle_px: float, anchor: float) -> "YoloSettings":
        """The same with what training fixes."""
        return replace(self, particle_px=particle_px, anchor=anchor)


def read_settings(stored: Mapping[str, Any]) -> YoloSettings:
    """The settings of a trained picker. Raises CheckpointError where they are not such."""
    known = {field.name for field in fields(YoloSettings)}
    if set(stored) != known:
        odd = ", ".join(sorted(set(stored) ^ known))
        raise CheckpointError(
            f"settings of a yolo picker with {odd} missing or unknown; train the picker anew"
        )
    settings = YoloSettings(**stored)
    if not (settings.particle_px > 0 and settings.anchor > 0):
        raise CheckpointError("a yolo picker without the size of its particle; train the picker anew")
    return settings


def _check(name: str, value: float, sound: bool, remedy: str) -> None:
    if not sound:
        raise PickeroptError(f"{name} is {value:g}; give {remedy}")
