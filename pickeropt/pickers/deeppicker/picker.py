"""A trained DeepPicker at work: scoring, cleaning, filtering, sorting."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pickeropt.errors import CheckpointError
from pickeropt.pickers.deeppicker.network import DeepPickerNetwork
from pickeropt.pickers.deeppicker.scale import CALIBRATION, UNCALIBRATED, Calibration, score_of
from pickeropt.pickers.deeppicker.settings import DeepPickerSettings
from pickeropt.pickers.deeppicker.steps import cleaned, extreme_counts, peaks, usual
from pickeropt.pickers.deeppicker.windows import window_centres, window_view
from pickeropt.pickers.records import Detections
from pickeropt.records import Micrograph


@dataclass(frozen=True)
class DeepPicker:
    """A picker.

    network : in evaluation mode, on `device`
    scale : from the network's log odds to those of a score
    """

    settings: DeepPickerSettings
    network: DeepPickerNetwork
    threshold: float
    device: torch.device
    scale: Calibration = UNCALIBRATED
    kind: str = "deeppicker"

    def detect(self, micrograph: Micrograph, pixel_size: float, diameter_angstrom: float) -> Detections:
        """All local maxima of the score map that cleaning and filtering leave, down to a score of 0.

        pixel_size : Å/px of the micrograph
        Windows lie wholly on the micrograph: no particle within half a window of an edge is found.
        Raises GeometryError where the window does not fit the micrograph, or its noise cannot be measured.
        """
        own = self.settings
        view, frame = window_view(micrograph.pixels, diameter_angstrom / pixel_size, own.box_diameters)
        log_odds = self.score_map(view)
        rows, columns, best = peaks(cleaned(log_odds, own.large_domain), own.peak_window)
        if own.extreme:
            kept = usual(extreme_counts(view, own.extreme)[rows, columns], own.extreme)
            rows, columns, best = rows[kept], columns[kept], best[kept]
        return Detections(window_centres(frame, rows, columns), score_of(best, self.scale))

    def score_map(self, view: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Log odds of every window of a view (1, 1, h, w), 4 px apart: (rows, columns)."""
        with torch.inference_mode():
            return self.network.log_odds(view.to(self.device)).cpu().numpy()


def load(
    settings: Mapping[str, Any], state: Mapping[str, Tensor], threshold: float, device: torch.device
) -> DeepPicker:
    """A picker from what training returned. Raises CheckpointError for what another picker's left."""
    try:
        own = DeepPickerSettings(**settings)
    except TypeError as error:
        raise CheckpointError(f"not the settings of a DeepPicker ({error}); train it again") from None
    scale = state[CALIBRATION].tolist() if CALIBRATION in state else UNCALIBRATED
    return picker_of(own, filled(own.dropout, state), threshold, device, (scale[0], scale[1]))


def filled(dropout: float, state: Mapping[str, Tensor]) -> DeepPickerNetwork:
    """A network with given weights. Raises CheckpointError where they are not a DeepPicker's."""
    network = DeepPickerNetwork(dropout)
    try:
        network.load_state_dict({name: value for name, value in state.items() if name != CALIBRATION})
    except RuntimeError as error:
        what = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"not the weights of a DeepPicker ({what}); give one as --init") from None
    return network


def picker_of(
    settings: DeepPickerSettings,
    network: DeepPickerNetwork,
    threshold: float,
    device: torch.device,
    scale: Calibration = UNCALIBRATED,
) -> DeepPicker:
    """A picker with a copy of the network.

    In float32: on a CPU spread-out convolutions take twice as long in bfloat16.
    """
    ready = deepcopy(network).eval().requires_grad_(False).to(device)
    return DeepPicker(settings, ready, threshold, device, scale)
