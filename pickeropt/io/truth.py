"""The truth STAR of simulated micrographs: every particle, and points on junk and empty ice.

One loop, block name empty, columns `COLUMNS`, and `labels.PIXEL_SIZE` where a header cannot say it;
`labels.read_labels` reads it. Micrograph names are relative to the file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import OutputError
from pickeropt.io.labels import DIAMETER, PIXEL_SIZE, SOURCE
from pickeropt.io.relion_star import CLASS, MICROGRAPH, X, Y
from pickeropt.io.tables import write_bytes_atomically

COLUMNS = (
    MICROGRAPH,
    X,
    Y,
    CLASS,
    SOURCE,
    "_rlnAngleRot",
    "_rlnAngleTilt",
    "_rlnAnglePsi",
    "_rlnDefocusU",
    "_rlnDefocusV",
    "_rlnDefocusAngle",
    DIAMETER,
)
_HEADER = "data_\n\nloop_\n" + "".join(f"{name} #{i}\n" for i, name in enumerate(COLUMNS, 1))
_SIZED = f"{_HEADER}{PIXEL_SIZE} #{len(COLUMNS) + 1}\n"


@dataclass(frozen=True)
class Truth:
    """Everything known about one micrograph.

    coordinates : (n, 2) float64, x and y of the centre, px; class_names, source_classes : (n,)
    angles : (n, 3) rot, tilt, psi in degrees, 0 for what is no particle
    defocus : U, V in Å and the angle in degrees; diameter_angstrom : of the particles
    pixel_size : Å/px where the header of the micrograph cannot say it, else None
    """

    micrograph: str
    coordinates: NDArray[np.float64]
    class_names: Sequence[str]
    source_classes: Sequence[str]
    angles: NDArray[np.float64]
    defocus: tuple[float, float, float]
    diameter_angstrom: float
    pixel_size: float | None = None


def write_truth(path: Path, truth: Truth) -> None:
    """Write the truth of one micrograph. Raises OutputError for a name that no STAR token can hold."""
    for name in {truth.micrograph, *truth.class_names, *truth.source_classes}:
        if not name or name[0] in "_'\"#$;[]" or any(c.isspace() for c in name):
            raise OutputError(f"{path}: {name!r} cannot stand in a STAR file; remove blanks, quotes and #")
    u, v, angle = truth.defocus
    size = "" if truth.pixel_size is None else f" {truth.pixel_size:.6g}"
    tail = f"{u:.1f} {v:.1f} {angle:.2f} {truth.diameter_angstrom:.2f}{size}"
    rows = [
        f"{truth.micrograph} {x:.3f} {y:.3f} {name} {source} {rot:.3f} {tilt:.3f} {psi:.3f} {tail}\n"
        for (x, y), name, source, (rot, tilt, psi) in zip(
            truth.coordinates.tolist(),
            truth.class_names,
            truth.source_classes,
            truth.angles.tolist(),
            strict=True,
        )
    ]
    write_bytes_atomically(path, ((_SIZED if size else _HEADER) + "".join(rows)).encode())


def join_truth(path: Path, parts: Iterable[Path]) -> int:
    """Write the rows of many truth files, in that order, as one; the number of particles in them.

    Raises OutputError for a file that is none of ours.
    """
    rows: list[tuple[str, bool]] = []
    for part in parts:
        text = part.read_text(encoding="utf-8")
        if not text.startswith(_HEADER):
            raise OutputError(f"{part}: not a truth file of this version; delete it and run again")
        sized = text.startswith(_SIZED)
        lines = text[len(_SIZED if sized else _HEADER) :].splitlines()
        rows += [(line, sized) for line in lines]
    if any(sized for _, sized in rows):
        whole = _SIZED + "".join(f"{line}{'' if sized else ' nan'}\n" for line, sized in rows)
    else:
        whole = _HEADER + "".join(f"{line}\n" for line, _ in rows)
    write_bytes_atomically(path, whole.encode())
    return sum(line.count(" particle ") for line, _ in rows)
