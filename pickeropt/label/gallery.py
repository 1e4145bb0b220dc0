"""Which picks the gallery shows, in which order."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import PickeroptError
from pickeropt.label.label_store import UNSEEN, LabelStore
from pickeropt.label.table import SKIPPED, UNLABELLED, Columns

ORDERS = ("file", "random", "merit", "score", "suggested", "uncertain", "labelled")
KEPT = ("all", "kept", "rejected")
_CACHED = 6

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Query:
    """class_name : a class, `skip`, `unlabelled` or "" for all; micrograph : its index or None for all"""

    order: str = "file"
    class_name: str = ""
    micrograph: int | None = None
    kept: str = "all"


class Gallery:
    """Answers queries; the last few answers and orders are kept. Not locked: the session's lock is held.

    suggested : ids to label next, the best first
    asked : grows whenever guesses and scores are new
    """

    def __init__(self, store: LabelStore) -> None:
        self._store = store
        self.suggested: list[int] = []
        self.asked = 0
        self._orders: OrderedDict[object, Rows] = OrderedDict()
        self._answers: OrderedDict[object, Rows] = OrderedDict()

    def ids(self, query: Query) -> Rows:
        """(m,) int64 ids. Boxes added by hand come last, but where the order is that of labelling.

        Raises PickeroptError for an order or a filter that there is not.
        """
        if query.order not in ORDERS or query.kept not in KEPT:
            raise PickeroptError(
                f"no order {query.order[:20]!r} or filter {query.kept[:20]!r}; load the page again"
            )
        wanted = self._wanted(query.class_name)
        moving = query.class_name or query.order in ("labelled", "suggested")
        revision = self._store.revision if moving or self._store.added else -1
        key = (query, len(self._store.table), self.asked, revision)
        return _cached(self._answers, key, lambda: self._answer(query, wanted))

    def _wanted(self, name: str) -> int | None:
        if not name:
            return None
        return UNLABELLED if name == UNSEEN else self._store.index(name)

    def _answer(self, query: Query, wanted: int | None) -> Rows:
        columns = self._store.table.columns
        listed = {"labelled": [*reversed(self._store.labels)], "suggested": self.suggested}.get(query.order)
        if listed is not None:
            keys = [key for key in listed if self._fits(query, wanted, key)]
            return np.array(keys, dtype=np.int64)
        order = self._order(query.order, columns)
        chosen = _mask(query, wanted, columns)
        rows = order if chosen is None else order[chosen[order]]
        added = [
            key for key in self._store.added if key in self._store.labels and self._fits(query, wanted, key)
        ]
        return np.concatenate([rows, np.array(added, dtype=np.int64)])

    def _fits(self, query: Query, wanted: int | None, key: int) -> bool:
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

    def _order(self, order: str, columns: Columns) -> Rows:
        """All picks, or for `uncertain` those with a score, by an order; worst known last."""
        key = (order, len(columns), self.asked)
        return _cached(self._orders, key, lambda: _sorted(order, columns))


def _mask(query: Query, wanted: int | None, columns: Columns) -> NDArray[np.bool_] | None:
    """(n,) which picks pass the filters, None where all do. A class is that of the label, else the guess."""
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
    """(n,) a number for each id that does not change while more picks are read (splitmix64)."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _cached(cache: OrderedDict[object, Rows], key: object, make: Callable[[], Rows]) -> Rows:
    found = cache.get(key)
    if found is None:
        found = cache[key] = make()
        while len(cache) > _CACHED:
            cache.popitem(last=False)
    else:
        cache.move_to_end(key)
    return found


def items(store: LabelStore, ids: Sequence[int], names: Sequence[str]) -> list[dict[str, object]]:
    """Picks as the page gets them.

    names : of the micrographs, which another run of the server may number otherwise
    """
    columns = store.table.columns
    found = [_item(store, columns, key) for key in ids]
    return [
        {**item, "name": names[store.place(key).micrograph]} for item, key in zip(found, ids, strict=True)
    ]


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
    """JSON knows no NaN."""
    return value if np.isfinite(value) else None
