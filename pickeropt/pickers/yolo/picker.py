"""A trained YOLO detector as a picker."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pickeropt.models.fitting import inference_dtype
from pickeropt.pickers.records import Detections
from pickeropt.pickers.yolo.detect import detect
from pickeropt.pickers.yolo.network import YoloNetwork, inference_network, load_weights
from pickeropt.pickers.yolo.settings import YoloSettings, read_settings
from pickeropt.records import Micrograph


class Yolo:
    """Boxes with a confidence; see `pickeropt.pickers.records.Picker`."""

    kind = "yolo"

    def __init__(self, network: YoloNetwork, settings: YoloSettings, threshold: float):
        self.network, self.settings, self.threshold = network, settings, threshold

    def detect(self, micrograph: Micrograph, pixel_size: float, diameter_angstrom: float) -> Detections:
        """All boxes of confidence 0.01 or more, with their sizes.

        Raises GeometryError where the particle does not fit the micrograph, or where nearly all pixels
        have one value.
        """
        return detect(self.network, micrograph.pixels, diameter_angstrom / pixel_size, self.settings)


def load(
    settings: Mapping[str, object], state: Mapping[str, Tensor], threshold: float, device: torch.device
) -> Yolo:
    """A trained picker, in bfloat16 where the device is made for it. Raises CheckpointError."""
    read = read_settings(settings)
    network = YoloNetwork(read.width, read.dropout)
    load_weights(network, state)
    return Yolo(inference_network(network, device, inference_dtype(device)), read, threshold)
