"""cryoSPARC's result groups (`.csg`): which `.cs` files hold the fields of one output.

A small YAML file; of its lines only these matter::

    results:
      blob:
        metafile: '>J12_particles_selected.cs'
        num_items: 4711
        type: particle.blob
      location:
        metafile: '>J12_passthrough_particles_selected.cs'
        num_items: 4711

`>` stands for the folder of the `.csg` itself. Source: files shown in public (cryoDRGN's issue 150,
lab protocols, tests of other programs); no YAML library is needed for them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pickeropt.errors import FormatError

_RESULTS = re.compile(rb"^results:[ \t]*\r?$", re.MULTILINE)
_METAFILE = re.compile(rb"^[ \t]+metafile:", re.MULTILINE)
_LINE = re.compile(rb"( *)([^\s:#][^:\n]*):[ \t]*([^\r\n]*)")
MOST_BYTES = 2**20


@dataclass(frozen=True)
class GroupEntry:
    """One result: where its rows are and how many.

    count_span : where the number stands in the file; None where it says none
    """

    metafile: str
    count: int | None
    count_span: tuple[int, int] | None


def is_csg(content: bytes) -> bool:
    """Whether the bytes are those of a result group."""
    head = content[:MOST_BYTES]
    return b"\0" not in head and bool(_RESULTS.search(head) and _METAFILE.search(head))


def read_group(path: Path, content: bytes) -> tuple[GroupEntry, ...]:
    """The results in the order of the file.

    Raises FormatError: a result without a metafile, a count that is no number, a metafile outside the
    folder of the group, no result at all, more than 1 MiB.
    """
    if len(content) > MOST_BYTES:
        raise FormatError(f"{path}: {len(content)} bytes are too many for a .csg file; export the group again")
    found = _RESULTS.search(content)
    entries: list[GroupEntry] = []
    values: dict[bytes, tuple[bytes, int]] = {}
    indent = -1
    position = found.end() + 1 if found else len(content)
    for line in content[position:].splitlines(keepends=True):
        match = _LINE.match(line)
        if match is not None:
            if not match[1]:
                break
            indent = len(match[1]) if indent < 0 else indent
            if len(match[1]) <= indent and values:
                entries.append(_entry(path, values))
                values = {}
            values[match[2]] = (match[3].rstrip(), position + match.start(3))
        position += len(line)
    if values:
        entries.append(_entry(path, values))
    if not entries:
        raise FormatError(f"{path}: no results; give a .csg file that cryoSPARC wrote")
    return tuple(entries)


def rewrite_counts(content: bytes, entries: tuple[GroupEntry, ...], counts: Mapping[str, int]) -> bytes:
    """The group with the counts of its metafiles replaced; every other byte stays."""
    parts, done = [], 0
    for entry in entries:
        if entry.count_span is not None:
            parts += [content[done : entry.count_span[0]], str(counts[entry.metafile]).encode()]
            done = entry.count_span[1]
    return b"".join([*parts, content[done:]])


def _entry(path: Path, values: Mapping[bytes, tuple[bytes, int]]) -> GroupEntry:
    if b"metafile" not in values:
        result = next(iter(values)).decode("utf-8", "replace")
        raise FormatError(f"{path}: {result} names no metafile; export the group again")
    name = _metafile(path, values[b"metafile"][0])
    if b"num_items" not in values:
        return GroupEntry(name, None, None)
    text, first = values[b"num_items"]
    if not re.fullmatch(rb"\d{1,18}", text):
        what = f"num_items is {text.decode('utf-8', 'replace')!r}, not a number"
        raise FormatError(f"{path}: {what}; export the group again")
    return GroupEntry(name, int(text), (first, first + len(text)))


def _metafile(path: Path, value: bytes) -> str:
    """The file's path under the folder of the group."""
    text = value.decode("utf-8", "replace")
    if len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]:
        text = text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]
    name = text.removeprefix(">")
    parts = PurePosixPath(name).parts
    plain = name.isprintable() and "\\" not in name and name[:1] not in ("'", '"')
    if not parts or not plain or PurePosixPath(name).is_absolute() or ".." in parts:
        what = f"the metafile {text!r} is no file beside the group"
        raise FormatError(f"{path}: {what}; export the group again, so that its .cs files lie beside it")
    return name
