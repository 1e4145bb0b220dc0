"""Carry a plan out: labels, micrographs, and one labelled STAR file an entry."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pickeropt.datasets.empiar.archive import extract_coordinates, folder_url, local_name, quoted
from pickeropt.datasets.empiar.config import EmpiarConfig
from pickeropt.datasets.empiar.download_plan import EntryPlan, Plan, archive_here, choose_names, tables_here
from pickeropt.datasets.empiar.fetching import LABELS, EntryLabels, label_entry
from pickeropt.datasets.empiar.http_download import Wanted, download, sha256_of
from pickeropt.errors import DownloadError, FormatError
from pickeropt.io.labels import Labels, read_labels
from pickeropt.io.micrographs import read_micrograph_header
from pickeropt.io.tables import write_bytes_atomically

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done (MB), and how much there is."""
MB = 10**6


@dataclass(frozen=True)
class EmpiarReport:
    """entries : what each holds now, in the order of the plan"""

    out: Path
    entries: tuple[EntryLabels, ...]
    warnings: tuple[str, ...]


class Record:
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


def fetch(plan: Plan, config: EmpiarConfig, on_progress: OnProgress | None = None) -> EmpiarReport:
    """Fetch what the plan says and write OUT/ACCESSION/labels.star for each entry.

    A file that is there and as recorded is not fetched again; a run that was stopped goes on.
    Raises DownloadError, FormatError, MicrographError; the files that are whole stay.
    """
    shots = [read_labels(path) for path in config.shots]
    record = Record(config.out)
    done = [
        _fetch_entry(entry, config, record, shots, on_progress or (lambda what, done, of: None))
        for entry in plan.entries
    ]
    warnings = [warning for entry in done for warning in entry.warnings]
    return EmpiarReport(config.out, tuple(done), (*warnings, *_unused(shots, done)))


def _fetch_entry(
    plan: EntryPlan, config: EmpiarConfig, record: Record, shots: Sequence[Labels], on_progress: OnProgress
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
    plan: EntryPlan, out: Path, config: EmpiarConfig, record: Record, on_progress: OnProgress
) -> None:
    assert plan.archive is not None
    url, size = plan.archive
    path = archive_here(out.parent)
    if not path.exists():
        show = _in_mb(on_progress, f"{plan.entry.name}, labels")
        got = download(Wanted(url, size=size or None, check=_check_gzip), path, config.patience, show)
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
    url: str, path: Path, config: EmpiarConfig, record: Record, show: Callable[[int, int | None], None]
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
    wanted = Wanted(
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
