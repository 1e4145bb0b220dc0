"""Micrographs of dark discs in noise, 64 px to a window of 1.4 diameters."""

from pathlib import Path

import numpy as np
import torch

from pickeropt.io.micrographs import write_mrc
from pickeropt.pickers.deeppicker_network import DeepPickerSettings
from pickeropt.pickers.picker_records import PickedMicrograph, PickerTrainingJob

DIAMETER = 64 / 1.4
SETTINGS = DeepPickerSettings(epochs=4, patience=4, batch_size=16)


def micrograph(folder, seed, side=400, per_side=4, contrast=0.7, zoom=1.0):
    """Discs on a jittered grid; zoom enlarges all of it."""
    rng = np.random.default_rng(seed)
    grid = (np.arange(per_side) + 0.5) * side / per_side
    xy = np.stack(np.meshgrid(grid, grid), 2).reshape(-1, 2) + rng.uniform(-12, 12, (per_side**2, 2))
    y, x = np.mgrid[:side, :side]
    pixels = rng.normal(size=(side, side)) + 100
    for cx, cy in xy:
        pixels -= contrast * (np.hypot(x - cx, y - cy) < DIAMETER / 2)
    if zoom != 1.0:
        pixels = np.kron(pixels, np.ones((int(zoom), int(zoom))))
        xy = (xy + 0.5) * zoom - 0.5
    path = Path(folder) / f"m{seed}_{zoom:g}.mrc"
    write_mrc(path, pixels.astype(np.float32), 2.0)
    return PickedMicrograph(path, xy, 2.0, 2.0 * DIAMETER * zoom)


def job(folder, seed=0, on_progress=lambda what, done, total: None):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return PickerTrainingJob(seed, torch.device("cpu"), folder, on_progress)
