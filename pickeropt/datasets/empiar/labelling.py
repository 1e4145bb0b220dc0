"""The labelled STAR file of one entry: CryoPPP's particles and the user's own points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.datasets.empiar.archive import local_name, stem_of
from pickeropt.datasets.empiar.manifest import Entry
from pickeropt.errors import GeometryError
from pickeropt.io.cryoppp import read_cryoppp
from pickeropt.io.labels import LabelRows, Labels, write_labels
from pickeropt.io.micrographs import read_micrograph_header
from pickeropt.io.pixel_size import AGREE
from pickeropt.records import PARTICLE


@dataclass(frozen=True)
class EntryLabels:
    """counts : points a class; outside : CryoPPP's centres that lie off their micrograph, left out
    labels : the STAR file, None where there is no point to label; warnings : a sentence each
    """

    entry: Entry
    micrographs: tuple[Path, ...]
    counts: dict[str, int]
    outside: int
    labels: Path | None
    warnings: tuple[str, ...]


def label_entry(
    entry: Entry,
    folder: Path,
    micrographs: Sequence[Path],
    tables: Mapping[str, Path],
    shots: Sequence[Labels],
) -> EntryLabels:
    """Write FOLDER/labels.star; `_pickeroptSourceClass` is the entry for particles, CLASS_ENTRY for the rest.

    tables : CryoPPP's CSV file of each stem; shots : the user's, of which the rows on these micrographs count
    """
    parts = []
    outside = 0
    for path in micrographs:
        name = f"micrographs/{path.name}"
        if stem_of(path.name) in tables:
            points, lost = _particles(tables[stem_of(path.name)], path)
            outside += lost
            parts.append((name, PARTICLE, points))
        parts += [(name, kind, points) for kind, points in _of_user(shots, path)]
    rows = _rows(entry, [part for part in parts if len(part[2])])
    path = folder / "labels.star"
    if len(rows.coordinates):
        write_labels(path, rows)
    counts = {kind: rows.class_names.count(kind) for kind in dict.fromkeys(rows.class_names)}
    written = path if len(rows.coordinates) else None
    return EntryLabels(entry, tuple(micrographs), counts, outside, written, _other_sizes(entry, micrographs))


def _particles(table: Path, micrograph: Path) -> tuple[NDArray[np.float64], int]:
    """CryoPPP's centres that lie on the micrograph, (n, 2), and how many do not.

    Raises GeometryError where most do not: the table is then of another micrograph, or of another binning.
    """
    height, width = read_micrograph_header(micrograph).shape
    xy = read_cryoppp(table, height)
    inside = ((xy >= 0) & (xy < [width, height])).all(axis=1)
    if inside.sum() * 2 < len(xy):
        what = f"{table}: {(~inside).sum()} of {len(xy)} centres lie outside of {micrograph}"
        raise GeometryError(f"{what}, {width} x {height} px; they belong to another micrograph or binning")
    return xy[inside], int((~inside).sum())


def _other_sizes(entry: Entry, micrographs: Sequence[Path]) -> tuple[str, ...]:
    """A sentence where headers say another pixel size than the one that is written into the labels."""
    assert entry.pixel_size is not None
    known = [(path, read_micrograph_header(path).pixel_size) for path in micrographs]
    other = [
        (path, size)
        for path, size in known
        if size is not None and max(size, entry.pixel_size) > min(size, entry.pixel_size) * (1 + AGREE)
    ]
    if not other:
        return ()
    path, size = other[0]
    what = f"{entry.pixel_size:g} Å/px counts, the header of {path.name} says {size:g}"
    more = f" (and {len(other) - 1} more differ)" if len(other) > 1 else ""
    return (f"{entry.name}: {what}{more}; --pixel-size {entry.accession}=Å/PX gives another",)


def _of_user(shots: Sequence[Labels], micrograph: Path) -> list[tuple[str, NDArray[np.float64]]]:
    """The user's points on a micrograph, a class at a time; names go by file name without extension."""
    found = []
    for labels in shots:
        picks = labels.file.picks
        stems = [Path(local_name(Path(name).name)).stem for name in picks.micrograph_names]
        mine = [i for i, stem in enumerate(stems) if stem == micrograph.stem]
        here = np.isin(picks.micrograph_index, mine)
        for kind in dict.fromkeys(labels.class_names):
            of_kind = here & (np.array(labels.class_names) == kind)
            if of_kind.any():
                found.append((kind, picks.coordinates[of_kind]))
    return found


def _rows(entry: Entry, parts: Sequence[tuple[str, str, NDArray[np.float64]]]) -> LabelRows:
    assert entry.diameter is not None
    assert entry.pixel_size is not None
    counts = [len(points) for _, _, points in parts]
    kinds = [kind for (_, kind, points) in parts for _ in range(len(points))]
    return LabelRows(
        micrographs=tuple(name for name, _, points in parts for _ in range(len(points))),
        coordinates=np.concatenate([np.empty((0, 2)), *(points for _, _, points in parts)]),
        class_names=tuple(kinds),
        source_names=tuple(entry.name if kind == PARTICLE else f"{kind}_{entry.name}" for kind in kinds),
        diameters=np.full(sum(counts), entry.diameter),
        pixel_sizes=np.full(sum(counts), entry.pixel_size),
    )
