"""An External job of RELION, from its command line to its output nodes.

The files by which RELION's pipeline and a job talk: how it ended, and whether to stop.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pickeropt import __version__
from pickeropt.errors import FormatError, OutputError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.inputs import SUMMARY
from pickeropt.io.lists import read_coordinate_list
from pickeropt.prune.prune_config import Finish, MicrographScorer, PruneConfig, PruneSummary, recorded_settings
from pickeropt.prune.pruning import prune
from pickeropt.prune.rethreshold import rethreshold
from pickeropt.pruned_run import KEPT, SCORES, read_summary
from pickeropt.records import OnCount
from pickeropt.relion.external_args import Coordinates, ExternalJob, read_coordinates
from pickeropt.relion.job_outputs import (
    COORDINATES,
    LIST,
    LOGFILE,
    PARTICLES,
    ROOT,
    SUFFIX_FILE,
    list_bytes,
    log_pdf,
    output_nodes,
    places,
    read_outcome,
    relion_version,
    suffix_ending,
    write_layout,
)

INPUT_LIST = "input_coordinates.star"
"""The coordinate files of a `coords_suffix*` input, as a list."""


@dataclass(frozen=True)
class Prepared:
    """A job whose inputs were found to fit.

    picks : what `prune` is given
    coordinates : None for a job on particles
    files : the coordinate files to write, from the project folder, one a row
    """

    job: ExternalJob
    version: str
    picks: Path
    coordinates: Coordinates | None
    files: tuple[str, ...]
    config: PruneConfig

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.coordinates.warnings if self.coordinates else ()


@dataclass(frozen=True)
class ExternalReport:
    """nodes : path from the project folder and kind, as RELION is told them"""

    summary: PruneSummary
    version: str
    nodes: tuple[tuple[str, str], ...]


def prepare(job: ExternalJob) -> Prepared:
    """Read the inputs as far as RELION's part of them goes; what `prune` needs it checks itself.

    Where the micrographs' STAR file has a pixel size, it counts: RELION goes by it alone.
    Raises FormatError as `read_coordinates` and `places` do; OutputError where what it would write is read.
    """
    given = job.coordinates or job.particles
    if given is None:
        raise ValueError("a job without picks")
    coordinates = read_coordinates(given, job.micrographs) if job.coordinates else None
    is_list = coordinates is not None and coordinates.is_list
    version = job.relion_version or relion_version(given, is_list)
    if coordinates is None:
        return Prepared(job, version, given, None, (), job.prune)
    micrographs, sources = zip(*coordinates.rows, strict=True) if coordinates.rows else ((), ())
    files = tuple(places(job.out, micrographs, sources))
    _check_not_read(files, sources)
    if version == "3.1" and not (coordinates.micrographs and suffix_ending(files)):
        what = "RELION 3.1 extracts from files of one ending, for micrographs that it is told"
        raise FormatError(f"{given}: {what}; give the input micrographs (--in_mics), or --relion_version 4 or 5")
    config = job.prune
    if config.pixel_size is None and coordinates.micrographs:
        config = replace(config, pixel_size=coordinates.micrographs.pixel_size)
    picks = given if is_list else job.folder / INPUT_LIST
    return Prepared(job, version, picks, coordinates, files, config)


def _check_not_read(files: Sequence[str], sources: Sequence[str]) -> None:
    read = {Path(source).resolve(): source for source in sources}
    for file in files:
        if source := read.get(Path(file).resolve()):
            what = f"{source}: is an input and would be the output, and inputs are never written to"
            raise OutputError(f"{what}; give --o a folder of its own, like External/job001/")


def run_external(
    prepared: Prepared,
    scorer: MicrographScorer,
    check_abort: Callable[[], None],
    on_progress: OnCount | None = None,
    finish: Finish | None = None,
) -> ExternalReport:
    """Prune, lay the kept picks out for RELION, and tell it of them.

    check_abort : called between micrographs; what it raises stops the run, which goes on
        from there when it is called again
    finish : as `prune` calls it
    Raises PickeroptError as `prune` does.
    """

    def between(done: int, total: int) -> None:
        if on_progress:
            on_progress(done, total)
        check_abort()

    job, coordinates = prepared.job, prepared.coordinates
    if coordinates and not coordinates.is_list:
        write_bytes_atomically(prepared.picks, list_bytes(coordinates.rows))
    summary = _finished_before(prepared, scorer, finish)
    if summary is None:
        summary = prune([prepared.picks], prepared.config, scorer, on_progress=between, finish=finish)
    kept = summary.out / KEPT / prepared.picks.name
    if coordinates:
        write_layout(job.out, read_coordinate_list(kept), prepared.files)
        suffix_file = _write_suffix_file(job.out, coordinates, prepared.files)
        node = suffix_file if prepared.version == "3.1" else f"{job.out}{LIST}"
        nodes = [(str(node), COORDINATES)]
    else:
        write_bytes_atomically(job.folder / "particles.star", kept.read_bytes())
        nodes = [(f"{job.out}particles.star", PARTICLES)]
    pdf = log_pdf(read_outcome(summary.out / SCORES), prepared.config.threshold)
    write_bytes_atomically(job.folder / "logfile.pdf", pdf)
    nodes.append((f"{job.out}logfile.pdf", LOGFILE))
    write_bytes_atomically(job.folder / "RELION_OUTPUT_NODES.star", output_nodes(nodes, prepared.version))
    return ExternalReport(summary, prepared.version, tuple(nodes))


MADE_BY = ("pickeropt", "model_digest", "diameter_angstrom")
"""What a summary says of the classifier that made it."""


def _finished_before(prepared: Prepared, scorer: MicrographScorer, finish: Finish | None) -> PruneSummary | None:
    """What a finished run of this job gives at the threshold of now, where nothing else has changed."""
    config = prepared.config
    try:
        content = read_summary(config.out)
        finished = (config.out / SUMMARY).stat().st_mtime
        told = json.loads(json.dumps(recorded_settings(config, scorer.config), default=str))
        before = {**content["settings"], "threshold": config.threshold}
        if [content[name] for name in MADE_BY] != [
            __version__,
            scorer.digest,
            scorer.diameter_angstrom,
        ] or before != told:
            return None
        given = [Path(content["folder"], path).resolve() for path in content["inputs"]]
        if given != [prepared.picks.resolve()]:
            return None
        names = read_outcome(config.out / SCORES).names
        if any(Path(name).stat().st_mtime > finished for name in names):
            return None
        return rethreshold(config.out, config.threshold, finish=finish)
    except (OSError, ValueError, LookupError, TypeError, OutputError, FormatError):
        return None  # not finished, or of other picks: prune says what is wrong, if anything is


def _write_suffix_file(out: str, coordinates: Coordinates, files: Sequence[str]) -> str | None:
    """The file that RELION 3.1 takes coordinates by; None where there can be none."""
    ending = suffix_ending(files)
    if not (ending and coordinates.micrographs):
        return None
    path = f"{out}{SUFFIX_FILE}{ROOT}{ending}"
    write_bytes_atomically(Path(path), coordinates.micrographs.path.as_posix().encode())
    return path


SUCCESS, FAILURE = "RELION_JOB_EXIT_SUCCESS", "RELION_JOB_EXIT_FAILURE"
ABORTED, ABORT_NOW = "RELION_JOB_EXIT_ABORTED", "RELION_JOB_ABORT_NOW"


class JobAbortedError(Exception):
    """The user has pressed Abort."""


@contextmanager
def job_control(folder: Path) -> Iterator[Callable[[], None]]:
    """Leave one exit file of RELION in the job folder, whatever happens.

    Yields a function to call now and then: it raises JobAbortedError where RELION asks to stop.
    JobAbortedError and Ctrl-C end as aborted, any other exception as a failure; all of them pass
    on. An order to stop that came while the job was queued counts, and one is used up.
    Raises OutputError where the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (SUCCESS, FAILURE, ABORTED):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}); give another --o") from error

    def check() -> None:
        if (folder / ABORT_NOW).exists():
            raise JobAbortedError

    ending = FAILURE
    try:
        check()
        yield check
        ending = SUCCESS
    except (JobAbortedError, KeyboardInterrupt):
        ending = ABORTED
        raise
    finally:
        (folder / ABORT_NOW).unlink(missing_ok=True)
        (folder / ending).touch()
