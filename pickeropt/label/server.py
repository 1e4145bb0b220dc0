"""The server's state and actions: one session with its gallery, pictures and jobs, without HTTP."""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from pickeropt.errors import OutputError, PickeroptError
from pickeropt.label.active_learning import Suggester
from pickeropt.label.gallery import Gallery, GalleryQuery, PickResults, items
from pickeropt.label.jobs import Jobs, ModelJobs
from pickeropt.label.label_config import LabelConfig, check_config
from pickeropt.label.label_store import UNLABELLED, Box, describe_classes
from pickeropt.label.pictures import DisplaySettings, Pictures
from pickeropt.label.session import Loader, Session
from pickeropt.prune.prune_config import Finish

SHUTDOWN_SECONDS = 2.0
"""Seconds that a running job has to end when the server does."""
MAX_ANSWERS = 1000
"""Answers to the pages' actions that are kept, for pages that send an action again."""


class LabelServer:
    """Opens a session and begins to read the picks. Raises PickeroptError as `Session` and `Loader` do.

    finish : the last step of a pruning, as `prune` calls it
    """

    def __init__(self, inputs: Sequence[Path], config: LabelConfig, finish: Finish | None = None) -> None:
        check_config(config)
        if config.out.is_symlink():  # the file itself is locked and replaced, not the link
            config = replace(config, out=config.out.resolve())
        self.config = config
        self.name = secrets.token_hex(8)  # tells the page that the server was restarted
        self.session = Session(config)
        self.inputs = tuple(inputs)
        self.loader = Loader(self.session, inputs, lambda: self.model_jobs.read_earlier())
        self.gallery = Gallery(self.session.store)
        self.pictures = Pictures(self.session.micrographs, config.diameter_angstrom)
        self.results = PickResults(self.session, self.loader, self.gallery)
        self.jobs = Jobs()
        self.model_jobs = ModelJobs(self.session, self.results, self.inputs, finish)
        self._answers: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()
        self._acting = Lock()
        self.suggester = Suggester(self.session, self.results)
        try:
            _check_apart(self.inputs, config)
            self.loader.start()
            self._check_micrographs()
        except BaseException:
            self.loader.stop()
            self.session.close()
            raise

    def _check_micrographs(self) -> None:
        """Raises MicrographError where none is found so far, GeometryError for no pixel size."""
        micrographs = self.session.micrographs
        there = [i for i, site in enumerate(micrographs.entries) if site.path is not None]
        if there:
            micrographs.pixel_size(there[0])
        else:
            micrographs.path(0)

    def close(self, seconds: float = SHUTDOWN_SECONDS) -> bool:
        """Stop background work and unlock the labels; whether all has stopped.

        seconds : that a job and a refit each may take to end
        """
        self.loader.stop()
        self.jobs.stop()
        stopped = self.jobs.wait(seconds)
        stopped = self.suggester.wait(seconds) and stopped
        self.session.close()
        return stopped

    def problems(self) -> list[str]:
        """Warnings for the user, a line each."""
        found = list(self.loader.faults[:20])
        missing = [entry.name for entry in self.session.micrographs.entries if entry.path is None]
        if missing:
            shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            verb = "micrograph is" if len(missing) == 1 else "micrographs are"
            found.append(f"{len(missing)} {verb} missing: {shown}; give their folder with --micrographs")
        changed, copy = self.session.file.changed(), self.session.file.copy
        if copy is not None:
            found.append(f"{self.config.out} had other columns than labels; the original is kept as {copy}")
        return [*found, *([changed] if changed else [])]

    def classes(self) -> list[dict[str, object]]:
        store = self.session.store
        return describe_classes(store.class_names, store.counts())

    def counts(self) -> dict[str, int]:
        """Labels a class, by name, and `skip`."""
        store = self.session.store
        found = dict(zip(store.class_names, store.counts().tolist(), strict=True))
        return {**found, "skip": store.skipped()}

    def picks(self, query: GalleryQuery, offset: int, limit: int) -> dict[str, Any]:
        with self.session.lock:
            ids = self.gallery.ids(query)
            shown = ids[offset : offset + limit].tolist()
            names = [site.name for site in self.session.micrographs.entries]
            return {"total": len(ids), "items": items(self.session.store, shown, names)}

    def check_micrograph(self, index: int) -> None:
        """Raises PickeroptError for an unknown index."""
        if not 0 <= index < len(self.session.micrographs):
            raise PickeroptError(f"there is no micrograph {index}; load the page again")

    def place(self, key: int) -> Box:
        with self.session.lock:
            return self.session.store.place(key)

    def tile(self, index: int, tile: tuple[int, int, int], settings: DisplaySettings) -> bytes:
        self.check_micrograph(index)
        return self.pictures.tile(index, tile, settings)

    def once(self, browser: str, action: str, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The answer to a page's action; one that is sent again, because its answer was lost, is not repeated.

        action : its id, empty for one that is never sent again
        """
        with self._acting:
            answer = self._answers.get((browser, action))
            if answer is None:
                answer = act()
                if action:
                    self._answers[browser, action] = answer
                    while len(self._answers) > MAX_ANSWERS:
                        self._answers.popitem(last=False)
            return answer

    def label(self, labels: Sequence[tuple[int, str | None]], browser: str) -> dict[str, Any]:
        with self.session.lock:
            new = {key: self.session.store.index(name) for key, name in labels}
            self.session.set_labels(new, browser)
            answer = self._status()
        self.suggester.refit_soon(self._idle)
        return answer

    def add(self, box: Box, name: str, browser: str) -> dict[str, Any]:
        with self.session.lock:
            label = self.session.store.index(name)
            if label == UNLABELLED:
                raise PickeroptError("an added box needs a class")
            key, _ = self.session.add_box(box, label, browser)
            answer = {"id": key, **self._status()}
        self.suggester.refit_soon(self._idle)
        return answer

    def undo(self, browser: str) -> dict[str, Any]:
        with self.session.lock:
            action = self.session.undo(browser)
            return {**self._status(), "ids": [key for key, _, _ in action.changes]}

    def add_class(self, name: str) -> dict[str, Any]:
        with self.session.lock:
            self.session.store.add_class(name)
            return {"classes": self.classes()}

    def suggest(self, count: int) -> dict[str, Any]:
        return self.jobs.start("suggest", lambda on_progress: self.suggester.suggest(count, on_progress))

    def finetune(self) -> dict[str, Any]:
        return self.jobs.start("finetune", self.model_jobs.finetune)

    def prune(self, threshold: float) -> dict[str, Any]:
        if not self.loader.finished.is_set():
            raise PickeroptError("the picks are still being read; wait until they are")
        return self.jobs.start("prune", lambda on_progress: self.model_jobs.prune(threshold, on_progress))

    def threshold(self, threshold: float) -> dict[str, Any]:
        if not self._idle():
            raise PickeroptError("a job is running; wait for it or stop it")
        return self.model_jobs.threshold(threshold)

    def _idle(self) -> bool:
        job = self.jobs.state()
        return job is None or job["state"] != "running"

    def _status(self) -> dict[str, Any]:
        return {"revision": self.session.store.revision, "counts": self.counts()}


def _check_apart(inputs: Sequence[Path], config: LabelConfig) -> None:
    """Raises OutputError where the labels' file is in a folder of picks, or is a file of picks."""
    real = config.out.resolve()
    for path in inputs:
        if path.is_dir() and real.is_relative_to(path.resolve()):
            raise OutputError(f"{config.out}: is in the folder of picks {path}; give another --out")
        if path.exists() and path.resolve() == real:
            raise OutputError(f"{config.out}: is the file of picks itself; give another --out")
