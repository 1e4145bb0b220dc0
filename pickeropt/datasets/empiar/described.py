"""What EMPIAR itself says of an entry, for the facts that the manifest has not.

Its description is JSON: under the entry's name, `imagesets` with `directory` (below the entry), `category`,
`data_format` and `pixel_width`, Å. The form was read in two public programs that use it
(github.com/Dylan8527/CryoCRAB; scigantic-empiar of PyPI), not seen at EMPIAR.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pickeropt.datasets.empiar.download_plan import micrographs_here
from pickeropt.datasets.empiar.manifest import Entry, Said
from pickeropt.datasets.empiar.request import Patience, fetch_text
from pickeropt.errors import DownloadError

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
    entries: Sequence[Entry], said: Said, out: Path, url: str, patience: Patience = BRIEF
) -> tuple[Said, tuple[str, ...]]:
    """The user's values with EMPIAR's where no one else has any, and a line on each entry asked.

    out : micrographs that lie there already need no folder
    url : of the descriptions, EMPIAR-ACCESSION behind it
    An entry counts where one image set alone holds single-frame micrographs as MRC files, in the folder
    where that is known; else, and where EMPIAR cannot be asked, it stays as it is and the line says why.
    """
    sizes, folders, lines = dict(said.pixel_size), dict(said.folder), []
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
    return Said(sizes, said.diameter, folders), tuple(lines)


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
