"""What models say of the picks: the few-shot model's guesses, and the results of a pruning."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.label.gallery import Gallery
from pickeropt.label.label_store import FIRST_ADDED
from pickeropt.label.loading import Loader
from pickeropt.label.session import Session
from pickeropt.label.table import Columns
from pickeropt.prune.prune_config import Finish

PIECE = 20_000
"""Rows of scores.csv that are Python objects at once."""
BINS = 100
"""Of the histogram of scores."""


@dataclass(frozen=True)
class _Rows:
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


class Results:
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
            summary = json.loads((folder / "summary.json").read_bytes())
            starts = self._starts(summary)
            with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
                names: list[str] = []
                parts = list(_read(file, starts, names))
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise FormatError(
                f"{folder}: cannot be read as a pruning of these picks ({error}); prune again"
            ) from error
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


def _read(file: Any, starts: Mapping[str, int], names: list[str]) -> Iterator[_Rows]:
    """The rows of scores.csv, some thousand at once; the classes of its columns are added to `names`."""
    reader = csv.reader(file)
    header = next(reader)
    at = {name: i for i, name in enumerate(header)}
    classes = [i for i, name in enumerate(header) if name.startswith("p_")]
    names += [header[i].removeprefix("p_") for i in classes]
    place = {name: i for i, name in enumerate(names)}
    name, row, x, y = (at[key] for key in ("file", "row", "x", "y"))
    kind, score, kept = (at[key] for key in ("class", "score", "kept"))
    while rows := list(islice(reader, PIECE)):
        ids = np.array([starts[cells[name]] + int(cells[row]) for cells in rows], dtype=np.int64)
        best = np.array([max(float(cells[i]) for i in classes) for cells in rows], dtype=np.float32)
        yield _Rows(
            ids=ids,
            xy=np.array([(float(cells[x]), float(cells[y])) for cells in rows]),
            best=np.array([place[cells[kind]] for cells in rows], dtype=np.int16),
            score=np.array([float(cells[score]) for cells in rows], dtype=np.float32),
            doubt=1 - best,
            kept=np.array([cells[kept] == "1" for cells in rows], dtype=np.int8),
        )
