"""The input files of picks: those that a user means, in folders and lists too, and the name each is written under."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from pickeropt.errors import FormatError, OutputError
from pickeropt.io.delimited import table_layout
from pickeropt.io.lists import (
    LIST_HEAD,
    CoordinateList,
    find_coordinate_file,
    is_coordinate_list,
    is_suffix_file,
    read_coordinate_list,
    read_suffix_file,
)
from pickeropt.io.picks import is_picks, read_picks
from pickeropt.io.picks_file import PicksFile
from pickeropt.io.relion_star import X
from pickeropt.io.text import read_content, read_start

ENDINGS = (".star", ".box", ".cbox", ".pos", ".txt", ".csv", ".json", ".cs", ".csg", ".pickle")
"""What is read of a folder."""


def check_name(path: Path) -> None:
    """Raises FormatError for a name that the tables we write cannot hold."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise FormatError(f"{path.name!r}: the file's name is not UTF-8; rename it") from None


def walk(folder: Path) -> Iterator[Path]:
    """The files in and under a folder, each folder once; links to folders (RELION's aliases) last.

    Raises FormatError for a folder that cannot be read, and for a link to nothing.
    """
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
            elif entry.name.lower().endswith(ENDINGS) and entry.is_symlink():
                raise FormatError(f"{entry.path}: is a link to nothing; mend the link, or remove it")


ONLY_PICKS = (".box", ".cbox", ".pos")
"""Files that hold nothing but picks: what cannot be read as that is a fault."""
SUMMARY = "summary.json"
"""What pickeropt leaves in its folders; it holds no picks."""
TABLES = (".txt", ".csv")
"""Rows of bare numbers in these are no EMAN boxes unless the file itself is given: programs log so."""

_COORDINATES = re.compile(rb"^\s*(?:" + X.encode() + rb"|_CoordinateX|_xcoor)\b", re.MULTILINE)
_CS_COORDINATES = b"location/center_x_frac"
CS_HEADER = 2**17
"""Bytes in which the names of a `.cs` file's fields stand."""


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


def read_inputs(inputs: Sequence[Path], empty: bool = False) -> Inputs:
    """Read files, lists of files, and folders with all folders under them.

    A file keeps its path under the folder that was given, else its own name; one that is
    reached twice counts once, and one that is another's companion goes with that. In a folder a STAR
    file without coordinates is skipped with a warning, and so is a table, a JSON file or a `.cs`
    without picks.

    empty : files without picks will do
    Raises FormatError for what cannot be read and where there are no picks,
    OutputError where two files would be written under one name.
    """
    found, targets = find_files(inputs, keep=True)
    names = found.names()
    read = {key: found.read(key) for key in found.files}
    inside = {_key(companion.path) for file in read.values() for companion in file.companions}
    sources = [Source(file, names[key]) for key, file in read.items() if key not in inside]
    _check_companions(sources)
    lists = [
        ListSource(listed, names[key], tuple(names[row] for row in targets[key])) for key, listed in found.lists.items()
    ]
    if not empty and not any(len(source.file.picks) for source in sources):
        files = "the file has" if len(sources) == 1 else f"the {len(sources)} files have"
        raise FormatError(f"{sources[0].file.path}: {files} no picks; give files that have rows")
    sources.sort(key=lambda source: source.name)
    lists.sort(key=lambda source: source.name)
    return Inputs(tuple(sources), tuple(lists), found.warnings())


def find_files(inputs: Sequence[Path], keep: bool = False) -> "tuple[FoundFiles, dict[Path, list[Path]]]":
    """The files that `read_inputs` reads, and those of each list's rows.

    keep : what is read of them to tell lists from picks is kept, so that each file is opened once; it is all
        of the file then, else its start
    """
    found = FoundFiles(keep)
    for path in inputs:
        if path.is_dir():
            found.add_folder(path)
        else:
            found.add(path, PurePath(path.name))
    targets = {key: found.add_list_rows(key) for key in sorted(found.lists)}
    if not found.files:
        given = ", ".join(str(path) for path in inputs) or "nothing"
        raise FormatError(f"{given}: no files of picks; give files that a picker wrote, or a folder of them")
    return found, targets


@dataclass
class FoundFiles:
    """Files by real folder and name, so that a file reached by two ways is one.

    contents : of files that are not parsed yet, with `keep`
    """

    keep: bool = False
    contents: dict[Path, bytes] = field(default_factory=dict)
    files: dict[Path, Path] = field(default_factory=dict)
    lists: dict[Path, CoordinateList] = field(default_factory=dict)
    paths_out: dict[Path, PurePath] = field(default_factory=dict)
    micrographs: dict[Path, str] = field(default_factory=dict)
    skipped: list[Path] = field(default_factory=list)

    def add(self, path: Path, name: PurePath, content: bytes | None = None) -> Path:
        check_name(path)
        key = _key(path)
        if key not in self.lists and key not in self.files:
            self._take(key, path, read_start(path, -1 if self.keep else LIST_HEAD) if content is None else content)
        self._rename(key, name)
        return key

    def _take(self, key: Path, path: Path, content: bytes) -> None:
        """A new file, as a list or as picks."""
        whole = content if self.keep else None
        if is_suffix_file(path, content):
            self.lists[key] = read_suffix_file(path, whole)
        elif is_coordinate_list(path, content):
            self.lists[key] = read_coordinate_list(path, whole)
        else:
            self.files[key] = path
            if whole is not None:
                self.contents[key] = whole

    def add_folder(self, folder: Path) -> None:
        for path in walk(folder):
            only_picks = path.suffix.lower() in ONLY_PICKS
            content = None if only_picks else self.contents.get(_key(path)) or read_content(path)
            if content is None or _holds_picks(path, content):
                self.add(path, path.relative_to(folder), content)
            elif path.name != SUMMARY:
                self.skipped.append(path)

    def add_list_rows(self, key: Path) -> list[Path]:
        """The coordinate files of a list, one a row."""
        listed = self.lists[key]
        rows = []
        for row, micrograph in enumerate(listed.micrograph_names):
            path = find_coordinate_file(listed, row)
            found = self.add(path, self._row_name(key, path, listed.coordinate_paths[row]))
            if found in self.lists:
                raise FormatError(f"{listed.path}: names {path}, a list itself; give that list instead")
            other = self.micrographs.setdefault(found, micrograph)
            if other != micrograph:
                what = f"{path} belongs to {other} in one row and to {micrograph} in another"
                raise FormatError(f"{listed.path}: {what}; remove the wrong row")
            rows.append(found)
        return rows

    def read(self, key: Path) -> PicksFile:
        """The picks of a file."""
        return self.named(key, read_picks(self.files[key], self.contents.pop(key, None)))

    def named(self, key: Path, file: PicksFile) -> PicksFile:
        """A file that names no micrograph gets the one its list names."""
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
        paths = sorted({str(path) for path in self.skipped})
        stars = [path for path in paths if path.lower().endswith(".star")]
        others = [path for path in paths if not path.lower().endswith(".star")]
        kinds = (("STAR files without coordinates", stars), ("files that hold no picks", others))
        return tuple(
            f"{len(found)} {kind} are skipped: {', '.join(found[:3])}{', ...' * (len(found) > 3)}"
            for kind, found in kinds
            if found
        )

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


def _check_companions(sources: Sequence[Source]) -> None:
    """Raises OutputError where a companion would be written under the name of another file."""
    owner = {source.name: source.file.path for source in sources}
    for source in sources:
        for companion in source.file.companions:
            name = (PurePath(source.name).parent / companion.name).as_posix()
            other = owner.setdefault(name, companion.path)
            if len(source.file.picks) and other is not companion.path:
                what = f"{companion.path} of {source.file.path} and {other} would both be kept/{name}"
                raise OutputError(f"{what}; prune them one after the other")


def _holds_picks(path: Path, content: bytes) -> bool:
    """Whether a file found in a folder is meant: a list, or picks of any format."""
    ending = path.suffix.lower()
    if ending == ".star":
        is_list = is_suffix_file(path, content) or is_coordinate_list(path, content)
        return is_list or _COORDINATES.search(content) is not None
    if ending == ".cs" and _CS_COORDINATES not in content[:CS_HEADER]:
        return _has_passthrough(path, content)
    if ending in TABLES:
        return table_layout(content) is not None or _COORDINATES.search(content) is not None
    return is_picks(content)


def _has_passthrough(path: Path, content: bytes) -> bool:
    """Whether a `.cs` without coordinates can be read as picks for all that."""
    try:
        read_picks(path, content)
    except FormatError:
        return False
    return True
