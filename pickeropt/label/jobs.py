"""Jobs of the page: one long job at a time, in a thread, with progress; fine-tuning and pruning from the session."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from pickeropt.errors import OutputError, PickeroptError
from pickeropt.files import partial_name
from pickeropt.label.gallery import PickResults
from pickeropt.label.label_store import digest, keep_copy
from pickeropt.label.session import Session
from pickeropt.prune.prune_config import Finish
from pickeropt.pruned_run import read_summary
from pickeropt.records import OnProgress

JobFunction = Callable[[OnProgress], str]
"""A job: reports its progress, returns one line that says the outcome."""


class Stopped(Exception):  # noqa: N818 - not an error: the user asked for it
    """Raised within a job, by its next report of progress, after it was stopped."""


@dataclass(frozen=True)
class JobStatus:
    """number : counts the jobs of this server, from 1
    kind : suggest, finetune or prune; state : running, done or failed
    error : one line where it failed; text : the outcome
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
        self._job: JobStatus | None = None
        self._thread: Thread | None = None
        self._stop = Event()
        self._lock = Lock()

    def start(self, kind: str, work: JobFunction) -> dict[str, Any]:
        """The job as it starts. Raises PickeroptError where another one is running."""
        with self._lock:
            if self._job is not None and self._job.state == "running":
                raise PickeroptError(f"{self._job.kind} is running; wait for it or stop it")
            self._stop.clear()
            begun = self._job = JobStatus(1 if self._job is None else self._job.number + 1, kind)
            self._thread = Thread(target=self._run, args=(work,), name=kind, daemon=True)
            self._thread.start()
            return asdict(begun)

    def state(self) -> dict[str, Any] | None:
        """The running job, else the last one; None where there was none."""
        job = self._job
        return None if job is None else asdict(job)

    def stop(self) -> None:
        """Request the job to end, at its next report of progress."""
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for the job; whether it has ended."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def _run(self, work: JobFunction) -> None:
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


class ModelJobs:
    """Fine-tunes and prunes. torch is imported by the first use.

    inputs : the files of picks, as the user gave them
    finish : the last step of a pruning, as `prune` calls it
    """

    def __init__(
        self, session: Session, results: PickResults, inputs: Sequence[Path], finish: Finish | None = None
    ) -> None:
        self._session, self._results, self._inputs, self._finish = session, results, inputs, finish
        self._own_model: bytes | None = None  # digest of the model that this session wrote

    def finetune(self, on_progress: OnProgress) -> str:
        """Fit a model to all labels and write it; one line with its quality.

        An existing model that this session did not write is kept under another name.
        Raises PickeroptError as `read_labelled_star` and `finetune` do.
        """
        on_progress("reading the labels", 0, 0)
        from pickeropt.finetune.finetune_config import FinetuneConfig
        from pickeropt.finetune.finetuning import finetune
        from pickeropt.shots import read_labelled_star

        config = self._session.config
        shots = read_labelled_star(config.out, self._folders())
        optics = (size for one in self._session.micrographs.entries for size in one.optics.values())
        settings = FinetuneConfig(
            diameter_angstrom=config.diameter_angstrom,
            pixel_size=config.pixel_size or next(optics, None),
            shots_per_class=None,
            device=config.device,
            trust_frame=True,  # the user has seen the labelled boxes
        )
        new = partial_name(config.model_file)
        report = finetune(shots, settings, new, overwrite=True, on_progress=on_progress)
        kept = self._publish(new)
        count = sum(report.train_shots.values()) + sum(report.validation_shots.values())
        quality = "" if report.macro_f1 is None else f", macro-F1 {report.macro_f1:.2f} on held-out labels"
        warnings = "".join(f"; {warning}" for warning in report.warnings)
        return f"{config.model_file} learnt from {count} labels{quality}{kept}{warnings}"

    def _publish(self, new: Path) -> str:
        """Move a new model to its place; a remark with the new name of a model that this session did not write."""
        model = self._session.config.model_file
        remark = ""
        try:
            if model.exists() and digest(model) != self._own_model:
                remark = f"; the earlier one is now {keep_copy(model)}"
            self._own_model = digest(new)
            new.replace(model)
        except OSError as error:
            raise OutputError(f"{model}: cannot be replaced ({error.strerror}); move it away") from error
        finally:
            new.unlink(missing_ok=True)
        return remark

    def prune(self, threshold: float, on_progress: OnProgress) -> str:
        """Prune all picks with the model, or the general one; one line with the outcome.

        Raises PickeroptError as `prune` does, OutputError for a folder of another model or other picks.
        """
        on_progress("starting the model", 0, 0)
        from pickeropt.prune.prune_config import PruneConfig
        from pickeropt.prune.pruning import prune
        from pickeropt.prune.scoring import load_scorer

        config = self._session.config
        model = config.model_file if config.model_file.is_file() else None
        self._check_own()
        scorer = load_scorer(model, config.device, None, config.diameter_angstrom if model is None else None)
        settings = PruneConfig(
            micrographs=config.micrographs,
            out=config.pruned,
            threshold=threshold,
            pixel_size=config.pixel_size,
            overwrite=True,
            trust_frame=config.trust_frame,
        )
        summary = prune(
            self._inputs,
            settings,
            scorer,
            on_progress=lambda done, of: on_progress("pruning", done, of),
            finish=self._finish,
        )
        on_progress("reading the scores", 0, 0)
        self._results.read_pruned(config.pruned)
        warnings = "".join(f"; {warning}" for warning in summary.warnings)
        return f"{summary.kept:,} of {summary.picks:,} picks kept, in {config.pruned}{warnings}"

    def threshold(self, threshold: float) -> dict[str, Any]:
        """Apply another threshold to the pruning. Raises PickeroptError where there is none, or not one of ours."""
        if self._results.pruned is None:
            raise PickeroptError("nothing was pruned yet; prune first")
        self._check_own()
        return self._results.rethreshold(self._session.config.pruned, threshold, self._finish)

    def read_earlier(self) -> None:
        """Read the pruning of an earlier session; one that does not fit these picks is ignored."""
        folder = self._session.config.pruned
        try:
            self._check_own()
            if folder.is_dir():
                self._results.read_pruned(folder)
        except PickeroptError:
            return

    def _check_own(self) -> None:
        """Raises OutputError for a pruning by neither this session's model nor the general one, or of other picks."""
        folder, model = self._session.config.pruned, self._session.config.model_file
        if not folder.exists():
            return
        try:
            summary = read_summary(folder)
            made_with = summary["settings"]["model"]
            of_these = self._results.is_of_these(summary)
        except (OutputError, KeyError, TypeError):
            made_with, of_these = "", False
        if made_with is not None and Path(made_with).resolve() != model.resolve():
            raise OutputError(f"{folder}: is there already, and is not of this model; move it away")
        if not of_these:
            raise OutputError(f"{folder}: is there already, and is not of these picks; move it away")

    def _folders(self) -> tuple[Path, ...]:
        """The folders of the micrographs: those given, and those where labelled ones were found."""
        session = self._session
        with session.lock:
            places = {session.store.place(key).micrograph for key in session.store.labels}
            paths = [session.micrographs.entries[place].path for place in sorted(places)]
        parents = dict.fromkeys(path.parent for path in paths if path is not None)
        return (*session.config.micrographs, *parents)
