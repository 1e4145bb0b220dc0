"""Picking: scan, local maxima, and the window of standard deviations."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pickeropt.errors import CheckpointError
from pickeropt.pickers.deepem.network import DeepEMNetwork
from pickeropt.pickers.deepem.scan import scan
from pickeropt.pickers.deepem.settings import DeepEMSettings, settings_from
from pickeropt.pickers.deepem.windows import Sight, see
from pickeropt.pickers.peaks import local_maxima
from pickeropt.pickers.records import Detections
from pickeropt.records import Micrograph

FLOOR = 0.01
"""Local maxima of less are not even candidates."""
STD_WINDOW = "std_window"
"""Name of the least and most standard deviation of a pick's pixels among the weights of a picker."""


@dataclass(frozen=True)
class DeepEM:
    """A trained DeepEM.

    threshold : least score of a pick
    least_std, most_std : of the pixels of a pick's window, in units of the micrograph's noise
    """

    network: DeepEMNetwork
    settings: DeepEMSettings
    threshold: float
    least_std: float = 0.0
    most_std: float = float("inf")

    kind: str = "deepem"

    def detect(self, micrograph: Micrograph, pixel_size: float, diameter_angstrom: float) -> Detections:
        """Local maxima of at least `FLOOR` whose windows lie inside the micrograph, best first.

        pixel_size : Å/px of the micrograph
        Raises GeometryError where particle or box do not fit the micrograph.
        """
        sight = see(micrograph.pixels, diameter_angstrom / pixel_size, self.settings)
        return self.detect_in(sight)

    def detect_in(self, sight: Sight) -> Detections:
        """The same of a micrograph that is resampled and normalised already."""
        step, box = self.settings.scan_step(), self.network.geometry.box
        device = self.network.output.weight.device
        scores = scan(self.network, sight.view.to(device), step).numpy()
        radius = self.settings.separation * self.settings.diameter() / step
        rows, columns, values = local_maxima(scores, radius, FLOOR)
        first = np.column_stack([rows, columns]) * step
        kept = self._plausible(sight.view, first)
        # the middle of a window, about which it is turned: between two pixels where the box is even
        centres = sight.on_micrograph(first[kept] + (box - 1) / 2)
        return Detections(centres, values[kept])

    def _plausible(self, view: Tensor, first: np.ndarray) -> np.ndarray:
        """Which windows, from the view pixels (n, 2) they start at, deviate as particles do, (n,) bool."""
        box = self.network.geometry.box
        deviations = [float(view[0, 0, y : y + box, x : x + box].std()) for y, x in first.tolist()]
        inside = [self.least_std <= deviation <= self.most_std for deviation in deviations]
        return np.array(inside, dtype=np.bool_)


def load(
    settings: Mapping[str, object], state: Mapping[str, Tensor], threshold: float, device: torch.device
) -> DeepEM:
    """A trained picker from what `training.train` returned.

    Raises CheckpointError where weights and settings do not belong together.
    """
    chosen = settings_from(settings)
    network = DeepEMNetwork(chosen.layers())
    fill(network, state)
    window = state.get(STD_WINDOW, torch.tensor([0.0, float("inf")])).tolist()
    network.to(device).eval().requires_grad_(False)
    return DeepEM(network, chosen, threshold, window[0], window[1])


def fill(network: DeepEMNetwork, state: Mapping[str, Tensor]) -> None:
    """Put weights into a network. Raises CheckpointError where they are of other layers."""
    weights = {name: value for name, value in state.items() if name != STD_WINDOW}
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    for name in sorted(shapes.keys() | weights.keys()):
        given = tuple(weights[name].shape) if name in weights else None
        if given != shapes.get(name):
            raise CheckpointError(
                f"DeepEM's {name} has the shape {given} where its layers ask for {shapes.get(name)}; "
                "give the box, kernels and pools that the picker was trained with"
            )
    network.load_state_dict(weights)
