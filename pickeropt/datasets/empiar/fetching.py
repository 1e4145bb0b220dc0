"""The labelled STAR file of one entry: CryoPPP's particles and the user's own points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pickeropt.datasets.empiar.archive import local_name, stem_of
from pickeropt.datasets.empiar.http_download import sha256_of
from pickeropt.datasets.empiar.manifest import Entry
from pickeropt.errors import GeometryError
from pickeropt.io.cryoppp import read_cryoppp
from pickeropt.io.labels import LabelRows, Labels, labels_content, read_labels
from pickeropt.io.micrographs import read_micrograph_header
from pickeropt.io.pixel_size import AGREE
from pickeropt.io.tables import write_bytes_atomically
from pickeropt.records import PARTICLE

LABELS = "labels.star"


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
    last: str | None,
) -> EntryLabels:
    """Write FOLDER/labels.star; `_pickeroptSourceClass` is the entry for particles, CLASS_ENTRY for the rest.

    tables : CryoPPP's CSV file of each stem; shots : the user's, of which the rows on these micrographs count
    last : SHA-256 of the file as it was last written; one that was changed since is kept under another name
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
    path = folder / LABELS
    content = labels_content(path, rows) if len(rows.coordinates) else None
    replaced = _make_way(path, content, rows, tables, last)
    if content is not None:
        write_bytes_atomically(path, content)
    counts = {kind: rows.class_names.count(kind) for kind in dict.fromkeys(rows.class_names)}
    warnings = (*_other_sizes(entry, micrographs), *replaced)
    return EntryLabels(entry, tuple(micrographs), counts, outside, path if content else None, warnings)


def _make_way(
    path: Path, content: bytes | None, rows: LabelRows, tables: Mapping[str, Path], last: str | None
) -> tuple[str, ...]:
    """Clear the place of a file of an earlier run, with a sentence where something of the user's goes.

    What is neither as it was last written nor as it will be is kept under another name.
    """
    if not path.exists():
        return ()
    if sha256_of(path) == last:
        lost = _vanished(path, rows, tables)
        if content is None:
            path.unlink()
        return lost
    if path.read_bytes() == content:
        return ()
    aside = next(
        free for i in range(1, 10**6) if not (free := path.with_name(f"labels.kept{i}.star")).exists()
    )
    path.rename(aside)
    return (f"{path}: was changed by hand, so it is kept as {aside.name}; give its rows with --shots",)


def _vanished(path: Path, rows: LabelRows, tables: Mapping[str, Path]) -> tuple[str, ...]:
    """A sentence where points of the user that the earlier file has are not among the rows."""
    earlier = read_labels(path)
    picks = earlier.file.picks
    names = [picks.micrograph_names[i] for i in picks.micrograph_index.tolist()]
    now = {
        (name, kind, f"{x:.3f}", f"{y:.3f}")
        for name, kind, (x, y) in zip(
            rows.micrographs, rows.class_names, rows.coordinates.tolist(), strict=True
        )
    }
    lost = [
        kind
        for name, kind, (x, y) in zip(names, earlier.class_names, picks.coordinates.tolist(), strict=True)
        if (name, kind, f"{x:.3f}", f"{y:.3f}") not in now
        and not (kind == PARTICLE and stem_of(PurePosixPath(name).name) in tables)
    ]
    if not lost:
        return ()
    kinds = ", ".join(dict.fromkeys(lost))
    why = "their --shots, or micrographs, were not given again"
    return (f"{path}: {len(lost)} points of an earlier run ({kinds}) are gone, because {why}",)


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
