"""Suggestions: the few-shot model refitted to the labels so far, and which boxes to label next."""

import time
from collections.abc import Callable
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from pickeropt.label.active_learning import FeaturePool, labels_of
from pickeropt.label.jobs import OnProgress
from pickeropt.label.results import Results
from pickeropt.label.session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pickeropt.classifier import PickClassifier

HANDFUL = 5
"""New labels after which the model is fitted again, once there is one."""


class Adviser:
    """Fits the few-shot model and chooses what to label next. torch is imported by the first use."""

    def __init__(self, session: Session, results: Results) -> None:
        self._session, self._results = session, results
        self._pool = FeaturePool(session)
        self._classifier: PickClassifier | None = None
        self._names: tuple[str, ...] = ()
        self._busy = Lock()
        self._seen = 0
        self._presses = 0
        self._thread: Thread | None = None

    def suggest(self, count: int, on_progress: OnProgress) -> str:
        """Look at more micrographs where labels are, refit, and choose; a line on what came of it.

        Raises PickeroptError as `FeaturePool.describe` does.
        """
        on_progress("starting the model", 0, 0)
        with self._busy:
            self._presses += 1
            classifier = self._make()
            self._pool.describe(classifier, lambda done, of: on_progress("looking at micrographs", done, of))
            on_progress("fitting the labels so far", 0, 0)
            probabilities, labels = self._fit(classifier)
            on_progress("choosing", 0, 0)
            found = self._choose(probabilities, labels, count)
        self._results.suggest(found)
        return f"{len(found)} boxes to label next" if found else "every box that was looked at has a label"

    def refit_soon(self, idle: Callable[[], bool]) -> None:
        """Fit again in the background after a handful of labels, where there is a model already.

        idle : whether nothing else is running
        """
        given = len(self._session.store.labels)
        if self._classifier is None or abs(given - self._seen) < HANDFUL or not idle() or self._busy.locked():
            return
        self._seen = given
        self._thread = Thread(target=self._refit, name="refit", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Until the refit in the background has ended, or so long; whether it has."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def _refit(self) -> None:
        if not self._busy.acquire(blocking=False):
            return
        try:
            if self._names == tuple(self._session.store.class_names):
                assert self._classifier is not None
                self._fit(self._classifier)
        finally:
            self._busy.release()

    def _make(self) -> "PickClassifier":
        """The classifier of the classes as they are now; features do not depend on them."""
        from pickeropt.label.refit import fewshot_classifier

        names = tuple(self._session.store.class_names)
        if self._classifier is None or names != self._names:
            self._classifier = fewshot_classifier(self._session.config.diameter_angstrom, names)
            self._names = names
        return self._classifier

    def _fit(self, classifier: "PickClassifier") -> "tuple[NDArray[np.float64], NDArray[np.int64]]":
        """(n, k) probabilities and (n,) labels of the pool; estimate and guesses go to the results."""
        from pickeropt.label.refit import refit
        from pickeropt.label.suggestions import estimate

        begun = time.perf_counter()
        ids, groups, _, _ = self._pool.rows()
        features = self._pool.features()
        labels = labels_of(self._session, ids)
        self._seen = len(self._session.store.labels)
        now = estimate(classifier, features, labels, groups, seed=0)
        probabilities = refit(classifier, features, labels, groups, seed=0)
        said: dict[str, Any] = {
            "labels": int((labels >= 0).sum()),
            "seconds": round(time.perf_counter() - begun, 2),
            "estimate": {
                "macro_f1": now.macro_f1,
                "low": now.low,
                "high": now.high,
                "shots": now.shots,
                "enough": now.enough,
                "text": now.text,
            },
        }
        self._results.guess(ids, self._names, probabilities, said)
        return probabilities, labels

    def _choose(
        self, probabilities: "NDArray[np.float64]", labels: "NDArray[np.int64]", count: int
    ) -> list[int]:
        from pickeropt.label.suggest import Pool, suggest

        ids, groups, xy, merit = self._pool.rows()
        pool = Pool(self._pool.features(), xy, groups, merit)
        rows = suggest(
            pool, probabilities, labels, radius_px=self._pool.diameter_px, count=count, seed=self._presses
        )
        found: list[int] = ids[rows].tolist()
        return found
