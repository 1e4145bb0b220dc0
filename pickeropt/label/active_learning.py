"""Active learning: the features of a pool of picks, a few-shot model refitted to the labels, and the picks to label
next."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import MicrographError, PickeroptError
from pickeropt.io.micrographs import read_micrograph
from pickeropt.label.gallery import PickResults
from pickeropt.label.jobs import OnProgress
from pickeropt.label.label_store import UNLABELLED
from pickeropt.label.session import Session

if TYPE_CHECKING:
    from torch import Tensor

    from pickeropt.models.backbone import Backbone
    from pickeropt.models.classifier import PickClassifier

FIRST_MICROGRAPHS, MORE_MICROGRAPHS, MAX_MICROGRAPHS = 8, 2, 24
"""Micrographs, spread evenly over all, in the pool of the first suggestions; added at each later request; at most."""
MAX_LABELLED = 40
"""Micrographs with labels in the pool, those with most labels first."""
MAX_PICKS = 10_000
"""Unlabelled picks in the pool."""
REFIT_AFTER = 5
"""New labels after which an existing model is fitted again."""


@dataclass
class MicrographFeatures:
    """m picks of one micrograph: ids, x and y px, the picker's scores, features (m, d)."""

    ids: NDArray[np.int64]
    xy: NDArray[np.float64]
    merit: NDArray[np.float64]
    features: "Tensor"


class FeaturePool:
    """Features by micrograph. Used by one job at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._parts: dict[int, MicrographFeatures] = {}
        self._diameters: dict[int, float] = {}
        self._rounds = 0

    def __len__(self) -> int:
        return sum(len(part.ids) for part in self._parts.values())

    @property
    def diameter_px(self) -> float:
        """The mean over the pool's micrographs."""
        return float(np.mean(list(self._diameters.values())))

    def extend(self, classifier: "PickClassifier", on_progress: Callable[[int, int], None]) -> None:
        """Compute the features that the next suggestions need.

        Raises MicrographError where no micrograph can be used, GeometryError for a pixel size that is unknown.
        """
        from pickeropt.models.backbone import inference_copy
        from pickeropt.models.fitting import choose_device, inference_dtype

        todo = self._missing()
        device = choose_device(self._session.config.device)
        fault: PickeroptError | None = None
        if todo:
            backbone = inference_copy(classifier.backbone, device, inference_dtype(device))
        for done, (index, ids) in enumerate(todo):
            on_progress(done, len(todo))
            try:
                self._add(classifier, backbone, index, ids)
            except MicrographError as error:
                fault = error
        self._rounds += 1
        if not self._parts:
            raise fault or MicrographError("there are no picks to suggest; are the files of picks empty?")

    def rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Of the n picks of the pool: ids, micrographs, (n, 2) x and y, and the picker's scores."""
        parts = self._parts.values()
        return (
            np.concatenate([part.ids for part in parts]),
            np.repeat(list(self._parts), [len(part.ids) for part in parts]).astype(np.int64),
            np.concatenate([part.xy for part in parts]),
            np.concatenate([part.merit for part in parts]),
        )

    def features(self) -> "Tensor":
        """(n, d) float32, in the order of `rows`."""
        import torch

        return torch.cat([part.features for part in self._parts.values()])

    def _missing(self) -> list[tuple[int, NDArray[np.int64]]]:
        """The pool's micrographs, each with the ids of its picks whose features are not computed yet."""
        session, missing = self._session, []
        with session.lock:
            columns = session.table.columns
            labelled = self._labelled()
            chosen = sorted(labelled, key=lambda index: -len(labelled[index]))[:MAX_LABELLED]
            chosen += [index for index in self._spread() if index not in labelled]
            each = max(50, MAX_PICKS // max(len(chosen), 1))
            for index in dict.fromkeys([*chosen, *self._parts]):
                ids = np.array(labelled.get(index, []), dtype=np.int64)
                if index in self._parts:
                    ids = np.setdiff1d(ids, self._parts[index].ids)
                else:
                    rows = np.flatnonzero(columns.micrograph == index)
                    if len(rows) > each:
                        rows = np.random.default_rng(index).choice(rows, each, replace=False)
                    ids = np.union1d(ids, rows)
                if len(ids):
                    missing.append((index, ids))
        return missing

    def _labelled(self) -> dict[int, list[int]]:
        """By micrograph, the ids that have a label."""
        store = self._session.store
        found: dict[int, list[int]] = {}
        for key, label in store.labels.items():
            index = store.place(key).micrograph
            if label >= 0 and self._session.micrographs.entries[index].path is not None:
                found.setdefault(index, []).append(key)
        return found

    def _spread(self) -> list[int]:
        """Micrographs with picks, evenly spread over all; those of the pool stay among them."""
        micrographs = self._session.micrographs
        counts = np.bincount(self._session.table.columns.micrograph, minlength=len(micrographs))
        usable = [i for i in np.flatnonzero(counts).tolist() if micrographs.entries[i].path is not None]
        old = [index for index in usable if index in self._parts]
        new = [index for index in usable if index not in self._parts]
        count = min(FIRST_MICROGRAPHS + MORE_MICROGRAPHS * self._rounds, MAX_MICROGRAPHS, len(usable))
        more = min(max(0, count - len(old)), len(new))
        places = (np.arange(more) + 0.5) * len(new) / max(1, more)
        return [*old, *(new[int(place)] for place in places)]

    def _add(self, classifier: "PickClassifier", backbone: "Backbone", index: int, ids: NDArray[np.int64]) -> None:
        import torch

        from pickeropt.models.features import describe_micrograph

        session = self._session
        with session.lock:
            boxes = [session.store.place(key) for key in ids.tolist()]
            columns = session.table.columns
            merit = np.array([columns.merit[k] if k < len(columns) else np.nan for k in ids.tolist()])
        xy = np.array([(box.x, box.y) for box in boxes]).reshape(-1, 2)
        micrograph = read_micrograph(session.micrographs.path(index))
        self._diameters[index] = session.config.diameter_angstrom / session.micrographs.pixel_size(index)
        features = describe_micrograph(backbone, classifier.spec, micrograph.pixels, self._diameters[index], xy)
        old = self._parts.get(index)
        if old is not None:
            ids, xy = np.concatenate([old.ids, ids]), np.concatenate([old.xy, xy])
            merit, features = np.concatenate([old.merit, merit]), torch.cat([old.features, features])
        self._parts[index] = MicrographFeatures(ids, xy, merit.astype(np.float64), features)


class Suggester:
    """Fits the few-shot model and chooses what to label next. torch is imported on first use."""

    def __init__(self, session: Session, results: PickResults) -> None:
        self._session, self._results = session, results
        self._pool = FeaturePool(session)
        self._classifier: PickClassifier | None = None
        self._names: tuple[str, ...] = ()
        self._busy = Lock()
        self._labels_fitted = 0
        self._requests = 0
        self._thread: Thread | None = None

    def suggest(self, count: int, on_progress: OnProgress) -> str:
        """Extend the pool to the micrographs with labels, refit, and choose; one line that says the outcome.

        Raises PickeroptError as `FeaturePool.extend` does.
        """
        on_progress("starting the model", 0, 0)
        with self._busy:
            self._requests += 1
            classifier = self._current_classifier()
            self._pool.extend(classifier, lambda done, of: on_progress("computing features of micrographs", done, of))
            on_progress("fitting the labels so far", 0, 0)
            probabilities, labels = self._fit(classifier)
            on_progress("choosing", 0, 0)
            chosen = self._choose(probabilities, labels, count)
        self._results.suggest(chosen)
        return f"{len(chosen)} boxes to label next" if chosen else "every box in the pool has a label"

    def refit_soon(self, idle: Callable[[], bool]) -> None:
        """Refit in the background where there is a model, `REFIT_AFTER` labels are new, and nothing else runs."""
        given = len(self._session.store.labels)
        few = abs(given - self._labels_fitted) < REFIT_AFTER
        if self._classifier is None or few or not idle() or self._busy.locked():
            return
        self._labels_fitted = given
        self._thread = Thread(target=self._refit, name="refit", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for the refit in the background; whether it has ended."""
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

    def _current_classifier(self) -> "PickClassifier":
        """The classifier of the current classes; features do not depend on them."""
        from pickeropt.label.suggestions import fewshot_classifier

        names = tuple(self._session.store.class_names)
        if self._classifier is None or names != self._names:
            self._classifier = fewshot_classifier(self._session.config.diameter_angstrom, names)
            self._names = names
        return self._classifier

    def _fit(self, classifier: "PickClassifier") -> "tuple[NDArray[np.float64], NDArray[np.int64]]":
        """(n, k) probabilities and (n,) labels of the pool; the estimate and the guesses go to the results."""
        from pickeropt.label.suggestions import estimate, refit

        begun = time.perf_counter()
        ids, groups, _, _ = self._pool.rows()
        features = self._pool.features()
        with self._session.lock:
            given = self._session.store.labels
            labels = np.array([given.get(key, UNLABELLED) for key in ids.tolist()], dtype=np.int64)
        self._labels_fitted = len(given)
        quality = asdict(estimate(classifier, features, labels, groups, seed=0))
        probabilities = refit(classifier, features, labels, groups, seed=0)
        seconds = round(time.perf_counter() - begun, 2)
        model: dict[str, Any] = {"labels": int((labels >= 0).sum()), "seconds": seconds, "estimate": quality}
        self._results.guess(ids, self._names, probabilities, model)
        return probabilities, labels

    def _choose(self, probabilities: "NDArray[np.float64]", labels: "NDArray[np.int64]", count: int) -> list[int]:
        from pickeropt.label.suggestions import PickPool, suggest

        ids, groups, xy, merit = self._pool.rows()
        pool = PickPool(self._pool.features(), xy, groups, merit)
        rows = suggest(pool, probabilities, labels, self._pool.diameter_px, count, seed=self._requests)
        chosen: list[int] = ids[rows].tolist()
        return chosen
