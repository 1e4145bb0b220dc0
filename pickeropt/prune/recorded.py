"""Which files a run read, as `summary.json` keeps it: enough to write its outputs again."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pickeropt.errors import OutputError
from pickeropt.io.inputs import Inputs, ListSource, Source
from pickeropt.io.lists import is_suffix_file, read_coordinate_list, read_suffix_file
from pickeropt.io.picks import read_picks
from pickeropt.io.picks_file import PicksFile

if TYPE_CHECKING:
    from pickeropt.prune.plan import Plan

FILES, LISTS, PLACES = "files", "lists", "places"


def record(inputs: "Plan") -> dict[str, Any]:
    """Name, path and sha256 of each file of picks and each list; path and Å/px of each micrograph."""
    files = [
        {"name": source.name, **_place(source.file.path, _contents(source.file))} for source in inputs.sources
    ]
    lists = [
        {
            "name": listed.name,
            **_place(listed.coordinates.path, [listed.coordinates.content]),
            "targets": list(listed.targets),
        }
        for listed in inputs.lists
    ]
    places = {task.name: [str(task.path), float(task.pixel_size)] for task in inputs.tasks}
    return {FILES: files, **({LISTS: lists} if lists else {}), PLACES: places}


def read_recorded(summary: Mapping[str, Any]) -> Inputs:
    """The inputs of a run, read again.

    Raises OutputError for a summary that has none, and for a file that is gone or has changed;
    FormatError as `read_picks` does.
    """
    try:
        files = [(Path(entry["path"]), str(entry["name"]), entry["sha256"]) for entry in summary[FILES]]
        lists = [
            (Path(entry["path"]), str(entry["name"]), entry["sha256"], tuple(map(str, entry["targets"])))
            for entry in summary.get(LISTS, ())
        ]
    except (KeyError, TypeError) as error:
        what = "summary.json does not say which files the run read; it is of an earlier pickeropt, or changed"
        raise OutputError(f"{what}: prune once more") from error
    _check_there([*(entry[0] for entry in files), *(entry[0] for entry in lists)])
    sources = []
    for path, name, digest in files:
        file = read_picks(path)
        _check_same(path, _digest(_contents(file)), digest)
        sources.append(Source(file, name))
    listed = []
    for path, name, digest, targets in lists:
        coordinates = read_suffix_file(path) if is_suffix_file(path) else read_coordinate_list(path)
        _check_same(path, _digest([coordinates.content]), digest)
        listed.append(ListSource(coordinates, name, targets))
    return Inputs(tuple(sources), tuple(listed), ())


def _place(path: Path, contents: Sequence[bytes]) -> dict[str, str]:
    return {"path": str(path.absolute()), "sha256": _digest(contents)}


def _contents(file: PicksFile) -> list[bytes]:
    """The bytes of a file of picks, and of those that go with it."""
    return [file.content, *(companion.path.read_bytes() for companion in file.companions)]


def _digest(contents: Sequence[bytes]) -> str:
    """sha256 of the bytes of one file, or of several one after the other."""
    found = hashlib.sha256()
    for content in contents:
        found.update(content)
    return found.hexdigest()


def _check_there(paths: Sequence[Path]) -> None:
    gone = [str(path) for path in paths if not path.is_file()]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise OutputError(
            f"{gone[0]}{more}: the run read it, but it is gone; put it back, or prune once more"
        )


def _check_same(path: Path, found: str, recorded: object) -> None:
    if found != recorded:
        raise OutputError(f"{path}: has changed since the run read it; prune once more")
