"""The files of picks in and under a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from pickeropt.errors import FormatError

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
