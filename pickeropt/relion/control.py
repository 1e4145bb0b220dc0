"""The files by which RELION's pipeline and a job talk: how it ended, and whether to stop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pickeropt.errors import OutputError

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
