"""A picker that needs no training, and small micrographs with bright squares for particles."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pickeropt.io.micrographs import write_mrc
from pickeropt.io.relion_star import write_coordinate_star
from pickeropt.pickers.picker_records import Detections, Material, PickerTrainingJob, TrainedPicker
from pickeropt.records import Micrograph

PIXEL_SIZE = 2.0
DIAMETER = 24.0
"""Å: 12 px."""


@dataclass(frozen=True)
class FakeSettings:
    """Every kind of value that a setting can have."""

    epochs: int = 3
    rate: float = 0.5
    turns: bool = True
    preset: str = "none"
    weights: tuple[float, ...] = (1.0, 2.0)
    limit: float | None = None


class FakePicker:
    """Finds the pixels of more than 5, scored by their value over 10."""

    kind = "deepem"

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def detect(self, micrograph: Micrograph, pixel_size: float, diameter_angstrom: float) -> Detections:
        y, x = np.nonzero(micrograph.pixels > 5)
        values = micrograph.pixels[y, x].astype(np.float64) / 10
        order = np.argsort(-values, kind="stable")
        return Detections(np.column_stack([x, y])[order].astype(np.float64), values[order])


def fake_load(
    settings: Mapping[str, object], state: Mapping[str, Tensor], threshold: float, device: torch.device
) -> FakePicker:
    assert float(state["weight"]) == 4.0
    return FakePicker(threshold)


def fake_train(
    material: Material, settings: FakeSettings, job: PickerTrainingJob, initial: Mapping[str, Tensor] | None
) -> TrainedPicker:
    job.on_progress("training", 1, 1)
    count = sum(len(one.coordinates) for one in material.training)
    return TrainedPicker(asdict(settings), {"weight": torch.tensor(4.0)}, 0.7, {"particles_seen": float(count)})


def make_micrograph(path: Path, peaks: Sequence[tuple[int, int, float]], shape: tuple[int, int] = (64, 80)) -> Path:
    """Noise below 1 with single pixels at x, y."""
    pixels = np.random.default_rng(len(peaks)).random(shape).astype(np.float32)
    for x, y, value in peaks:
        pixels[y, x] = value
    write_mrc(path, pixels, PIXEL_SIZE)
    return path


def make_coordinates(path: Path, xy: Sequence[tuple[float, float]]) -> Path:
    """A STAR file of one micrograph."""
    table: NDArray[np.float64] = np.array(xy, dtype=np.float64).reshape(-1, 2)
    write_coordinate_star(path, table, np.ones(len(table)))
    return path
