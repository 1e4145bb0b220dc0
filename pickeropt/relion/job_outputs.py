"""RELION's nodes: what a job has made, and which versions of RELION call it what.

Sources: RELION pipeline_jobs.h and pipeliner.cpp (getOutputNodesFromStarFile) of 3.1, 4 and 5.
3.1 reads the column `_rlnPipeLineNodeType`, 4 and 5 read `_rlnPipeLineNodeTypeLabel`.

Where RELION's extraction looks for the coordinates of a micrograph.

RELION 3.0 and 3.1 take a folder and a suffix: the coordinates of `MotionCorr/job002/Movies/a.mrc`
are `FOLDER/Movies/a` + suffix, the folder and the suffix are the path of a `coords_suffix*` file,
and what that file holds is the path of the STAR file of micrographs. RELION 4 and 5 take a list,
`autopick.star`, and find the row by the exact name of the micrograph. One set of files serves both.

Sources: RELION preprocessing.cpp (getCoordinateFileName) and pipeliner.cpp
(decomposePipelineFileName).

The `logfile.pdf` of a job: what was kept, by score and by micrograph.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.lists import CoordinateList, read_coordinate_list, rewrite_coordinate_list, write_coordinate_list
from pickeropt.io.relion_star import below_job
from pickeropt.io.star import is_plain_token
from pickeropt.pruned_run import read_scores

COORDINATES, PARTICLES, LOGFILE = "coordinates", "particles", "logfile"

TYPES = {
    "3.1": {COORDINATES: "2", PARTICLES: "3", LOGFILE: "13"},
    "4": {
        COORDINATES: "MicrographsCoords.star.relion.autopick",
        PARTICLES: "ParticlesData.star.relion",
        LOGFILE: "LogFile.pdf.relion",
    },
    "5": {
        COORDINATES: "MicrographCoordsGroup.star.relion.autopick",
        PARTICLES: "ParticleGroupMetadata.star.relion",
        LOGFILE: "LogFile.pdf.relion",
    },
}
"""What each version of RELION calls a kind of node."""

PIPELINE = Path("default_pipeline.star")
"""RELION keeps it in the project folder and writes it anew with every job."""

_VERSION = re.compile(rb"^#[ \t]*version[ \t]+(\d+)", re.MULTILINE)
_LABELLED = re.compile(rb"^_rlnPipeLine(Node|Process)TypeLabel\b", re.MULTILINE)
_NUMBERED = re.compile(rb"^_rlnPipeLine(Node|Process)Type\b", re.MULTILINE)


def version_tag(content: bytes) -> int:
    """The number after ``# version``; 30000 where there is none, as RELION takes it."""
    found = _VERSION.search(content)
    return int(found[1]) if found else 30000


def relion_version(given: Path, is_list: bool, pipeline: Path = PIPELINE) -> str:
    """ "3.1", "4" or "5": which RELION has called.

    given : the coordinates or particles of the job; is_list : they are an `autopick.star`
    The project's pipeline knows it; a job outside a project is seen by its input: 5 writes
    version 50001, and lists of coordinate files are new in 4.
    """
    content = pipeline.read_bytes() if pipeline.is_file() else b""
    if version_tag(content) >= 50000:
        return "5"
    if _LABELLED.search(content):
        return "4"
    if _NUMBERED.search(content):
        return "3.1"
    if version_tag(given.read_bytes()) >= 50000:
        return "5"
    return "4" if is_list else "3.1"


def output_nodes(nodes: Sequence[tuple[str, str]], version: str) -> bytes:
    """`RELION_OUTPUT_NODES.star`: pairs of the file's path from the project folder and its kind."""
    column = "_rlnPipeLineNodeType" if version == "3.1" else "_rlnPipeLineNodeTypeLabel"
    rows = "".join(f"{name} {TYPES[version][kind]}\n" for name, kind in nodes)
    tag = 50001 if version == "5" else 30001
    header = f"# version {tag}\n\ndata_output_nodes\n\nloop_\n_rlnPipeLineNodeName #1\n{column} #2\n"
    return f"\n{header}{rows}\n".encode()


SUFFIX_FILE = "coords_suffix"
LIST = "autopick.star"
ROOT = "_autopick"
ENDINGS = (".star", ".box")
"""Coordinate files that RELION reads."""


def root_path(folder: str, micrograph: str) -> str:
    """The path of a micrograph's coordinates as RELION makes it, as far as the suffix.

    folder : with a slash at the end
    Raises FormatError for a name that leads out of the folder.
    """
    inside = PurePosixPath(below_job(micrograph))
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

    Raises FormatError for a name that needs quotes, which RELION cannot hold though STAR can.
    """
    for token in (token for row in rows for token in row):
        if not is_plain_token(token):
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


KEPT_COLOUR, REJECTED_COLOUR = "#0b6aa8", "#c2571a"
BINS = 50
NAMED = 40
"""So many micrographs at most are named under their bars."""


@dataclass(frozen=True)
class Outcome:
    """score, kept : (n,) of the picks; micrograph : (n,) int64 into names, in order of first mention"""

    score: NDArray[np.float64]
    kept: NDArray[np.bool_]
    micrograph: NDArray[np.int64]
    names: tuple[str, ...]


def read_outcome(scores_csv: Path) -> Outcome:
    """From `scores.csv` as `prune` wrote it. Raises FormatError as `read_scores` does."""
    table = read_scores(scores_csv, ("micrograph", "score", "kept"))
    return Outcome(table["score"], table["kept"], table["micrograph"].astype(np.int64), table.micrographs)


def log_pdf(outcome: Outcome, threshold: float) -> bytes:
    """A PDF of two pages: the histogram of P(particle) with the threshold; picks by micrograph."""
    buffer = BytesIO()
    with PdfPages(buffer, metadata={"CreationDate": None, "Producer": None, "Creator": "pickeropt"}) as pages:
        pages.savefig(_scores(outcome, threshold))
        pages.savefig(_micrographs(outcome))
    return buffer.getvalue()


def _scores(outcome: Outcome, threshold: float) -> Figure:
    figure = _page(0.12)
    axes = figure.add_subplot()
    edges = np.linspace(0, 1, BINS + 1)
    kept, every = (np.histogram(scores, edges)[0] for scores in (outcome.score[outcome.kept], outcome.score))
    number = int(outcome.kept.sum())
    axes.stairs(kept, edges, fill=True, color=KEPT_COLOUR, label=f"kept: {number:,}")
    label = f"rejected: {len(outcome.score) - number:,}"
    axes.stairs(every, edges, baseline=kept, fill=True, color=REJECTED_COLOUR, label=label)
    axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:g}")
    axes.set_xlim(0, 1)
    axes.set_xlabel("P(particle)")
    axes.set_ylabel("picks")
    axes.set_title(f"pickeropt: {len(outcome.score):,} picks")
    axes.legend(frameon=False)
    return figure


def _micrographs(outcome: Outcome) -> Figure:
    figure = _page(0.35 if len(outcome.names) <= NAMED else 0.12)
    axes = figure.add_subplot()
    count = len(outcome.names)
    kept = np.bincount(outcome.micrograph[outcome.kept], minlength=count)
    rejected = np.bincount(outcome.micrograph[~outcome.kept], minlength=count)
    edges = np.arange(count + 1) - 0.5
    axes.stairs(kept, edges, fill=True, color=KEPT_COLOUR, label="kept")
    axes.stairs(kept + rejected, edges, baseline=kept, fill=True, color=REJECTED_COLOUR, label="rejected")
    if count <= NAMED:
        axes.set_xticks(range(count), [Path(name).stem for name in outcome.names], rotation=90, fontsize=6)
    axes.set_xlabel("micrograph")
    axes.set_ylabel("picks")
    axes.set_title(f"{count:,} micrographs, {kept.mean():.1f} picks kept on each")
    axes.margins(y=0.2)
    axes.legend(frameon=False, ncols=2)
    return figure


def _page(bottom: float) -> Figure:
    figure = Figure(figsize=(8.27, 5.8))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.1, right=0.97, top=0.93, bottom=bottom)
    return figure
