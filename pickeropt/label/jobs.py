"""One long job at a time, in a thread, with progress; it can be stopped."""

import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from threading import Event, Lock, Thread
from typing import Any

from pickeropt.errors import PickeroptError

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""
Work = Callable[[OnProgress], str]
"""A job: reports its progress, returns a line on what came of it."""


class Stopped(Exception):  # noqa: N818 - no error: the user wanted it
    """Raised within a job, by its next report of progress, after it was stopped."""


@dataclass(frozen=True)
class Job:
    """number : of the jobs of this server, from 1 on
    kind : suggest, finetune or prune; state : running, done or failed
    error : one line where it failed; text : what came of it
    """

    number: int
    kind: str
    what: str = "starting"
    done: int = 0
    total: int = 0
    state: str = "running"
    error: str | None = None
    text: str | None = None


class Jobs:
    """Runs jobs, one after the other."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._thread: Thread | None = None
        self._stop = Event()
        self._lock = Lock()

    def start(self, kind: str, work: Work) -> dict[str, Any]:
        """The job as it starts. Raises PickeroptError where another one is running."""
        with self._lock:
            if self._job is not None and self._job.state == "running":
                raise PickeroptError(f"{self._job.kind} is running; wait for it, or stop it")
            self._stop.clear()
            begun = self._job = Job(1 if self._job is None else self._job.number + 1, kind)
            self._thread = Thread(target=self._run, args=(work,), name=kind, daemon=True)
            self._thread.start()
            return asdict(begun)

    def state(self) -> dict[str, Any] | None:
        """The running job, else the last one; None where there was none."""
        job = self._job
        return None if job is None else asdict(job)

    def stop(self) -> None:
        """Ask the job to end; it does so at its next report of progress."""
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Until the job has ended, or so long; whether it has."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def _run(self, work: Work) -> None:
        try:
            text = work(self._on_progress)
        except Stopped:
            self._set(state="failed", error="stopped")
        except PickeroptError as error:
            self._set(state="failed", error=" ".join(str(error).splitlines()))
        except Exception as error:  # shown to the user; the traceback is for us
            traceback.print_exc()
            self._set(state="failed", error=f"{type(error).__name__}: {error}; this is a fault of pickeropt")
        else:
            self._set(state="done", text=text)

    def _on_progress(self, what: str, done: int, total: int) -> None:
        if self._stop.is_set():
            raise Stopped
        self._set(what=what, done=done, total=total)

    def _set(self, **changes: Any) -> None:
        assert self._job is not None
        self._job = replace(self._job, **changes)
