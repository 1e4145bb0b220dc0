"""The download of planned entries: labels, micrographs, and one labelled STAR file an entry."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.datasets.empiar.download_plan import (
    DownloadPlan,
    EntryPlan,
    archive_here,
    choose_names,
    extract_coordinates,
    folder_url,
    local_name,
    quoted,
    stem_of,
    tables_here,
)
from pickeropt.datasets.empiar.http_download import RemoteFile, download, sha256_of
from pickeropt.datasets.empiar.manifest import EmpiarConfig, Entry
from pickeropt.errors import DownloadError, FormatError, GeometryError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.delimited import read_cryoppp
from pickeropt.io.labels import LabelRows, Labels, labels_content, read_labels
from pickeropt.io.micrographs import AGREE, read_micrograph_header
from pickeropt.records import PARTICLE, OnProgress

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
    aside = next(free for i in range(1, 10**6) if not (free := path.with_name(f"labels.kept{i}.star")).exists())
    path.rename(aside)
    return (f"{path}: was changed by hand, so it is kept as {aside.name}; give its rows with --shots",)


def _vanished(path: Path, rows: LabelRows, tables: Mapping[str, Path]) -> tuple[str, ...]:
    """A sentence where points of the user that the earlier file has are not among the rows."""
    earlier = read_labels(path)
    picks = earlier.file.picks
    names = [picks.micrograph_names[i] for i in picks.micrograph_index.tolist()]
    now = {
        (name, kind, f"{x:.3f}", f"{y:.3f}")
        for name, kind, (x, y) in zip(rows.micrographs, rows.class_names, rows.coordinates.tolist(), strict=True)
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


MB = 10**6


@dataclass(frozen=True)
class EmpiarReport:
    """entries : what each holds now, in the order of the plan"""

    out: Path
    entries: tuple[EntryLabels, ...]
    warnings: tuple[str, ...]


class DownloadRecord:
    """`downloads.json`: address, size and SHA-256 of every file fetched, by its path under OUT.

    The labels that were written are in it too, without an address.
    """

    def __init__(self, out: Path) -> None:
        self.path = out / "downloads.json"
        try:
            self.files: dict[str, dict[str, Any]] = json.loads(self.path.read_text())["files"]
            known = [(about["bytes"], about["sha256"]) for about in self.files.values()]
        except FileNotFoundError:
            self.files, known = {}, []
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise FormatError(f"{self.path}: cannot be read ({error}); remove it") from error
        if not all(isinstance(size, int) and isinstance(digest, str) for size, digest in known):
            raise FormatError(f"{self.path}: has sizes or checksums that are none; remove it")

    def of(self, path: Path) -> dict[str, Any] | None:
        return self.files.get(path.relative_to(self.path.parent).as_posix())

    def add(self, path: Path, url: str, size: int, sha256: str) -> None:
        key = path.relative_to(self.path.parent).as_posix()
        self.files[key] = {"url": url, "bytes": size, "sha256": sha256}
        about = {"format": "pickeropt downloads 1", "files": dict(sorted(self.files.items()))}
        write_bytes_atomically(self.path, json.dumps(about, indent=1).encode())


def fetch(plan: DownloadPlan, config: EmpiarConfig, on_progress: OnProgress | None = None) -> EmpiarReport:
    """Fetch what the plan says and write OUT/ACCESSION/labels.star for each entry.

    A file that is there and as recorded is not fetched again; a run that was stopped goes on.
    Raises DownloadError, FormatError, MicrographError; the files that are whole stay.
    """
    shots = [read_labels(path) for path in config.shots]
    record = DownloadRecord(config.out)
    done = [
        _fetch_entry(entry, config, record, shots, on_progress or (lambda what, done, of: None))
        for entry in plan.entries
    ]
    warnings = [warning for entry in done for warning in entry.warnings]
    return EmpiarReport(config.out, tuple(done), (*warnings, *_unused(shots, done)))


def _fetch_entry(
    plan: EntryPlan, config: EmpiarConfig, record: DownloadRecord, shots: Sequence[Labels], on_progress: OnProgress
) -> EntryLabels:
    folder = config.out / plan.entry.accession
    coordinates = folder / "particle_coordinates"
    if plan.archive is not None:
        _fetch_labels(plan, coordinates, config, record, on_progress)
    tables = tables_here(plan.entry, coordinates)
    names = choose_names(plan.entry, plan.names, plan.count, tables)
    paths = [folder / "micrographs" / local_name(name) for name in names]
    if plan.entry.folder is not None:
        base = folder_url(config.base_url, plan.entry.accession, plan.entry.folder)
        for i, (name, path) in enumerate(zip(names, paths, strict=True)):
            what = f"{plan.entry.name}, micrograph {i + 1} of {len(names)}"
            _fetch_micrograph(base + quoted(name), path, config, record, _in_mb(on_progress, what))
    known = record.of(folder / LABELS)
    last = known["sha256"] if known else None
    found = label_entry(plan.entry, folder, paths, tables, shots, last)
    if found.labels is not None:
        record.add(found.labels, "", found.labels.stat().st_size, sha256_of(found.labels))
    return found


def _fetch_labels(
    plan: EntryPlan, out: Path, config: EmpiarConfig, record: DownloadRecord, on_progress: OnProgress
) -> None:
    assert plan.archive is not None
    url, size = plan.archive
    path = archive_here(out.parent)
    if not path.exists():
        show = _in_mb(on_progress, f"{plan.entry.name}, labels")
        got = download(RemoteFile(url, size=size or None, check=_check_gzip), path, config.patience, show)
        record.add(path, url, got.size, got.sha256)
    try:
        extract_coordinates(path, out)
    except FormatError:
        path.unlink()  # worth nothing
        raise
    path.unlink()


def _check_gzip(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            raise FormatError("it is no gzip archive")


def _fetch_micrograph(
    url: str, path: Path, config: EmpiarConfig, record: DownloadRecord, show: Callable[[int, int | None], None]
) -> None:
    """Have one micrograph; a file that is there counts if it is as recorded, or whole where nothing is."""
    known = record.of(path)
    if path.exists():
        digest = sha256_of(path)
        if known is not None and digest == known["sha256"]:
            return
        if known is None:
            read_micrograph_header(path)  # the user's own copy
            record.add(path, url, path.stat().st_size, digest)
            return
    wanted = RemoteFile(
        url,
        size=known["bytes"] if known else None,
        sha256=known["sha256"] if known else None,
        check=read_micrograph_header,
    )
    try:
        got = download(wanted, path, config.patience, show)
    except DownloadError as error:
        if known is None:
            raise
        remedy = f"if it was changed at its source, remove {record.path} and fetch all again"
        raise DownloadError(f"{error} (recorded at the first download); {remedy}") from error
    record.add(path, url, got.size, got.sha256)


def _in_mb(on_progress: OnProgress, what: str) -> Callable[[int, int | None], None]:
    return lambda done, of: on_progress(what, done // MB, max(1, (of or done) // MB))


def _unused(shots: Sequence[Labels], done: Sequence[EntryLabels]) -> tuple[str, ...]:
    """A sentence for each file of shots none of whose micrographs was fetched."""
    known = {path.stem for entry in done for path in entry.micrographs}
    found = []
    for labels in shots:
        names = labels.file.picks.micrograph_names
        lost = [name for name in names if Path(local_name(Path(name).name)).stem not in known]
        if lost:
            rows = int(np.isin(labels.file.picks.micrograph_index, [names.index(n) for n in lost]).sum())
            found.append(f"{labels.file.path}: {rows} rows are on other micrographs, such as {lost[0]}")
    return tuple(found)
