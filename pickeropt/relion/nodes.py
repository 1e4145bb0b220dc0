"""RELION's nodes: what a job has made, and which versions of RELION call it what.

Sources: RELION pipeline_jobs.h and pipeliner.cpp (getOutputNodesFromStarFile) of 3.1, 4 and 5.
3.1 reads the column `_rlnPipeLineNodeType`, 4 and 5 read `_rlnPipeLineNodeTypeLabel`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

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
