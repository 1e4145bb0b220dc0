"""The plan of a download: which files the servers have, which are missing here, and their size.

Folders of the EMPIAR archive are read from their index pages, CryoPPP's labels from its archives. For facts
that the manifest lacks, EMPIAR's own description of an entry is read: JSON with `imagesets`, each with
`directory` (below the entry), `category`, `data_format` and `pixel_width`, Å. Its form was taken from two
public programs (github.com/Dylan8527/CryoCRAB; scigantic-empiar of PyPI), not from EMPIAR itself.
"""

import fnmatch
import json
import math
import shutil
import tarfile
import urllib.parse
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any

from pickeropt.datasets.empiar.http_download import Patience, fetch_text, remote_size
from pickeropt.datasets.empiar.manifest import CRYOPPP, EmpiarConfig, Entry, EntryOverrides
from pickeropt.errors import DownloadError, FormatError, OutputError, PickeroptError
from pickeropt.files import partial_name

COORDINATES = ("ground_truth", "particle_coordinates")
"""The folder of the CSV files within CryoPPP's ACCESSION.tar.gz."""
LARGEST_CSV = 2**26
SUFFIXES = ("_patch_aligned_doseweighted", "_patch_aligned", ".frames")
"""What motion correction appends, and CryoPPP takes off some of its names."""


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def folder_url(base_url: str, accession: str, folder: str) -> str:
    """Address of a folder, with its slash: BASE/ACCESSION/FOLDER/."""
    parts = [urllib.parse.quote(part) for part in folder.split("/") if part]
    return "/".join([base_url.rstrip("/"), accession, *parts, ""])


def quoted(name: str) -> str:
    """A file name as it stands in an address."""
    return urllib.parse.quote(name)


def list_folder(url: str, patience: Patience) -> tuple[list[str], list[str]]:
    """File names and folder names of the server's index page, sorted. Raises DownloadError."""
    links = _Links()
    links.feed(fetch_text(url, patience))
    names = {urllib.parse.unquote(link.split("?")[0].split("#")[0].removeprefix("./")) for link in links.found}
    names = {name for name in names if name and name.rstrip("/") not in ("", ".", "..")}
    files = sorted(name for name in names if "/" not in name)
    folders = sorted(name[:-1] for name in names if name.endswith("/") and "/" not in name[:-1])
    return files, folders


def matching(names: list[str], pattern: str) -> list[str]:
    """The names a pattern such as `*_aligned.mrc` fits; upper and lower case differ."""
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def local_name(name: str) -> str:
    """The name a file gets here: without blanks and signs that no STAR file holds."""
    return "".join("_" if c.isspace() or c in "#'\",=" else c for c in name).lstrip("_.-") or "_"


def stem_of(name: str) -> str:
    """What a micrograph and its CSV have in common."""
    stem = local_name(name)
    stem = stem[: -len(PurePosixPath(stem).suffix)] if PurePosixPath(stem).suffix else stem
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem


def extract_coordinates(archive: Path, out: Path) -> int:
    """Take the CSV files out of CryoPPP's archive into a folder, whole or not at all; returns how many.

    Only plain files of `*/ground_truth/particle_coordinates/` are read, and only their last name counts.
    Raises FormatError for an archive that is broken or has none, OutputError where the disk takes no more.
    """
    partial = partial_name(out)
    partial.mkdir(parents=True)
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                place = PurePosixPath(member.name)
                if not (member.isfile() and place.suffix == ".csv" and place.parts[-3:-1] == COORDINATES):
                    continue
                source = tar.extractfile(member)
                if source is None or member.size > LARGEST_CSV:
                    raise FormatError(f"{archive}: {member.name} is no table of coordinates")
                (partial / local_name(place.name)).write_bytes(source.read())
        count = len(list(partial.iterdir()))
        if not count:
            what = f"no {'/'.join(COORDINATES)}/*.csv in it"
            raise FormatError(f"{archive}: {what}; is it an archive of CryoPPP?")
        partial.replace(out)
        return count
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise FormatError(f"{archive}: cannot be unpacked ({error}); download it again") from error
    except OSError as error:
        what = f"{out}: cannot be written ({error.strerror}); make room or mend it"
        raise OutputError(f"{what}, the archive is kept") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
class DownloadPlan:
    """needed : bytes still to fetch, with the largest archive of labels, which goes again; free : bytes"""

    entries: tuple[EntryPlan, ...]
    needed: int
    free: int

    @property
    def complete(self) -> bool:
        """Whether no file is to be fetched, of known size or not."""
        return not any(entry.missing or entry.archive for entry in self.entries)


def make_plan(entries: Sequence[Entry], config: EmpiarConfig) -> DownloadPlan:
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
    return DownloadPlan(plans, needed, free)


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
    missing = [what for what in entry.missing if what != "folder" or not micrographs_here(out / entry.accession)]
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


MICROGRAPHS = "micrographs - single frame"
"""How the category of such an image set begins."""
BRIEF = Patience(attempts=2)
"""What EMPIAR does not say at once the user is asked for."""


@dataclass(frozen=True)
class ImageSet:
    """folder : under ACCESSION/ in the archive; pixel_size : Å/px, None where it is not said"""

    folder: str
    pixel_size: float | None


def ask_empiar(
    entries: Sequence[Entry], overrides: EntryOverrides, out: Path, url: str, patience: Patience = BRIEF
) -> tuple[EntryOverrides, tuple[str, ...]]:
    """The user's values with EMPIAR's where no one else has any, and a line on each entry asked.

    out : micrographs that lie there already need no folder
    url : of the descriptions, EMPIAR-ACCESSION behind it
    An entry counts where one image set alone holds single-frame micrographs as MRC files, in the folder
    where that is known; else, and where EMPIAR cannot be asked, it stays as it is and the line says why.
    """
    sizes, folders, lines = dict(overrides.pixel_size), dict(overrides.folder), []
    for entry in entries:
        wanted = {"pixel_size", "folder"} & {*entry.missing}
        if micrographs_here(out / entry.accession):
            wanted -= {"folder"}
        if not wanted:
            continue
        try:
            sets = micrograph_sets(fetch_text(f"{url.rstrip('/')}/{entry.name}", patience))
        except DownloadError as error:
            lines.append(f"{entry.name}: EMPIAR could not be asked ({error})")
            continue
        known = entry.folder.strip("/") if entry.folder else None
        fitting = [one for one in sets if known in (None, one.folder)]
        if len(fitting) != 1:
            there = ", ".join(one.folder for one in sets) or "none"
            lines.append(f"{entry.name}: EMPIAR names no one folder of micrographs (there is {there})")
            continue
        found = fitting[0]
        if "pixel_size" in wanted and found.pixel_size is not None:
            sizes[entry.accession] = found.pixel_size
        if "folder" in wanted:
            folders[entry.accession] = found.folder
        size = "no pixel size" if found.pixel_size is None else f"{found.pixel_size:g} Å/px"
        lines.append(f"{entry.name}: by EMPIAR's own description {size}, in {found.folder}")
    return EntryOverrides(sizes, overrides.diameter, folders), tuple(lines)


def micrograph_sets(text: str) -> tuple[ImageSet, ...]:
    """The image sets of single-frame micrographs in MRC files. Raises DownloadError for another text."""
    try:
        (content,) = json.loads(text).values()
        sets = content["imagesets"]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DownloadError("its answer is no description of an entry") from None
    rows = [row for row in (sets if isinstance(sets, list) else [sets]) if isinstance(row, dict)]
    found = (_image_set(row) for row in rows)
    return tuple(one for one in found if one is not None)


def _image_set(row: dict[str, Any]) -> ImageSet | None:
    kind, form = (str(row.get(name) or "").strip().lower() for name in ("category", "data_format"))
    folder = str(row.get("directory") or "").strip().strip("/")
    if not kind.startswith(MICROGRAPHS) or form != "mrc" or not folder or ".." in folder.split("/"):
        return None
    try:
        size = float(row.get("pixel_width") or math.nan)
    except (TypeError, ValueError):
        size = math.nan
    return ImageSet(folder, size if 0 < size < math.inf else None)
