"""What a download would fetch and how much room it takes, asked of the servers beforehand."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pickeropt.datasets.empiar.archive import folder_url, list_folder, local_name, matching, quoted, stem_of
from pickeropt.datasets.empiar.config import EmpiarConfig
from pickeropt.datasets.empiar.manifest import CRYOPPP, Entry
from pickeropt.datasets.empiar.request import Patience, remote_size
from pickeropt.errors import DownloadError, FormatError, OutputError, PickeroptError

SPARE = 1.05
"""Room asked for, as a multiple of what is needed."""
WHERE = "https://www.ebi.ac.uk/empiar/EMPIAR-{}/"
"""The page of an entry, for the user to look at."""


@dataclass(frozen=True)
class EntryPlan:
    """names : of all micrographs on the server, or here already where no folder is known
    count : micrographs to have; missing : how many of them are not here, at most, where only the labels
        will tell which they are
    bytes_each : of one micrograph, 0 where the server says none
    archive : address and size of the labels to fetch and unpack, None for none; 0 bytes where the server
        says none, or they are here
    """

    entry: Entry
    names: tuple[str, ...]
    count: int
    missing: int
    bytes_each: int
    archive: tuple[str, int] | None


@dataclass(frozen=True)
class Plan:
    """needed : bytes still to fetch, with the largest archive of labels, which goes again; free : bytes"""

    entries: tuple[EntryPlan, ...]
    needed: int
    free: int

    @property
    def complete(self) -> bool:
        """Whether no file is to be fetched, of known size or not."""
        return not any(entry.missing or entry.archive for entry in self.entries)


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
    micrographs = sum(plan.missing * plan.bytes_each for plan in plans)
    largest = max((plan.archive[1] for plan in plans if plan.archive), default=0)
    needed = micrographs + largest
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


def archive_here(folder: Path) -> Path:
    """Where the labels of an entry lie until they are unpacked."""
    return folder / f"{folder.name}.tar.gz"


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
        kept = archive_here(folder)  # of a run that was stopped while unpacking
        archive = (url, 0 if kept.exists() else remote_size(url, patience_of(config)) or 0)
    if entry.folder is None:
        names = micrographs_here(folder)
        return EntryPlan(entry, tuple(names), len(names), 0, 0, archive)
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
    here = set(micrographs_here(folder))
    if archive is None:
        wanted = choose_names(entry, names, count, tables_here(entry, folder / "particle_coordinates"))
        count, missing = len(wanted), sum(local_name(name) not in here for name in wanted)
    else:
        missing = min(count, sum(local_name(name) not in here for name in names))
    return EntryPlan(entry, tuple(names), count, missing, size or 0, archive)


def tables_here(entry: Entry, coordinates: Path) -> dict[str, Path]:
    """CryoPPP's CSV file of each stem. Raises FormatError where two have one stem."""
    tables: dict[str, Path] = {}
    for path in sorted(coordinates.glob("*.csv")) if entry.labels else ():
        if stem_of(path.name) in tables:
            raise FormatError(f"{path} and {tables[stem_of(path.name)]} may mean one micrograph; remove one")
        tables[stem_of(path.name)] = path
    return tables


def choose_names(entry: Entry, names: Sequence[str], count: int, tables: Mapping[str, Path]) -> list[str]:
    """The micrographs to have: those with labels where there are labels, spread evenly over the names.

    Raises FormatError where no label file has the name of a micrograph.
    """
    labelled = [name for name in names if stem_of(name) in tables] if tables else list(names)
    if not labelled:
        first = next(iter(tables.values())).name
        what = f"no label file has the name of a micrograph ({first} and {names[0]})"
        raise FormatError(f"{entry.name}: {what}; these micrographs are not the ones that were labelled")
    count = min(count, len(labelled))
    return [labelled[i * len(labelled) // count] for i in range(count)]
