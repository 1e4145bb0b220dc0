"""EMPIAR-10017 as the benchmarks need it: micrographs, labels by class, hand labels, truth, picks.

The folder ($PICKEROPT_DATA or --data) holds empiar10017/{micrographs/*.jpg, labels.star,
hand_positive/*.box, hand_negative/*.box, truth/*.csv, picks/PICKER/*.box}. The JPEG rows run
downwards, the coordinates upwards as in the MRC files.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pickeropt.io.picks import read_picks

PIXEL_SIZE = 1.77
DIAMETER = 191.0
DIAMETER_PX = DIAMETER / PIXEL_SIZE
RADIUS_PX = 54.0
CLASSES = ("particle", "background", "contaminant", "carbon")
PADDING_PX = 100.0
"""Streaks along each side that are not sample; no truth lies in them."""


@dataclass(frozen=True)
class Labelled:
    """What is known of one micrograph.

    points, labels : (n, 2) x, y px and (n,) index into CLASSES
    hand, is_particle : (m, 2) hand-labelled points, and which of them are particles
    truth : (t, 2) curated particles
    """

    name: str
    points: NDArray[np.float64]
    labels: NDArray[np.int64]
    hand: NDArray[np.float64]
    is_particle: NDArray[np.bool_]
    truth: NDArray[np.float64]


def pixels_of(data: Path, name: str) -> NDArray[np.float32]:
    """(h, w) float32, rows in the order of the coordinates."""
    with Image.open(data / "empiar10017" / "micrographs" / f"{name}.jpg") as image:
        return np.ascontiguousarray(np.flipud(np.asarray(image.convert("L"))), dtype=np.float32)


def read_all(data: Path) -> list[Labelled]:
    """All micrographs, by name."""
    folder = data / "empiar10017"
    shots = read_picks(folder / "labels.star").picks
    assert shots.class_names is not None
    classes = np.array([CLASSES.index(name) for name in shots.class_names])
    found = []
    for path in sorted((folder / "micrographs").glob("*.jpg")):
        here = [i for i, n in enumerate(shots.micrograph_names) if Path(n).stem == path.stem]
        rows = np.isin(shots.micrograph_index, here)
        positive = read_picks(folder / "hand_positive" / f"{path.stem}.box").picks.coordinates
        negative = read_picks(folder / "hand_negative" / f"{path.stem}.box").picks.coordinates
        found.append(
            Labelled(
                path.stem,
                shots.coordinates[rows],
                classes[rows],
                np.concatenate([positive, negative]),
                np.arange(len(positive) + len(negative)) < len(positive),
                np.loadtxt(folder / "truth" / f"{path.stem}.csv", delimiter=",", skiprows=1, ndmin=2),
            )
        )
    return found


def picks_of(folder: Path, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Picks in FOLDER/NAME.box or FOLDER/NAME_autopick.star: (n, 2), and the picker's score (n,)."""
    for path in (folder / f"{name}.box", folder / f"{name}_autopick.star"):
        if path.is_file():
            picks = read_picks(path).picks
            return picks.coordinates, picks.figure_of_merit
    return None
