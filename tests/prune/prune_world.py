"""Small micrographs, files of picks, and a scorer that is arithmetic: for the tests of prune."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.io.micrographs import write_mrc
from pickeropt.prune.prune_config import ScorerConfig
from pickeropt.records import FloatArray, Micrograph

PIXEL_SIZE = 2.0
SHAPE = (60, 80)
CLASSES = ("particle", "ice", "carbon")
SUMMARY = '{"picks": 1, "micrographs": 1, "threshold": 0.5, "seconds": 1, "out": "out"}'
"""What a former run has at least."""


def local_means(pixels: FloatArray, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the 3 x 3 px around each pick, edges repeated."""
    padded = np.pad(pixels.astype(np.float64), 1, mode="edge")
    height, width = pixels.shape
    means = []
    for x, y in coordinates:
        column, row = min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1)
        means.append(padded[row : row + 3, column : column + 3].mean())
    return np.array(means)


@dataclass
class FakeScorer:
    """P(particle) is a logistic of the local mean, the rest is shared by the parity of int(x)."""

    class_names: tuple[str, ...] = CLASSES
    digest: str = "d" * 64
    diameter_angstrom: float = 20.0
    notes: tuple[str, ...] = ()
    taught_pixel_size: float | None = None
    config: ScorerConfig = field(default_factory=ScorerConfig)
    log: Path | None = None
    fault: Callable[[Micrograph, FloatArray], FloatArray] | None = None
    seconds: float = 0.0
    calls: list[str] = field(default_factory=list)

    def score(self, micrograph: Micrograph, coordinates: NDArray[np.float64], pixel_size: float) -> FloatArray:
        self.calls.append(micrograph.path.name)
        particle = 1 / (1 + np.exp(-4 * local_means(micrograph.pixels, coordinates) / pixel_size))
        other = np.where(coordinates[:, 0].astype(int) % 2, 0.9, 0.1) * (1 - particle)
        found = np.column_stack([particle, other, 1 - particle - other]).astype(np.float32)
        found = found[:, : len(self.class_names)] / found[:, : len(self.class_names)].sum(1, keepdims=True)
        if self.fault:
            found = self.fault(micrograph, found)
        time.sleep(self.seconds)
        if self.log:
            with self.log.open("a") as file:
                file.write(micrograph.path.name + "\n")
        return found


def make_micrographs(folder: Path, names: Sequence[str], pixel_size: float = PIXEL_SIZE) -> list[Path]:
    for name in names:
        seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
        pixels = np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)
        write_mrc(folder / name, pixels, pixel_size)
    return [folder / name for name in names]


def coordinates_of(name: str, count: int) -> NDArray[np.float64]:
    seed = int(hashlib.sha256(name.encode()).hexdigest()[8:16], 16)
    height, width = SHAPE
    xy = np.random.default_rng(seed).uniform([-3, -3], [width + 3, height + 3], size=(count, 2))
    return np.round(xy, 3)


def coordinate_star(path: Path, xy: NDArray[np.float64], extra: str = "") -> Path:
    """The picks of one micrograph; a row is `x y merit`, merits 0.0, 0.1, ..."""
    lines = ["", "# version 30001", "", "data_", "", "loop_ ", "_rlnCoordinateX #1", "_rlnCoordinateY #2"]
    lines += ["_rlnAutopickFigureOfMerit #3"]
    lines += [f"{x:12.6f} {y:12.6f} {i / 10:.1f}" for i, (x, y) in enumerate(xy)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, extra]) + "\n")
    return path


def particles_star(path: Path, rows: Sequence[tuple[str, float, float]], pixel_size: float | None = None) -> Path:
    """Rows of several micrographs, RELION 3.1, in the order given."""
    lines = ["# version 30001", ""]
    if pixel_size is not None:
        lines += ["data_optics", "", "loop_", "_rlnOpticsGroup #1", "_rlnMicrographPixelSize #2"]
        lines += [f"1 {pixel_size}", "", ""]
    lines += ["data_particles", "", "loop_", "_rlnMicrographName #1", "_rlnCoordinateX #2"]
    lines += ["_rlnCoordinateY #3", "_rlnOpticsGroup #4"]
    lines += [f"{name} {x} {y} 1" for name, x, y in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def make_project(root: Path, count: int = 4, picks: int = 12) -> Path:
    """`root/mics/mK.mrc` and `root/picks/[sub/]mK_autopick.star`; returns the folder of picks."""
    names = [f"m{i}.mrc" for i in range(count)]
    make_micrographs(root / "mics", names)
    for i, name in enumerate(names):
        folder = root / "picks" / ("sub" if i % 2 else "")
        coordinate_star(folder / f"m{i}_autopick.star", coordinates_of(name, picks))
    return root / "picks"


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder by its path there; of summary.json what no clock changes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    found.pop("summary.json", None)
    return found


def data_rows(path: Path) -> list[str]:
    """The rows of a STAR or box file: lines that start with a number or a micrograph."""
    rows = []
    for line in path.read_text().splitlines():
        first = line.split()[0] if line.split() else "#"
        if first[0].isdigit() or first[0] == "-" or first.endswith(".mrc"):
            rows.append(line)
    return rows
