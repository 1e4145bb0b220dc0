"""Which files of picks a user means, and under which name each is written again."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from pickeropt.errors import FormatError, OutputError
from pickeropt.io.lists import (
    CoordinateList,
    find_coordinate_file,
    is_coordinate_list,
    read_coordinate_list,
)
from pickeropt.io.picks import PicksFile, read_picks
from pickeropt.io.relion import X

ENDINGS = (".star", ".box")
"""What is read of a folder."""

_COORDINATES = re.compile(rb"^\s*" + X.encode() + rb"\b", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """A file of picks, and its path under `kept/` and `rejected/`."""

    file: PicksFile
    name: str


@dataclass(frozen=True)
class ListSource:
    """An `autopick.star`, its path under `kept/` and `rejected/`, and those of its rows' files."""

    coordinates: CoordinateList
    name: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Inputs:
    """All that is to be pruned, sorted by name, whatever the order it was given in."""

    sources: tuple[Source, ...]
    lists: tuple[ListSource, ...]
    warnings: tuple[str, ...]


def read_inputs(inputs: Sequence[Path]) -> Inputs:
    """Read files, lists of files, and folders with all folders under them.

    A file keeps its path under the folder that was given, else its own name; one that is
    reached twice counts once. In a folder a STAR file without coordinates is skipped with
    a warning. Raises FormatError for what cannot be read and where there are no picks,
    OutputError where two files would be written under one name.
    """
    found = _Found()
    for path in inputs:
        if path.is_dir():
            found.add_folder(path)
        else:
            found.add(path, PurePath(path.name))
    targets = {key: found.add_list_rows(key) for key in sorted(found.lists)}
    if not found.files:
        given = ", ".join(str(path) for path in inputs) or "nothing"
        raise FormatError(f"{given}: no files of picks; give .star or .box files, or a folder of them")
    names = found.names()
    sources = [Source(found.read(key), names[key]) for key in found.files]
    lists = [
        ListSource(listed, names[key], tuple(names[row] for row in targets[key]))
        for key, listed in found.lists.items()
    ]
    if not any(len(source.file.picks) for source in sources):
        files = "the file has" if len(sources) == 1 else f"the {len(sources)} files have"
        raise FormatError(f"{sources[0].file.path}: {files} no picks; give files that have rows")
    sources.sort(key=lambda source: source.name)
    lists.sort(key=lambda source: source.name)
    return Inputs(tuple(sources), tuple(lists), found.warnings())


@dataclass
class _Found:
    """Files by real folder and name, so that a file reached by two ways is one."""

    files: dict[Path, Path] = field(default_factory=dict)
    lists: dict[Path, CoordinateList] = field(default_factory=dict)
    paths_out: dict[Path, PurePath] = field(default_factory=dict)
    micrographs: dict[Path, str] = field(default_factory=dict)
    skipped: list[Path] = field(default_factory=list)

    def add(self, path: Path, name: PurePath) -> Path:
        key = _key(path)
        if key not in self.lists and is_coordinate_list(path):
            self.lists[key] = read_coordinate_list(path)
        elif key not in self.lists:
            self.files.setdefault(key, path)
        self._rename(key, name)
        return key

    def add_folder(self, folder: Path) -> None:
        for path in _walk(folder):
            if path.suffix.lower() == ".star" and not (is_coordinate_list(path) or _has_coordinates(path)):
                self.skipped.append(path)
            else:
                self.add(path, path.relative_to(folder))

    def add_list_rows(self, key: Path) -> list[Path]:
        """The coordinate files of a list, one a row."""
        listed = self.lists[key]
        rows = []
        for row, micrograph in enumerate(listed.micrograph_names):
            path = find_coordinate_file(listed, row)
            if is_coordinate_list(path):
                raise FormatError(f"{listed.path}: names {path}, a list itself; give that list instead")
            found = self.add(path, self._row_name(key, path, listed.coordinate_paths[row]))
            other = self.micrographs.setdefault(found, micrograph)
            if other != micrograph:
                what = f"{path} belongs to {other} in one row and to {micrograph} in another"
                raise FormatError(f"{listed.path}: {what}; remove the wrong row")
            rows.append(found)
        return rows

    def read(self, key: Path) -> PicksFile:
        """The picks; a file that names no micrograph gets the one its list names."""
        file = read_picks(self.files[key])
        if key not in self.micrographs or not file.names_from_stem or not len(file.picks):
            return file
        picks = replace(file.picks, micrograph_names=(self.micrographs[key],))
        return replace(file, picks=picks, names_from_stem=False)

    def names(self) -> dict[Path, str]:
        """The name of every file and list. Raises OutputError for a name that occurs twice."""
        owner: dict[str, Path] = {}
        for key, path in self.paths_out.items():
            name = path.as_posix()
            other = owner.setdefault(name, key)
            if other != key:
                remedy = "give the folder that holds both, or prune them one after the other"
                raise OutputError(f"{other} and {key} would both be written as kept/{name}; {remedy}")
        return {key: name for name, key in owner.items()}

    def warnings(self) -> tuple[str, ...]:
        if not self.skipped:
            return ()
        paths = sorted(str(path) for path in set(self.skipped))
        shown = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
        return (f"{len(paths)} STAR files without coordinates are skipped: {shown}",)

    def _row_name(self, key: Path, path: Path, listed: str) -> PurePath:
        """Beside the list as in the input; elsewhere the path in the list, or just the name."""
        found = _key(path)
        if found.is_relative_to(key.parent):
            return self.paths_out[key].parent / found.relative_to(key.parent)
        outside = PurePath(listed).is_absolute() or ".." in PurePath(listed).parts
        return PurePath(path.name) if outside else PurePath(listed)

    def _rename(self, key: Path, name: PurePath) -> None:
        """Of two names for one file take the longer, so that the order of inputs means nothing."""
        other = self.paths_out.get(key, name)
        self.paths_out[key] = min(name, other, key=lambda p: (-len(p.parts), p.as_posix()))


def _key(path: Path) -> Path:
    """A file by its real folder; a link to a file is a file of its own."""
    return path.parent.resolve() / path.name


def _has_coordinates(path: Path) -> bool:
    try:
        return _COORDINATES.search(path.read_bytes()) is not None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _walk(folder: Path) -> Iterator[Path]:
    """The files in and under a folder, each folder once; links to folders (RELION's aliases) last."""
    todo, linked = [folder], list[Path]()
    seen: set[Path] = set()
    while todo or linked:
        here = todo.pop() if todo else linked.pop()
        if here.resolve() in seen:
            continue
        seen.add(here.resolve())
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            raise FormatError(f"{here}: cannot be read ({error.strerror}); mend its permissions") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                (linked if entry.is_symlink() else todo).append(Path(entry.path))
            elif entry.name.lower().endswith(ENDINGS) and entry.is_file():
                yield Path(entry.path)
