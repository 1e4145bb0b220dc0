"""Files of labelled points: of simulated micrographs, of EMPIAR entries, and the truth of a simulation.

A STAR file of labels (`_pickeroptClass`) may have three more columns: `_pickeroptSourceClass`, the finer class that
pretraining learns, `_pickeroptDiameter`, Å, the particle diameter of the micrograph, and `_pickeroptPixelSize`, Å/px,
which replaces the pixel size of the micrograph's header.

The truth of simulated micrographs has every particle, and points on junk and empty ice: one loop, block name empty,
columns `TRUTH_COLUMNS`, and `PIXEL_SIZE` where a header cannot hold it; `read_labels` reads it. Micrograph names are
relative to the file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError, OutputError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.picks import read_picks
from pickeropt.io.picks_file import PicksFile
from pickeropt.io.relion_star import CLASS, MICROGRAPH, X, Y, star_content
from pickeropt.io.star import Block, check_label_tokens, column_spans, find_block, read_blocks
from pickeropt.io.text import TextFile, column, numbers

SOURCE = "_pickeroptSourceClass"
DIAMETER = "_pickeroptDiameter"
PIXEL_SIZE = "_pickeroptPixelSize"


@dataclass(frozen=True)
class Labels:
    """The labels of one file, n rows.

    file : the points, as `read_picks` reads them
    class_names, source_names : (n,) each; the source is the class where the file names none
    diameters : (n,) float64 Å, NaN where the file says none
    pixel_sizes : (n,) float64 Å/px of the row's micrograph, NaN where the file says none
    """

    file: PicksFile
    class_names: tuple[str, ...]
    source_names: tuple[str, ...]
    diameters: NDArray[np.float64]
    pixel_sizes: NDArray[np.float64]


@dataclass(frozen=True)
class LabelRows:
    """n rows to write: micrograph name, centre x and y px (n, 2), class, source class, diameter Å (n,).

    pixel_sizes : (n,) Å/px of the micrographs; None writes no such column
    """

    micrographs: tuple[str, ...]
    coordinates: NDArray[np.float64]
    class_names: tuple[str, ...]
    source_names: tuple[str, ...]
    diameters: NDArray[np.float64]
    pixel_sizes: NDArray[np.float64] | None = None


def read_labels(path: Path) -> Labels:
    """The labels of a STAR file.

    Raises FormatError for a file without `_pickeroptClass`, for a diameter or pixel size that is not above 0,
    and as `read_picks` does.
    """
    return labels_of(read_picks(path))


def labels_of(file: PicksFile) -> Labels:
    """The labels of a STAR file in memory. Raises FormatError as `read_labels` does."""
    path, classes = file.path, file.picks.class_names
    if classes is None:
        what = f"{path}: no column {CLASS} with the class of each point"
        raise FormatError(f"{what}; add it ({MICROGRAPH} {X} {Y} {CLASS})")
    text = TextFile(path, file.content)
    block = find_block(read_blocks(text), X, Y)
    assert block is not None  # read_picks found it
    sources = classes
    if SOURCE in block.labels:
        sources = tuple(token.decode() for token in column(text, column_spans(text, block, SOURCE)))
    diameters = _sizes(text, block, DIAMETER, "write the particle's diameter in Å, or nan")
    pixel_sizes = _sizes(text, block, PIXEL_SIZE, "write the micrograph's pixel size in Å/px, or nan")
    return Labels(file, classes, sources, diameters, pixel_sizes)


def with_row_pixel_size(file: PicksFile) -> PicksFile:
    """A file whose rows name one pixel size (`_pickeroptPixelSize`) as if an optics block did.

    Raises FormatError for a value that is no size.
    """
    text = TextFile(file.path, file.content)
    block = find_block(read_blocks(text), X, Y)
    if file.picks.pixel_size is not None or block is None or PIXEL_SIZE not in block.labels:
        return file
    sizes = _sizes(text, block, PIXEL_SIZE, "write the micrograph's pixel size in Å/px, or nan")
    known = np.unique(sizes[~np.isnan(sizes)]).tolist()
    return replace(file, picks=replace(file.picks, pixel_size=known[0])) if len(known) == 1 else file


def _sizes(text: TextFile, block: Block, label: str, remedy: str) -> NDArray[np.float64]:
    """(n,) of a column, NaN where there is none."""
    if label not in block.labels:
        return np.full(len(block.rows), np.nan)
    spans = column_spans(text, block, label)
    values = numbers(text, spans, label, optional=True)
    wrong = np.flatnonzero((values <= 0) | np.isinf(values))
    if len(wrong):
        raise text.fault(int(spans[wrong[0], 0]), f"{label} is {values[wrong[0]]:g}", remedy)
    return values


def labels_content(path: Path, rows: LabelRows) -> bytes:
    """What a labelled STAR file holds. Raises OutputError for a name that no STAR token can hold.

    path : for the message
    """
    check_label_tokens(path, {*rows.micrographs, *rows.class_names, *rows.source_names})
    values = (
        rows.micrographs,
        *([f"{value:.3f}" for value in axis] for axis in rows.coordinates.T.tolist()),
        rows.class_names,
        rows.source_names,
        [f"{value:.3f}" for value in rows.diameters.tolist()],
    )
    columns = dict(zip(COLUMNS, values, strict=True))
    if rows.pixel_sizes is not None and len(rows.pixel_sizes):
        columns[PIXEL_SIZE] = [f"{size:.6g}" for size in rows.pixel_sizes.tolist()]
    return star_content("labels", columns).rstrip(b"\n") + b"\n"


COLUMNS = (MICROGRAPH, X, Y, CLASS, SOURCE, DIAMETER)
"""Of the files written here, in order; PIXEL_SIZE follows where it is known."""

TRUTH_COLUMNS = (
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
_HEADER = "data_\n\nloop_\n" + "".join(f"{name} #{i}\n" for i, name in enumerate(TRUTH_COLUMNS, 1))
_SIZED = f"{_HEADER}{PIXEL_SIZE} #{len(TRUTH_COLUMNS) + 1}\n"


@dataclass(frozen=True)
class TruthPoints:
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


def write_truth(path: Path, truth: TruthPoints) -> None:
    """Write the truth of one micrograph. Raises OutputError for a name that no STAR token can hold."""
    check_label_tokens(path, {truth.micrograph, *truth.class_names, *truth.source_classes})
    u, v, angle = truth.defocus
    same = (f"{u:.1f}", f"{v:.1f}", f"{angle:.2f}", f"{truth.diameter_angstrom:.2f}")
    turns = [[f"{value:.3f}" for value in axis] for axis in truth.angles.T.tolist()]
    count = len(truth.coordinates)
    values = (
        [truth.micrograph] * count,
        *([f"{value:.3f}" for value in axis] for axis in truth.coordinates.T.tolist()),
        truth.class_names,
        truth.source_classes,
        *turns,
        *([value] * count for value in same),
    )
    columns = dict(zip(TRUTH_COLUMNS, values, strict=True))
    if truth.pixel_size is not None:
        columns[PIXEL_SIZE] = [f"{truth.pixel_size:.6g}"] * count
    write_bytes_atomically(path, star_content("", columns).rstrip(b"\n") + b"\n")


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
