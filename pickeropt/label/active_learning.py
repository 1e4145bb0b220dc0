"""Suggestions: the few-shot model refitted to the labels so far, and which boxes to label next.

The picks that suggestions are chosen from: those of a few micrographs, described once and kept.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import MicrographError, PickeroptError
from pickeropt.io.micrographs import read_micrograph
from pickeropt.label.gallery import Results
from pickeropt.label.jobs import OnProgress
from pickeropt.label.label_store import UNLABELLED
from pickeropt.label.session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from pickeropt.models.classifier import PickClassifier


SPREAD = 8
"""Micrographs that are described for the first suggestions, spread over all; each time `MORE` others join."""
MORE = 2
MOST_SPREAD = 24
MOST_LABELLED = 40
"""Micrographs with labels that are described, those with most labels first."""
MOST_PICKS = 10_000
"""Picks in the pool, beside those with labels."""


@dataclass
class Described:
    """m picks of one micrograph: ids, x and y px, the picker's scores, features (m, d)."""

    ids: NDArray[np.int64]
    xy: NDArray[np.float64]
    merit: NDArray[np.float64]
    features: "Tensor"


class FeaturePool:
    """Features by micrograph. Used by one job at a time.

    diameter_px : of the micrographs described, the mean
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._described: dict[int, Described] = {}
        self._diameters: dict[int, float] = {}
        self._times = 0

    def __len__(self) -> int:
        return sum(len(part.ids) for part in self._described.values())

    @property
    def diameter_px(self) -> float:
        return float(np.mean(list(self._diameters.values())))

    def describe(self, classifier: "PickClassifier", on_progress: Callable[[int, int], None]) -> None:
        """Look at the micrographs that the next suggestions need.

        Raises MicrographError where none can be used, GeometryError for a pixel size that is unknown.
        """
        from pickeropt.models.backbone import inference_copy
        from pickeropt.models.fitting import choose_device, inference_dtype

        todo = self._wanted()
        device = choose_device(self._session.config.device)
        backbone = inference_copy(classifier.backbone, device, inference_dtype(device)) if todo else None
        fault: PickeroptError | None = None
        for done, (index, ids) in enumerate(todo):
            on_progress(done, len(todo))
            try:
                self._add(classifier, backbone, index, ids)
            except MicrographError as error:
                fault = error
        self._times += 1
        if not self._described:
            raise fault or MicrographError("there are no picks to suggest; are the files of picks empty?")

    def rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Of the n picks of the pool: ids, micrographs, (n, 2) x and y, and the picker's scores."""
        parts = list(self._described.items())
        groups = [np.full(len(part.ids), index, dtype=np.int64) for index, part in parts]
        return (
            np.concatenate([part.ids for _, part in parts]),
            np.concatenate(groups),
            np.concatenate([part.xy for _, part in parts]),
            np.concatenate([part.merit for _, part in parts]),
        )

    def features(self) -> "Tensor":
        """(n, d) float32, in the order of `rows`."""
        import torch

        return torch.cat([part.features for part in self._described.values()])

    def _wanted(self) -> list[tuple[int, NDArray[np.int64]]]:
        """The micrographs to look at, each with the ids of its picks that are not described yet."""
        session = self._session
        with session.lock:
            columns = session.table.columns
            labelled = self._labelled()
            chosen = sorted(labelled, key=lambda index: -len(labelled[index]))[:MOST_LABELLED]
            chosen += [index for index in self._spread() if index not in labelled]
            each = max(50, MOST_PICKS // max(len(chosen), 1))
            wanted = []
            for index in dict.fromkeys([*chosen, *self._described]):
                old = self._described.get(index)
                some = np.array(labelled.get(index, []), dtype=np.int64)
                if old is None:
                    rows = np.flatnonzero(columns.micrograph == index)
                    if len(rows) > each:
                        rows = np.random.default_rng(index).choice(rows, each, replace=False)
                    some = np.union1d(some, rows)
                else:
                    some = np.setdiff1d(some, old.ids)
                if len(some):
                    wanted.append((index, some))
        return wanted

    def _labelled(self) -> dict[int, list[int]]:
        """By micrograph, the ids that have a label."""
        store = self._session.store
        found: dict[int, list[int]] = {}
        for key, label in store.labels.items():
            place = store.place(key).micrograph
            if label >= 0 and self._session.micrographs.entries[place].path is not None:
                found.setdefault(place, []).append(key)
        return found

    def _spread(self) -> Sequence[int]:
        """Micrographs with picks, evenly through all; those of earlier times stay among them."""
        micrographs = self._session.micrographs
        counts = np.bincount(self._session.table.columns.micrograph, minlength=len(micrographs))
        usable = [i for i in np.flatnonzero(counts).tolist() if micrographs.entries[i].path is not None]
        count = min(SPREAD + MORE * self._times, MOST_SPREAD, len(usable))
        old = [index for index in usable if index in self._described]
        new = [index for index in usable if index not in self._described]
        more = max(0, count - len(old))
        places = (np.arange(min(more, len(new))) + 0.5) * len(new) / max(1, min(more, len(new)))
        return [*old, *(new[int(place)] for place in places)]

    def _add(self, classifier: "PickClassifier", backbone: object, index: int, ids: NDArray[np.int64]) -> None:
        import torch

        from pickeropt.models.backbone import Backbone
        from pickeropt.models.features import describe_micrograph

        assert isinstance(backbone, Backbone)
        session = self._session
        with session.lock:
            boxes = [session.store.place(key) for key in ids.tolist()]
            columns = session.table.columns
            merit = np.array([columns.merit[k] if k < len(columns) else np.nan for k in ids.tolist()])
        xy = np.array([(box.x, box.y) for box in boxes]).reshape(-1, 2)
        micrograph = read_micrograph(session.micrographs.path(index))
        self._diameters[index] = session.config.diameter_angstrom / session.micrographs.pixel_size(index)
        features = describe_micrograph(backbone, classifier.spec, micrograph.pixels, self._diameters[index], xy)
        old = self._described.get(index)
        if old is not None:
            ids, xy = np.concatenate([old.ids, ids]), np.concatenate([old.xy, xy])
            merit, features = np.concatenate([old.merit, merit]), torch.cat([old.features, features])
        self._described[index] = Described(ids, xy, merit.astype(np.float64), features)


def labels_of(session: Session, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) index into the classes, -1 without a label, -2 skipped."""
    with session.lock:
        labels = session.store.labels
        return np.array([labels.get(key, UNLABELLED) for key in ids.tolist()], dtype=np.int64)


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
        from pickeropt.label.suggestions import fewshot_classifier

        names = tuple(self._session.store.class_names)
        if self._classifier is None or names != self._names:
            self._classifier = fewshot_classifier(self._session.config.diameter_angstrom, names)
            self._names = names
        return self._classifier

    def _fit(self, classifier: "PickClassifier") -> "tuple[NDArray[np.float64], NDArray[np.int64]]":
        """(n, k) probabilities and (n,) labels of the pool; estimate and guesses go to the results."""
        from pickeropt.label.suggestions import estimate, refit

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

    def _choose(self, probabilities: "NDArray[np.float64]", labels: "NDArray[np.int64]", count: int) -> list[int]:
        from pickeropt.label.suggestions import Pool, suggest

        ids, groups, xy, merit = self._pool.rows()
        pool = Pool(self._pool.features(), xy, groups, merit)
        rows = suggest(pool, probabilities, labels, radius_px=self._pool.diameter_px, count=count, seed=self._presses)
        found: list[int] = ids[rows].tolist()
        return found
