"""The training set: simulated micrographs with their truth, or class folders of boxes.

Source classes have parents (particle, background, contaminant, carbon), which the losses count too.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pickeropt.errors import FormatError, MicrographError, PickeroptError
from pickeropt.io.labels import DIAMETER, read_labels
from pickeropt.io.micrographs import read_class_folder, read_micrograph_header
from pickeropt.records import DEFAULT_CLASSES, FloatArray

TRUTH, DESCRIPTION = "truth.star", "dataset.json"
FOLDERS = "pickeropt class folders"
EXTENSIONS = (".mrc", ".tif", ".tiff", ".png", ".jpg", ".jpeg")
"""Of files without labels."""


@dataclass(frozen=True)
class SourceClasses:
    """k source classes, by parent in the order of `DEFAULT_CLASSES`, then by name.

    parents : the class of each: particle, background, contaminant or carbon
    """

    names: tuple[str, ...]
    parents: tuple[str, ...]

    @classmethod
    def of(cls, parent_of: Mapping[str, str]) -> "SourceClasses":
        names = sorted(parent_of, key=lambda name: (DEFAULT_CLASSES.index(parent_of[name]), name))
        return cls(tuple(names), tuple(parent_of[name] for name in names))


@dataclass(frozen=True)
class LabelledMicrograph:
    """coordinates : (n, 2) float64 x, y px; labels : (n,) int64 into the source classes; diameter_px : px"""

    path: Path
    coordinates: NDArray[np.float64]
    labels: NDArray[np.int64]
    diameter_px: float


@dataclass(frozen=True)
class LabelledBox:
    """source : its name for messages; pixels : (s, s) float32; micrograph : its name, "" where not known"""

    source: str
    pixels: FloatArray
    label: int
    micrograph: str


@dataclass(frozen=True)
class DataSet:
    """What is trained on; either micrographs or boxes.

    box_diameters : width of a box in particle diameters, 0 where there are none
    by_micrograph : whether grey values count from the micrograph's level, in units of its noise, or will;
        otherwise each box is scaled by itself
    fingerprint : sha256 of what is in it, short of the pixels
    """

    path: Path
    classes: SourceClasses
    micrographs: tuple[LabelledMicrograph, ...]
    boxes: tuple[LabelledBox, ...]
    box_diameters: float
    by_micrograph: bool
    fingerprint: str


def read_data_set(path: Path, exclude: Collection[str], ignore: Collection[str] = ()) -> DataSet:
    """Read a data set less what is excluded; of micrographs only the headers.

    path : a folder with `truth.star` (as `pickeropt dataset simulate` writes it), or with class folders
        and `dataset.json` (as `pickeropt dataset build` writes it)
    exclude : source classes or entries. A micrograph with one of them on it is left out whole, and so
        are the boxes from it.
    ignore : source classes whose points or boxes are left out, and nothing else

    Raises FormatError and MicrographError for what cannot be read, PickeroptError for a name in
    `exclude` or `ignore` that does not occur and where fewer than two classes are left.
    """
    if (path / TRUTH).is_file():
        found = _read_simulated(path, exclude, ignore)
    elif (path / DESCRIPTION).is_file():
        found = _read_folders(path, exclude, ignore)
    else:
        what = f"{path}: neither {TRUTH} nor {DESCRIPTION} is in it"
        raise FormatError(f"{what}; make a data set with `pickeropt dataset simulate` or `dataset build`")
    if len(found.classes.names) < 2:
        left = ", ".join(found.classes.names) or "none"
        raise PickeroptError(f"{path}: {left} left to train on; two classes at least: exclude less")
    return found


def find_unlabelled(folder: Path) -> tuple[Path, ...]:
    """Micrographs and pictures in and under a folder. Raises MicrographError where there is none."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS and p.name[0] != ".")
    if not found:
        raise MicrographError(f"{folder}: no micrograph or picture ({', '.join(EXTENSIONS)}) in it")
    return tuple(found)


def _read_simulated(path: Path, exclude: Collection[str], ignore: Collection[str]) -> DataSet:
    labels = read_labels(path / TRUTH)
    picks, sources = labels.file.picks, np.array(labels.source_names, dtype=str)
    parent_of = _parents(path / TRUTH, zip(labels.source_names, labels.class_names, strict=True))
    check_names(path, "--exclude", exclude, parent_of)
    check_names(path, "--ignore", ignore, parent_of)
    unwanted = np.unique(picks.micrograph_index[np.isin(sources, list(exclude))])
    kept = ~np.isin(picks.micrograph_index, unwanted) & ~np.isin(sources, list(ignore))
    classes = SourceClasses.of({name: parent_of[name] for name in np.unique(sources[kept]).tolist()})
    label_of = {name: i for i, name in enumerate(classes.names)}
    micrographs = []
    for index in np.unique(picks.micrograph_index[kept]).tolist():
        here = kept & (picks.micrograph_index == index)
        file = path / picks.micrograph_names[index]
        found = np.array([label_of[source] for source in sources[here].tolist()], dtype=np.int64)
        diameter = _diameter_px(file, float(labels.diameters[here][0]))
        micrographs.append(LabelledMicrograph(file, picks.coordinates[here], found, diameter))
    mark = hashlib.sha256(labels.file.content)
    for micrograph in micrographs:
        mark.update(f"{micrograph.path.name} {micrograph.path.stat().st_size}\n".encode())
    return DataSet(path, classes, tuple(micrographs), (), 0.0, True, mark.hexdigest())


def _parents(path: Path, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The parent of each source class. Raises FormatError for an unknown parent or for two."""
    parent_of: dict[str, str] = {}
    for source, parent in sorted(set(pairs)):
        if parent not in DEFAULT_CLASSES:
            raise FormatError(f"{path}: {source} is of class {parent!r}; use {', '.join(DEFAULT_CLASSES)}")
        if parent_of.setdefault(source, parent) != parent:
            raise FormatError(f"{path}: {source} is both {parent_of[source]} and {parent}; rename one of them")
    return parent_of


def _diameter_px(path: Path, diameter_angstrom: float) -> float:
    header = read_micrograph_header(path)
    pixel_size = header.pixel_size or 1.0  # the simulator always writes one, and 1 Å/px reads as unset
    diameter = diameter_angstrom / pixel_size
    if not 4 <= diameter <= min(header.shape):
        what = f"{path}: a particle of {diameter_angstrom:g} Å is {diameter:.1f} px across"
        size = f"{header.shape[1]} x {header.shape[0]} px"
        raise MicrographError(f"{what} on {size}; give {DIAMETER} and the header's pixel size rightly")
    return diameter


def _read_folders(path: Path, exclude: Collection[str], ignore: Collection[str]) -> DataSet:
    described = _description(path / DESCRIPTION)
    entries = described["classes"]
    folder = read_class_folder(path)
    missing = [name for name in folder.class_names if name not in entries]
    if missing:
        raise FormatError(f"{path / DESCRIPTION}: says nothing of {', '.join(missing[:4])}; build it again")
    parent_of = _parents(path / DESCRIPTION, ((name, entries[name]["class"]) for name in folder.class_names))
    entry_of = {name: str(entries[name].get("entry", name)) for name in folder.class_names}
    check_names(path, "--exclude", exclude, [*folder.class_names, *entry_of.values()])
    check_names(path, "--ignore", ignore, folder.class_names)
    names = [folder.class_names[label] for label in folder.labels.tolist()]
    origins = _origins(path / DESCRIPTION, entries, names)
    out = [bool({name, entry_of[name]} & set(exclude)) for name in names]
    unwanted = {origin for origin, excluded in zip(origins, out, strict=True) if excluded and origin}
    out = [excluded or name in ignore for name, excluded in zip(names, out, strict=True)]
    rows = [i for i, origin in enumerate(origins) if not out[i] and origin not in unwanted]
    classes = SourceClasses.of({names[i]: parent_of[names[i]] for i in rows})
    boxes = tuple(
        LabelledBox(folder.sources[i], folder.boxes[i], classes.names.index(names[i]), origins[i]) for i in rows
    )
    mark = hashlib.sha256((path / DESCRIPTION).read_bytes())
    for box in boxes:
        mark.update(f"{box.source.replace(str(path), '')} {box.pixels.shape}\n".encode())
    grey = "grey" in described
    return DataSet(path, classes, (), boxes, float(described["box_diameters"]), grey, mark.hexdigest())


def _origins(path: Path, entries: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The micrograph of each box, "" where it is not given. Raises FormatError for a wrong number of them."""
    waiting = {}
    for name in dict.fromkeys(names):
        count = names.count(name)
        said = [str(origin) for origin in entries[name].get("micrographs", [""] * count)]
        if len(said) != count:
            raise FormatError(f"{path}: says {len(said)} boxes of {name}, there are {count}; build it again")
        waiting[name] = iter(said)
    return [next(waiting[name]) for name in names]


def _description(path: Path) -> dict[str, Any]:
    """`dataset.json` of class folders. Raises FormatError where it is none."""
    try:
        described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        sound = str(described["format"]).startswith(FOLDERS) and float(described["box_diameters"]) >= 1
        sound = sound and all("class" in entry for entry in described["classes"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); build the data set again") from error
    if not sound:
        raise FormatError(f"{path}: not of {FOLDERS!r}, or boxes narrower than a particle; build it again")
    return described


def check_names(path: Path, option: str, names: Collection[str], known: Collection[str]) -> None:
    """Raises PickeroptError for a name given with `option` that does not occur in `path`."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        there: Sequence[str] = sorted(set(known))
        raise PickeroptError(f"{option} {unknown[0]}: no such name in {path}; there are {', '.join(there)}")


@dataclass(frozen=True)
class Parents:
    """The p parents that k source classes have.

    names : (p,) of `DEFAULT_CLASSES`, in that order
    counts : (p,) how many source classes each has, one parent's after the other's
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, parents: Sequence[str]) -> "Parents":
        """Of source classes in the order of `SourceClasses`; parents is (k,)."""
        names = tuple(name for name in DEFAULT_CLASSES if name in parents)
        return cls(names, tuple(list(parents).count(name) for name in names))

    def logits(self, source: Tensor) -> Tensor:
        """(n, k) logits of source classes -> (n, p): softmax of these is the summed softmax of those."""
        return torch.stack([torch.logsumexp(part, 1) for part in torch.split(source, list(self.counts), 1)], 1)

    def labels(self, labels: Tensor) -> Tensor:
        """(n,) source classes -> (n,) number of the parent of each."""
        counts = torch.tensor(self.counts, device=labels.device)
        return torch.repeat_interleave(counts)[labels]

    def losses(self, source: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the source classes and of the parents, weighted means.

        source : (n, k) logits; labels : (n,) source classes; weights : (n,), sum 1
        """
        by_class = functional.cross_entropy(source, labels, reduction="none")
        by_parent = functional.cross_entropy(self.logits(source), self.labels(labels), reduction="none")
        return (by_class * weights).sum(), (by_parent * weights).sum()


def even_weights(parent_labels: Tensor, least: int) -> Tensor:
    """(n,) weights, sum 1, with which all parents count the same; one with fewer points than `least` less."""
    counts = torch.bincount(parent_labels).clamp(min=least)
    weights = 1 / counts[parent_labels].float()
    return weights / weights.sum()
