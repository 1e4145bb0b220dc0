"""Where RELION's extraction looks for the coordinates of a micrograph.

RELION 3.0 and 3.1 take a folder and a suffix: the coordinates of `MotionCorr/job002/Movies/a.mrc`
are `FOLDER/Movies/a` + suffix, the folder and the suffix are the path of a `coords_suffix*` file,
and what that file holds is the path of the STAR file of micrographs. RELION 4 and 5 take a list,
`autopick.star`, and find the row by the exact name of the micrograph. One set of files serves both.

Sources: RELION preprocessing.cpp (getCoordinateFileName) and pipeliner.cpp
(decomposePipelineFileName).
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pickeropt.errors import FormatError
from pickeropt.io.lists import (
    CoordinateList,
    read_coordinate_list,
    rewrite_coordinate_list,
    write_coordinate_list,
)
from pickeropt.io.tables import write_bytes_atomically

SUFFIX_FILE = "coords_suffix"
LIST = "autopick.star"
ROOT = "_autopick"
ENDINGS = (".star", ".box")
"""Coordinate files that RELION reads."""

_JOB = re.compile(r"^.+?/job\d{3}[^/]*/")


def root_path(folder: str, micrograph: str) -> str:
    """The path of a micrograph's coordinates as RELION makes it, as far as the suffix.

    folder : with a slash at the end
    Raises FormatError for a name that leads out of the folder.
    """
    inside = PurePosixPath(_JOB.sub("", micrograph, count=1).lstrip("/"))
    if ".." in inside.parts or not inside.name:
        what = f"the micrograph {micrograph!r} lies outside the project, so that its coordinates would lie"
        raise FormatError(f"{what} outside the job as well; link it into the project and import it there")
    return f"{folder}{inside.with_suffix('')}"


def places(out: str, micrographs: Sequence[str], files: Sequence[str]) -> list[str]:
    """Where in the job folder the coordinates of each micrograph go.

    out : the job folder, with a slash at the end
    files : their coordinate files as they came; their endings say the format
    Raises FormatError for a format that RELION's extraction does not read, and where two
    rows would have one file.
    """
    owner: dict[str, str] = {}
    for micrograph, file in zip(micrographs, files, strict=True):
        ending = PurePosixPath(file).suffix.lower()
        if ending not in ENDINGS:
            remedy = "make it one with `pickeropt convert`"
            raise FormatError(f"{file}: RELION extracts from {' and '.join(ENDINGS)} files only; {remedy}")
        place = f"{root_path(out, micrograph)}{ROOT}{ending}"
        if owner.get(place) == micrograph:
            raise FormatError(f"the micrograph {micrograph} is listed twice; remove one of its rows")
        if place in owner:
            what = f"the coordinates of {owner[place]} and {micrograph} would both be {place}"
            raise FormatError(f"{what}; prune them in two jobs")
        owner[place] = micrograph
    return list(owner)


def suffix_ending(files: Sequence[str]) -> str | None:
    """The one ending of all files, which RELION 3.1 needs; None where they differ."""
    endings = {PurePosixPath(file).suffix for file in files}
    return endings.pop() if len(endings) == 1 else None


def list_bytes(rows: Sequence[tuple[str, str]]) -> bytes:
    """A list of micrographs and their coordinate files.

    Raises FormatError for a name with blanks, which RELION cannot hold though STAR can.
    """
    for token in (token for row in rows for token in row):
        if any(c.isspace() for c in token) or token[:1] in ("#", "_", "'", '"', ""):
            raise FormatError(f"{token!r} cannot stand in a STAR file of RELION; rename it")
    return write_coordinate_list([name for name, _ in rows], [file for _, file in rows])


def write_layout(out: str, kept: CoordinateList, files: Sequence[str]) -> None:
    """The pruned coordinate files, and the list of them; what an earlier run listed and this does not goes.

    kept : the list as `prune` wrote it
    files : of `places`, in the order of its rows
    """
    listed = Path(out) / LIST
    if listed.is_file():
        for path in {*read_coordinate_list(listed).coordinate_paths} - {*files}:
            if path.startswith(out):
                Path(path).unlink(missing_ok=True)
    for source, file in zip(kept.coordinate_paths, files, strict=True):
        write_bytes_atomically(Path(file), Path(source).read_bytes())
    write_bytes_atomically(listed, rewrite_coordinate_list(kept, files))
