"""The manifest of EMPIAR entries: `manifest.toml` of this package, with the source of each fact.

A fact that was not verified has no value or, for the file pattern, one that is marked. What is missing comes
from the user.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pickeropt.errors import PickeroptError

if TYPE_CHECKING:
    from pickeropt.datasets.empiar.http_download import Patience


if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FACTS = ("specimen", "pixel_size", "diameter_px", "folder", "pattern", "labels")
CRYOPPP = "cryoppp"


@dataclass(frozen=True)
class Fact:
    """value : None where it is not known; source : where it was read, or why it is not known"""

    value: Any
    verified: bool
    source: str


@dataclass(frozen=True)
class Entry:
    """One EMPIAR entry.

    accession : the number, such as "10017"
    pixel_size : Å/px of the micrographs; diameter : Å of the particle
    folder : under ACCESSION/ in the archive; pattern : file names in it
    labels : "cryoppp", or None where the user labels the particles too
    facts : each fact with its source, before the user's own values
    """

    accession: str
    specimen: str | None
    pixel_size: float | None
    diameter: float | None
    folder: str | None
    pattern: str
    labels: str | None
    note: str
    facts: Mapping[str, Fact]

    @property
    def name(self) -> str:
        return f"EMPIAR-{self.accession}"

    @property
    def missing(self) -> tuple[str, ...]:
        """What the user has to say: `pixel_size`, `diameter`, `folder`; a known diameter in px will do."""
        known = {
            "pixel_size": self.pixel_size is not None,
            "diameter": self.diameter is not None or self.facts["diameter_px"].value is not None,
            "folder": self.folder is not None,
        }
        return tuple(what for what, is_known in known.items() if not is_known)


@dataclass(frozen=True)
class Manifest:
    """base_url : of the archive's ACCESSION/ folders; entry_url : of its descriptions EMPIAR-ACCESSION

    labels_url : of CryoPPP's ACCESSION.tar.gz
    """

    base_url: str
    entry_url: str
    labels_url: str
    labels_licence: str
    entries: tuple[Entry, ...]


def load_manifest() -> Manifest:
    """The manifest of this package."""
    text = (resources.files(__package__) / "manifest.toml").read_text(encoding="utf-8")
    return parse_manifest(text)


def parse_manifest(text: str) -> Manifest:
    """Raises ValueError for a manifest that is not of the form described in it (ours to mend)."""
    table = tomllib.loads(text)
    entries = tuple(_entry(row) for row in table["entry"])
    if len({entry.accession for entry in entries}) != len(entries):
        raise ValueError("manifest.toml has an accession twice")
    return Manifest(table["base_url"], table["entry_url"], table["labels_url"], table["labels_licence"], entries)


def _entry(row: Mapping[str, Any]) -> Entry:
    facts = {name: Fact(row[name].get("value"), row[name]["verified"], row[name]["source"]) for name in FACTS}
    for name, fact in facts.items():
        if not fact.verified and fact.value is not None and name != "pattern":
            raise ValueError(f"manifest.toml: {name} of {row['accession']} has a value that is not verified")
    pixel_size, px = facts["pixel_size"].value, facts["diameter_px"].value
    return Entry(
        accession=row["accession"],
        specimen=facts["specimen"].value,
        pixel_size=pixel_size,
        diameter=None if pixel_size is None or px is None else pixel_size * px,
        folder=facts["folder"].value,
        pattern=facts["pattern"].value,
        labels=facts["labels"].value,
        note=row.get("note", ""),
        facts=facts,
    )


@dataclass(frozen=True)
class EntryOverrides:
    """What the user says of entries, by accession: Å/px, Å, and folders under ACCESSION/."""

    pixel_size: Mapping[str, float]
    diameter: Mapping[str, float]
    folder: Mapping[str, str]


def choose_entries(manifest: Manifest, accessions: Sequence[str], overrides: EntryOverrides) -> tuple[Entry, ...]:
    """The entries asked for, or those of which all is known, with the user's values in place.

    Raises PickeroptError for an accession that is not in the manifest, and a value that means nothing.
    """
    known = {entry.accession: entry for entry in manifest.entries}
    wanted = [name.strip().upper().removeprefix("EMPIAR-") for name in accessions]
    for name in [*wanted, *overrides.pixel_size, *overrides.diameter, *overrides.folder]:
        if name not in known:
            raise PickeroptError(f"EMPIAR-{name} is not in the manifest (there are {', '.join(known)})")
    entries = {name: _with(entry, overrides) for name, entry in known.items()}
    if wanted:
        return tuple(entries[name] for name in dict.fromkeys(wanted))
    return tuple(entry for entry in entries.values() if not entry.missing)


def _with(entry: Entry, overrides: EntryOverrides) -> Entry:
    """The entry with the user's values; a pixel size makes the diameter known where that in px is."""
    name = entry.accession
    for values in (overrides.pixel_size, overrides.diameter):
        if name in values and not 0 < values[name] < float("inf"):
            raise PickeroptError(f"{entry.name}: {values[name]:g} is no size; give a number above 0")
    pixel_size = overrides.pixel_size.get(name, entry.pixel_size)
    px = entry.facts["diameter_px"].value
    diameter = entry.diameter if pixel_size is None or px is None else pixel_size * px
    folder = overrides.folder.get(name, entry.folder)
    if folder is not None and ".." in folder.split("/"):
        raise PickeroptError(f"{entry.name}: {folder!r} leads out of the entry; name a folder under it")
    return replace(entry, pixel_size=pixel_size, diameter=overrides.diameter.get(name, diameter), folder=folder)


@dataclass(frozen=True)
class EmpiarConfig:
    """One download.

    out : OUT/ACCESSION/micrographs, /particle_coordinates and /labels.star are made there
    base_url, labels_url : of EMPIAR's ACCESSION/ folders and of CryoPPP's ACCESSION.tar.gz
    max_micrographs : of each entry, spread over its names; 0 takes all
    shots : labelled STAR files of the user, for contaminant, carbon and what CryoPPP lacks
    patience : how long to try; None is the usual
    """

    out: Path
    base_url: str
    labels_url: str
    max_micrographs: int = 20
    shots: tuple[Path, ...] = ()
    patience: "Patience | None" = None
