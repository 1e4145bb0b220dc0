"""The gallery: the order and filters of the picks shown, and the models' results for them."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError, PickeroptError
from pickeropt.label.label_store import FIRST_ADDED, SKIPPED, UNLABELLED, UNSEEN, Columns, LabelStore
from pickeropt.label.session import Loader, Session
from pickeropt.prune.prune_config import Finish
from pickeropt.pruned_run import PROBABILITIES, SCORES, ScoresTable, read_summary, score_pieces

ORDERS = ("file", "random", "merit", "score", "suggested", "uncertain", "labelled")
KEPT = ("all", "kept", "rejected")
CACHED = 6
"""Orders and answers that are kept."""
_COLUMNS = ("file", "row", "x", "y", "class", "score", PROBABILITIES, "kept")
BINS = 100
"""Of the histogram of scores."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class GalleryQuery:
    """class_name : a class, `skip`, `unlabelled` or "" for all; micrograph : its index or None for all"""

    order: str = "file"
    class_name: str = ""
    micrograph: int | None = None
    kept: str = "all"


class Gallery:
    """Answers queries; the last answers and orders are kept. Not locked: the session's lock is held.

    suggested : ids to label next, the best first
    asked : grows whenever guesses and scores are new
    """

    def __init__(self, store: LabelStore) -> None:
        self._store = store
        self.suggested: list[int] = []
        self.asked = 0
        self._orders: OrderedDict[object, Rows] = OrderedDict()
        self._answers: OrderedDict[object, Rows] = OrderedDict()

    def ids(self, query: GalleryQuery) -> Rows:
        """(m,) int64 ids. Added boxes come last, except in the order of labelling.

        Raises PickeroptError for an unknown order or filter.
        """
        if query.order not in ORDERS or query.kept not in KEPT:
            raise PickeroptError(f"no order {query.order[:20]!r} or filter {query.kept[:20]!r}; load the page again")
        name = query.class_name
        wanted = None if not name else UNLABELLED if name == UNSEEN else self._store.index(name)
        moving = query.class_name or query.order in ("labelled", "suggested")
        revision = self._store.revision if moving or self._store.added else -1
        key = (query, len(self._store.table), self.asked, revision)
        return _cached(self._answers, key, lambda: self._answer(query, wanted))

    def _answer(self, query: GalleryQuery, wanted: int | None) -> Rows:
        columns = self._store.table.columns
        listed = {"labelled": [*reversed(self._store.labels)], "suggested": self.suggested}.get(query.order)
        if listed is not None:
            keys = [key for key in listed if self._fits(query, wanted, key)]
            return np.array(keys, dtype=np.int64)
        key = (query.order, len(columns), self.asked)
        order = _cached(self._orders, key, lambda: _sorted(query.order, columns))
        chosen = _mask(query, wanted, columns)
        rows = order if chosen is None else order[chosen[order]]
        added = [key for key in self._store.added if key in self._store.labels and self._fits(query, wanted, key)]
        return np.concatenate([rows, np.array(added, dtype=np.int64)])

    def _fits(self, query: GalleryQuery, wanted: int | None, key: int) -> bool:
        """Whether one pick, or one added box, passes the filters."""
        columns = self._store.table.columns
        label = self._store.labels.get(key, UNLABELLED)
        pick = key < len(columns)
        if wanted is not None:
            guess = int(columns.guess[key]) if pick else UNLABELLED
            if (guess if label == UNLABELLED and wanted >= 0 else label) != wanted:
                return False
        if query.micrograph is not None and self._store.place(key).micrograph != query.micrograph:
            return False
        return query.kept == "all" or (pick and columns.kept[key] == (query.kept == "kept"))


def _mask(query: GalleryQuery, wanted: int | None, columns: Columns) -> NDArray[np.bool_] | None:
    """(n,) whether picks pass the filters, None where all do. The class is that of the label, else the guess."""
    parts: list[NDArray[np.bool_]] = []
    if wanted in (UNLABELLED, SKIPPED):
        parts.append(columns.label == wanted)
    elif wanted is not None:
        parts.append(np.where(columns.label == UNLABELLED, columns.guess, columns.label) == wanted)
    if query.micrograph is not None:
        parts.append(columns.micrograph == query.micrograph)
    if query.kept != "all":
        parts.append(columns.kept == (query.kept == "kept"))
    return np.logical_and.reduce(parts) if parts else None


def _sorted(order: str, columns: Columns) -> Rows:
    """All picks in an order, or for `uncertain` those with a score."""
    count = len(columns)
    if order == "file":
        return np.arange(count)
    if order == "random":
        return np.argsort(_scrambled(count), kind="stable")
    if order == "uncertain":
        known = np.flatnonzero(np.isfinite(columns.doubt))
        return known[np.argsort(-columns.doubt[known], kind="stable")]
    values = columns.merit if order == "merit" else columns.score
    return np.argsort(-values, kind="stable")  # NaN comes last


def _scrambled(count: int) -> NDArray[np.uint64]:
    """(n,) a pseudo-random number for each id, which stays while more picks are read (splitmix64)."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _cached(cache: OrderedDict[object, Rows], key: object, make: Callable[[], Rows]) -> Rows:
    found = cache.get(key)
    if found is None:
        found = cache[key] = make()
        while len(cache) > CACHED:
            cache.popitem(last=False)
    else:
        cache.move_to_end(key)
    return found


def items(store: LabelStore, ids: Sequence[int], names: Sequence[str]) -> list[dict[str, object]]:
    """Picks for the page.

    names : of the micrographs, whose numbers may differ in another run of the server
    """
    columns = store.table.columns
    found = [_item(store, columns, key) for key in ids]
    return [{**item, "name": names[store.place(key).micrograph]} for item, key in zip(found, ids, strict=True)]


def _item(store: LabelStore, columns: Columns, key: int) -> dict[str, object]:
    box = store.place(key)
    pick = key < len(columns)
    guess = int(columns.guess[key]) if pick else -1
    return {
        "id": key,
        "micrograph": box.micrograph,
        "x": box.x,
        "y": box.y,
        "merit": number(float(columns.merit[key])) if pick else None,
        "label": store.name(store.labels.get(key, UNLABELLED)),
        "guess": store.class_names[guess] if guess >= 0 else None,
        "score": number(float(columns.score[key])) if pick else None,
    }


def number(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return value if np.isfinite(value) else None


@dataclass(frozen=True)
class _ScoredRows:
    """Some rows of scores.csv: ids, x and y px, index into the file's classes, P(particle), doubt, kept."""

    ids: NDArray[np.int64]
    xy: NDArray[np.float64]
    best: NDArray[np.int16]
    score: NDArray[np.float32]
    doubt: NDArray[np.float32]
    kept: NDArray[np.int8]

    def fits(self, columns: Columns) -> bool:
        """Whether these are picks of the session."""
        there = bool(self.ids.max(initial=-1) < len(columns))
        return there and bool(np.allclose(columns.xy[self.ids], self.xy, rtol=0, atol=0.01))


class PickResults:
    """model, pruned : as `/api/state` has them"""

    def __init__(self, session: Session, loader: Loader, gallery: Gallery) -> None:
        self._session, self._loader, self._gallery = session, loader, gallery
        self.model: dict[str, Any] | None = None
        self.pruned: dict[str, Any] | None = None

    def suggest(self, ids: list[int]) -> None:
        """What order=suggested lists."""
        with self._session.lock:
            self._gallery.suggested = ids
            self._gallery.asked += 1

    def guess(
        self,
        ids: NDArray[np.int64],
        class_names: Sequence[str],
        probabilities: NDArray[np.float64],
        model: dict[str, Any],
    ) -> None:
        """The few-shot model's (n, k) probabilities; where a pruning scored all picks, its scores stay."""
        with self._session.lock:
            self.model = model
            if self.pruned is not None:
                return
            rows = ids < FIRST_ADDED
            columns, at = self._session.table.columns, ids[rows]
            places = np.array([self._session.store.add_class(name) for name in class_names], dtype=np.int16)
            columns.guess[at] = places[probabilities[rows].argmax(axis=1)]
            columns.score[at] = probabilities[rows, list(class_names).index("particle")]
            columns.doubt[at] = 1 - probabilities[rows].max(axis=1)
            self._gallery.asked += 1

    def read_pruned(self, folder: Path) -> None:
        """Take the scores of a finished pruning of these picks.

        Raises FormatError for a folder that cannot be read as one, or of other files of picks.
        """
        try:
            summary = read_summary(folder)
            starts = self._starts(summary)
            names: tuple[str, ...] = ()
            parts = []
            for piece in score_pieces(folder / SCORES, _COLUMNS):
                names = piece.class_names
                parts.append(_rows_of(piece, starts))
        except (KeyError, TypeError, PickeroptError) as error:
            raise FormatError(f"{folder}: cannot be read as a pruning of these picks ({error}); prune again") from error
        with self._session.lock:
            columns, store = self._session.table.columns, self._session.store
            if not all(part.fits(columns) for part in parts):
                raise FormatError(f"{folder}: is of other picks than these; prune again")
            place = np.array([store.add_class(name) for name in names], dtype=np.int16)
            for part in parts:
                columns.guess[part.ids] = place[part.best]
                columns.score[part.ids] = part.score
                columns.doubt[part.ids] = part.doubt
                columns.kept[part.ids] = part.kept
            self.pruned = {name: summary[name] for name in ("threshold", "kept", "rejected")}
            self.pruned |= {"out": str(folder), "warnings": list(summary.get("warnings", ()))}
            self._gallery.asked += 1

    def is_of_these(self, summary: Mapping[str, Any]) -> bool:
        """Whether a run read no other files than this session does. Raises KeyError where it does not say."""
        return all(_real(entry["path"]) in self._loader.starts for entry in summary["files"])

    def rethreshold(self, folder: Path, threshold: float, finish: Finish | None) -> dict[str, Any]:
        """Write a run again with another threshold; how many are kept and rejected.

        finish : as `prune.rethreshold.rethreshold` calls it
        Raises OutputError and FormatError as `prune.rethreshold.rethreshold` does.
        """
        from pickeropt.prune.rethreshold import rethreshold

        summary = rethreshold(folder, threshold, finish=finish)
        self.read_pruned(folder)
        return {"kept": summary.kept, "rejected": summary.rejected}

    def scores(self) -> dict[str, Any]:
        """The histogram of P(particle) by the class that the model sees, over all picks with a score."""
        with self._session.lock:
            columns, names = self._session.table.columns, self._session.store.class_names
            known = np.isfinite(columns.score)
            edges = np.linspace(0, 1, BINS + 1)
            bins = np.searchsorted(edges.astype(np.float32), columns.score, side="right") - 1
            bins = np.minimum(bins, BINS - 1)  # a threshold at the lower edge of its bin keeps a pick
            counts = {
                name: np.bincount(bins[known & (columns.guess == i)], minlength=BINS).tolist()
                for i, name in enumerate(names)
            }
            threshold = self.pruned["threshold"] if self.pruned else None
        return {"histogram": {"edges": edges.tolist(), "counts": counts}, "threshold": threshold}

    def _starts(self, summary: Mapping[str, Any]) -> dict[str, int]:
        """The id of each file's first pick, by the file's name in scores.csv."""
        return {entry["name"]: self._loader.starts[_real(entry["path"])] for entry in summary["files"]}


def _real(path: str) -> Path:
    """A file by the name that the loader knows it by."""
    return Path(path).parent.resolve() / Path(path).name


def _rows_of(piece: ScoresTable, starts: Mapping[str, int]) -> _ScoredRows:
    first = np.array([starts[name] for name in piece.files], dtype=np.int64)
    best = piece[PROBABILITIES].max(axis=1, initial=0).astype(np.float32)
    return _ScoredRows(
        ids=first[piece["file"]] + piece["row"],
        xy=piece.coordinates,
        best=piece["class"].astype(np.int16),
        score=piece["score"].astype(np.float32),
        doubt=1 - best,
        kept=piece["kept"].astype(np.int8),
    )
