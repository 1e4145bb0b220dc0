"""What a download would fetch and how much room it takes, asked of the servers beforehand."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pickeropt.datasets.empiar.archive import folder_url, list_folder, local_name, matching, quoted
from pickeropt.datasets.empiar.config import EmpiarConfig
from pickeropt.datasets.empiar.manifest import CRYOPPP, Entry
from pickeropt.datasets.empiar.request import Patience, remote_size
from pickeropt.errors import DownloadError, OutputError, PickeroptError

SPARE = 1.05
"""Room asked for, as a multiple of what is needed."""
WHERE = "https://www.ebi.ac.uk/empiar/EMPIAR-{}/"
"""The page of an entry, for the user to look at."""


@dataclass(frozen=True)
class EntryPlan:
    """names : of all micrographs on the server, or here already where no folder is known
    bytes_each : of one micrograph; archive : address and size of the labels to fetch, None for none
    """

    entry: Entry
    names: tuple[str, ...]
    count: int
    bytes_each: int
    archive: tuple[str, int] | None

    @property
    def on_server(self) -> bool:
        return self.entry.folder is not None


@dataclass(frozen=True)
class Plan:
    """needed : bytes still to fetch, with the largest archive of labels, which goes again; free : bytes"""

    entries: tuple[EntryPlan, ...]
    needed: int
    free: int


def make_plan(entries: Sequence[Entry], config: EmpiarConfig) -> Plan:
    """Ask the servers what there is. Nothing is written.

    Raises PickeroptError for an entry of which something is missing or that has no micrographs;
    DownloadError where a server cannot be asked; OutputError where the disk has too little room.
    """
    if config.max_micrographs < 0:
        raise PickeroptError(f"--max-micrographs {config.max_micrographs}: give 0 (all) or more")
    for entry in entries:
        _check_known(entry, config.out)
    plans = tuple(_plan_entry(entry, config) for entry in entries)
    here = sum(_bytes_here(config.out / plan.entry.accession) for plan in plans)
    micrographs = sum(plan.count * plan.bytes_each for plan in plans if plan.on_server)
    largest = max((plan.archive[1] for plan in plans if plan.archive), default=0)
    needed = max(0, micrographs - here) + largest
    above = next(folder for folder in [config.out, *config.out.absolute().parents] if folder.exists())
    free = shutil.disk_usage(above).free
    if needed * SPARE > free:
        what = f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free"
        raise OutputError(f"{config.out}: {what}; give a lower --max-micrographs, or another --out")
    return Plan(plans, needed, free)


def patience_of(config: EmpiarConfig) -> Patience:
    """How long to try."""
    return config.patience or Patience()


def micrographs_here(folder: Path) -> list[str]:
    """The micrographs of an entry that lie in its folder already."""
    place = folder / "micrographs"
    return sorted(p.name for p in place.iterdir() if p.name[0] != ".") if place.is_dir() else []


def _check_known(entry: Entry, out: Path) -> None:
    """Raises PickeroptError with everything the user has to say of an entry."""
    options = {
        "pixel_size": f"--pixel-size {entry.accession}=Å/PX",
        "diameter": f"--diameter {entry.accession}=Å",
        "folder": f"--folder {entry.accession}=data/FOLDER",
    }
    missing = [
        what for what in entry.missing if what != "folder" or not micrographs_here(out / entry.accession)
    ]
    if missing:
        place = WHERE.format(entry.accession)
        what = f"{entry.name}: the manifest has no verified {', '.join(missing).replace('_', ' ')}"
        remedy = f"look at {place} and give {' '.join(options[name] for name in missing)}"
        if "folder" in missing:
            remedy += f", or put its micrographs into {out / entry.accession / 'micrographs'}"
        raise PickeroptError(f"{what}; {remedy}")


def _plan_entry(entry: Entry, config: EmpiarConfig) -> EntryPlan:
    folder = config.out / entry.accession
    archive = None
    if entry.labels == CRYOPPP and not (folder / "particle_coordinates").is_dir():
        url = f"{config.labels_url.rstrip('/')}/{entry.accession}.tar.gz"
        size = remote_size(url, patience_of(config))
        archive = (url, size or 0)
    if entry.folder is None:
        names = micrographs_here(folder)
        return EntryPlan(entry, tuple(names), len(names), 0, archive)
    url = folder_url(config.base_url, entry.accession, entry.folder)
    files, folders = list_folder(url, patience_of(config))
    names = matching(files, entry.pattern)
    if not names:
        seen = ", ".join([*files[:3], *(f"{name}/" for name in folders[:6])]) or "nothing"
        remedy = f"give --folder {entry.accession}=data/FOLDER"
        raise DownloadError(f"{url}: no file {entry.pattern} (there is {seen}); {remedy}")
    if len({local_name(name) for name in names}) < len(names):
        raise DownloadError(f"{url}: two names differ only in blanks and signs; this entry cannot be fetched")
    size = remote_size(url + quoted(names[len(names) // 2]), patience_of(config))
    count = min(config.max_micrographs or len(names), len(names))
    return EntryPlan(entry, tuple(names), count, size or 0, archive)


def _bytes_here(folder: Path) -> int:
    return sum((folder / "micrographs" / name).stat().st_size for name in micrographs_here(folder))
