"""A small RELION project without RELION, and a scorer that is arithmetic."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pickeropt.io.micrographs import write_mrc
from pickeropt.prune.prune_config import ScorerConfig

PIXEL_SIZE = 2.0
SHAPE = (60, 80)
NAMES = ("MotionCorr/job002/Movies/a.mrc", "MotionCorr/job002/Movies/b.mrc", "raw/c.mrc")
"""Two of a job, one imported as it is."""

OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
opticsGroup1 1 2.000000

"""


@dataclass
class XScorer:
    """P(particle) is x / 80."""

    class_names: tuple[str, ...] = ("particle", "ice")
    digest: str = "d" * 64
    diameter_angstrom: float = 20.0
    notes: tuple[str, ...] = ()
    taught_pixel_size: float | None = None
    config: ScorerConfig = field(default_factory=ScorerConfig)
    calls: list[str] = field(default_factory=list)

    def score(self, micrograph, coordinates, pixel_size):
        self.calls.append(micrograph.path.name)
        particle = coordinates[:, 0] / SHAPE[1]
        return np.column_stack([particle, 1 - particle]).astype(np.float32)


def star_31(names=NAMES, size=PIXEL_SIZE):
    rows = "".join(f"{name} 1\n" for name in names)
    table = "# version 30001\n\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n"
    return OPTICS.replace("2.000000", str(size)) + table + rows + "\n"


def star_30(names=NAMES):
    labels = "_rlnMicrographName #1\n_rlnDetectorPixelSize #2\n_rlnMagnification #3\n"
    return f"\ndata_\n\nloop_\n{labels}" + "".join(f"{name} 5.0 25000.0\n" for name in names) + "\n"


def coordinates(xs, tag="# version 30001\n\n"):
    """Picks at y = 30; the merit is x / 100."""
    labels = "_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnAutopickFigureOfMerit #3\n"
    return f"\n{tag}data_\n\nloop_\n{labels}" + "".join(f"{x:.6f} 30.000000 {x / 100}\n" for x in xs)


PICKS = {"Movies/a": (10, 50, 70), "Movies/b": (20, 30), "raw/c": (60,)}
"""By the path under the picking job; at threshold 0.5 (x >= 40) 2, 0 and 1 are kept."""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def make_project(root: Path, star=None) -> Path:
    """Micrographs, their STAR file, an AutoPick job of RELION 3.1 and its list as RELION 4 has it."""
    for seed, name in enumerate(NAMES):
        pixels = np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_mrc(root / name, pixels, PIXEL_SIZE)
    write(root / "CtfFind/job003/micrographs_ctf.star", star or star_31())
    for stem, xs in PICKS.items():
        write(root / f"AutoPick/job004/{stem}_autopick.star", coordinates(xs))
    write(root / "AutoPick/job004/coords_suffix_autopick.star", "CtfFind/job003/micrographs_ctf.star")
    rows = zip(NAMES, PICKS, strict=True)
    lines = "".join(f"{name} AutoPick/job004/{stem}_autopick.star\n" for name, stem in rows)
    labels = "_rlnMicrographName #1\n_rlnMicrographCoordinates #2\n"
    write(
        root / "AutoPick/job004/autopick.star",
        f"\n# version 50001\n\ndata_coordinate_files\n\nloop_\n{labels}{lines}\n",
    )
    return root


def particles_star() -> str:
    rows = [(name, x) for (name, xs) in zip(NAMES, PICKS.values(), strict=True) for x in xs]
    labels = ["_rlnMicrographName", "_rlnCoordinateX", "_rlnCoordinateY", "_rlnImageName", "_rlnOpticsGroup"]
    head = "# version 30001\n\ndata_particles\n\nloop_\n" + "".join(
        f"{label} #{i + 1}\n" for i, label in enumerate(labels)
    )
    lines = "".join(f"{name} {x}.0 30.0 {i + 1:06d}@Extract/job005/all.mrcs 1\n" for i, (name, x) in enumerate(rows))
    return OPTICS + head + lines + "\n"
