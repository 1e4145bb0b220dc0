"""What a classifier looks at, apart from its weights; kept in the checkpoint."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from pickeropt.models.head import FeatureLayout


@dataclass(frozen=True)
class ModelSpec:
    """The geometry of a pick classifier.

    backbone, stages, channels : the ResNet, the residual stages whose maps are pooled, their channels
    view_diameters : size of the particle in each view of the micrograph, px
    windows : sides of the pooled square windows in particle diameters; empty for plain GAP over the box
    orientations : turns and mirrors averaged over, 1 to 8
    dense : whether the network passes over whole micrographs, so that the cost does not grow with
        the picks, or over one box a pick
    box_diameters : side of a box in particle diameters (boxes only)
    centred : whether each map is freed of its micrograph's typical feature
    normalise : "micrograph" or "box", whose grey level and noise scale the pixels
    loss_weights : one a branch
    parents : of the source classes of the pretraining whose opinion counts too (`opinion.py`); none: ()
    lean : what the opinion counts for beside the branches, 1 for as much as by itself
    carbon_lean : what its evidence for carbon counts for on top of that (`opinion.carbon_evidence`)
    carbon_most : that evidence goes no further; files that do not say it were fitted with 10
    carbon_alike : the part of that evidence which the class `contaminant` gets as well, 0 to 1
    carbon_share : the part of that evidence which P(particle) hears too, 0 to 1
    limit : standardised features go no further than this from 0 into the branches; None: as they are
    """

    backbone: str
    stages: tuple[str, ...]
    channels: tuple[int, ...]
    view_diameters: tuple[float, ...]
    windows: tuple[float, ...]
    orientations: int
    dense: bool
    box_diameters: float
    centred: bool
    normalise: str
    loss_weights: tuple[float, ...]
    class_names: tuple[str, ...]
    parents: tuple[str, ...] = ()
    lean: float = 0.0
    carbon_lean: float = 0.0
    carbon_most: float = 10.0
    carbon_alike: float = 0.0
    carbon_share: float = 1.0
    limit: float | None = None

    @property
    def layout(self) -> FeatureLayout:
        """Order of the feature vector: view, stage, window, channel."""
        return FeatureLayout(self.channels * len(self.view_diameters), max(1, len(self.windows)))

    @property
    def passes(self) -> str:
        """Forward passes in words, for tables."""
        count = len(self.view_diameters) * self.orientations
        plural = "es" if count > 1 else ""
        return f"{count} pass{plural} a micrograph" if self.dense else f"{count} pass{plural} a pick"

    def box_px(self, view_diameter: float) -> int:
        """Side of a box in view px, of the form 32 k + 1 so that its centre falls on a cell."""
        return round(self.box_diameters * view_diameter / 32) * 32 + 1


def spec_of(values: Mapping[str, Any]) -> ModelSpec:
    """A spec from the JSON of a file. Raises ValueError where fields are unknown or missing."""
    known = {field.name for field in fields(ModelSpec)}
    needed = {field.name for field in fields(ModelSpec) if field.default is MISSING}
    if not needed <= set(values) <= known:
        raise ValueError(f"fields {sorted((set(values) - known) | (needed - set(values)))} do not match")
    arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return ModelSpec(**arguments)
