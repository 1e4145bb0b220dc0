"""From the micrograph names in a file of picks to the micrographs on disk.

RELION names micrographs by their path under the project folder; a coordinate file of one
micrograph only has its own name. Folders are walked once, so thousands of names resolve
at once.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from pickeropt.errors import MicrographError
from pickeropt.io.picks_file import PicksFile
from pickeropt.io.relion_star import job_prefix

EXTENSIONS = (".mrc", ".mrcs", ".tif", ".tiff")
PICKER_SUFFIXES = (
    "_autopick", "_manualpick", "_topazpicks", "_picks", "_pick", "_cryolo", "_coords", "_boxes",
)  # fmt: skip

_UID_PREFIX = re.compile(r"(?<![^/])\d{21}_(?=[^/]+$)")
"""What cryoSPARC puts before the file names of the micrographs that it writes."""


@dataclass
class MicrographFinder:
    """Resolves micrograph names.

    folders : searched with all folders under them, links followed
    folders_first : before the places that the picks file and its names lead to
    Raises MicrographError for a folder that is not there.
    """

    folders: Sequence[Path] = ()
    folders_first: bool = False
    _by_name: dict[str, list[Path]] = field(default_factory=dict, init=False, repr=False)
    _by_stem: dict[str, list[Path]] = field(default_factory=dict, init=False, repr=False)
    _by_bare: dict[str, list[Path]] = field(default_factory=dict, init=False, repr=False)
    _named: dict[tuple[str, Path], tuple[str, Path]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for folder in self.folders:
            if not folder.is_dir():
                raise MicrographError(f"{folder}: no such folder; give the folder of the micrographs")
        for path in _walk(self.folders):
            self._by_name.setdefault(path.name, []).append(path)
            self._by_stem.setdefault(path.stem, []).append(path)
            if _UID_PREFIX.match(path.name):
                for key in (path.name, path.stem):
                    self._by_bare.setdefault(_UID_PREFIX.sub("", key), []).append(path)

    def paths(self) -> list[Path]:
        """All micrographs in and under `folders`."""
        return [path for found in self._by_name.values() for path in found]

    def find(self, name: str, picks_path: Path, from_stem: bool = False) -> Path | None:
        """The micrograph of a name, or None.

        The path as given: absolute, from the folder of the picks file, from the current
        folder, from the folders above the picks file (a RELION project is one of them),
        from `folders`; then by file name in and under `folders`. A name without the
        extension of a micrograph, or taken from the stem of the picks file (`from_stem`),
        goes by stem, less the suffixes that pickers append, beside the picks file, in the
        current folder, then in and under `folders`. Where nothing fits so, cryoSPARC's prefix
        of 21 digits counts for nothing, be it in the name or in those of the files in `folders`.
        Raises MicrographError where two different files fit.
        """
        bare = _UID_PREFIX.sub("", name)
        found = self._find(name, picks_path, from_stem)
        if found is None and bare != name:
            found = self._find(bare, picks_path, from_stem)
        elif found is None:
            named = not from_stem and name.lower().endswith(EXTENSIONS)
            keys = (Path(key).name for key in ([name] if named else _stems(name)))
            found = next((path for key in keys if (path := _only(key, self._by_bare.get(key, [])))), None)
        return found

    def _find(self, name: str, picks_path: Path, from_stem: bool) -> Path | None:
        if not from_stem and name.lower().endswith(EXTENSIONS):
            return self._find_named(name, picks_path)
        return next((found for stem in _stems(name) if (found := self._find_stem(stem, picks_path))), None)

    def find_in(self, file: PicksFile, name: str) -> Path | None:
        """As `find`, for a name in a file of picks.

        Raises MicrographError as well where two names of one file, or of one job of RELION, that differ in
        their folders lead to one micrograph: one of the two is not there, and its namesake is no substitute.
        """
        path = self.find(name, file.path, file.names_from_stem)
        if path is None or file.names_from_stem:
            return path
        job = job_prefix(f"./{file.path.as_posix()}") if len(file.picks.micrograph_names) == 1 else ""
        scope = job or str(file.path)
        other, beside = self._named.setdefault((scope, path.resolve()), (name, path))
        as_named = _ends_with(path, name) and _ends_with(beside, other)
        if not as_named and _apart(other, name):
            what = f"{file.path}: {other} and {name} are two micrographs, and only {path} is there for both"
            raise MicrographError(f"{what}; give the folders of both with --micrographs")
        return path

    def find_all(self, files: Iterable[PicksFile]) -> list[list[Path]]:
        """For each file the micrographs of its `picks.micrograph_names`, in that order.

        Raises one MicrographError for all that are missing, with a near match; and as `find_in` does.
        """
        found: list[list[Path]] = []
        missing: dict[str, Path] = {}
        for file in files:
            paths = []
            for name in file.picks.micrograph_names:
                path = self.find_in(file, name)
                if path is None:
                    missing[name] = file.path
                else:
                    paths.append(path)
            found.append(paths)
        if missing:
            raise self.missing(missing)
        return found

    def _find_named(self, name: str, picks_path: Path) -> Path | None:
        bases = [picks_path.parent, Path()]
        if os.sep in name:
            bases += picks_path.resolve().parent.parents
        there = (path for base in bases if (path := base / name).is_file())
        inside = (path for folder in self.folders if (path := folder / name).is_file())
        if self.folders_first:
            return next(inside, None) or self._by_file_name(name) or next(there, None)
        return next(there, None) or next(inside, None) or self._by_file_name(name)

    def _by_file_name(self, name: str) -> Path | None:
        return _only(name, self._by_name.get(Path(name).name, []))

    def _find_stem(self, stem: str, picks_path: Path) -> Path | None:
        inside = _only(stem, self._by_stem.get(Path(stem).name, [])) if self.folders_first else None
        for base in () if inside else (picks_path.parent, Path()):
            beside = [base / f"{stem}{extension}" for extension in EXTENSIONS]
            found = _only(stem, [path for path in beside if path.is_file()])
            if found:
                return found
        return inside or _only(stem, self._by_stem.get(Path(stem).name, []))

    def missing(self, missing: Mapping[str, Path]) -> MicrographError:
        """The error for names without a micrograph, each with the file of picks that has it."""
        names = list(missing)
        first, picks_path = names[0], missing[names[0]]
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        folders = [picks_path.parent, Path(), *self.folders]
        looked = ", ".join(dict.fromkeys(str(folder) for folder in folders))
        beside = {path.name for path in _images(picks_path.parent)}
        close = get_close_matches(Path(first).name, [*self._by_name, *beside], n=1, cutoff=0.7)
        hint = f" (for {first}, is it {close[0]}?)" if close else ""
        noun = "micrograph is" if len(names) == 1 else "micrographs are"
        remedy = "give their folder with --micrographs DIR"
        return MicrographError(f"{len(names)} {noun} missing: {shown}; looked in {looked}{hint}; {remedy}")


def _ends_with(path: Path, name: str) -> bool:
    parts = PurePosixPath(name).parts
    return path.parts[-len(parts) :] == parts


def _apart(one: str, other: str) -> bool:
    """Whether two names differ in a folder below RELION's job; a name that just says less does not."""
    tails = [PurePosixPath(next(_stems(name.removeprefix(job_prefix(name))), "")).parts for name in (one, other)]
    shorter, longer = sorted(tails, key=len)
    return longer[len(longer) - len(shorter) :] != shorter


def _stems(name: str) -> Iterator[str]:
    """The name, less an extension of micrographs, then less one picker suffix after another."""
    stem = name
    if stem.lower().endswith(EXTENSIONS):
        stem = stem[: stem.rindex(".")]
    while stem:
        yield stem
        suffix = next((s for s in PICKER_SUFFIXES if stem.endswith(s)), None)
        stem = stem.removesuffix(suffix) if suffix else ""


def _only(name: str, paths: list[Path]) -> Path | None:
    """The one file among the paths. Raises MicrographError where they are different files."""
    different = sorted({path.resolve() for path in paths}) if len(paths) > 1 else paths
    if len(different) > 1:
        what = f"{name}: both {different[0]} and {different[1]} fit"
        raise MicrographError(f"{what}; name the folder of the right one with --micrographs")
    return paths[0] if paths else None


def _images(folder: Path) -> Iterator[Path]:
    """The micrographs right in a folder."""
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith("."):
            yield path


def _walk(folders: Sequence[Path]) -> Iterator[Path]:
    """The micrographs in and under the folders, each folder once however it is reached."""
    seen: set[tuple[int, int]] = set()
    todo = list(reversed(folders))
    while todo:
        folder = todo.pop()
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise MicrographError(f"{folder}: cannot be read ({error.strerror}); mend its permissions") from error
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                todo.append(Path(entry.path))
            elif entry.name.lower().endswith(EXTENSIONS) and entry.is_file():
                yield Path(entry.path)
