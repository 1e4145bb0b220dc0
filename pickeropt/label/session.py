"""One labelling session: picks, labels and pictures, under one lock."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import RLock

import numpy as np

from pickeropt.errors import FormatError, GeometryError, PickeroptError
from pickeropt.io.picks import read_picks
from pickeropt.io.picks_file import PicksFile, placed
from pickeropt.io.relion_star import CLASS
from pickeropt.io.tables import write_bytes_atomically
from pickeropt.label.label_config import LabelConfig
from pickeropt.label.label_store import Action, Box, LabelStore
from pickeropt.label.labels_file import LabelsFile, labelled_star
from pickeropt.label.micrographs import Micrographs
from pickeropt.label.table import SKIPPED, PickTable

SAME = 0.01
"""px: a labelled point that is no farther from a pick is that pick."""


class Session:
    """What the server serves.

    Opening it reads the labels of an earlier session. Raises OutputError where another server has them,
    FormatError where the file is no labelled STAR file, MicrographError as `Micrographs.add` does.
    """

    def __init__(self, config: LabelConfig) -> None:
        self.config = config
        self.lock = RLock()
        self.table = PickTable()
        self.micrographs = Micrographs(config.micrographs, config.pixel_size, config.out)
        self.store = LabelStore(self.table)
        self.file = LabelsFile(config.out)
        self._skipped = b""
        self._pending: dict[int, dict[int, Box]] = {}
        try:
            for name in config.class_names:
                self.store.add_class(name)
            self._read(config.out, skipped=False)
            self._read(config.skipped_file, skipped=True)
        except BaseException:
            self.file.close()
            raise

    def close(self) -> None:
        self.file.close()

    def put_picks(self, start: int, file: PicksFile) -> int:
        """Take the picks of a file, with ids from `start` on; the id after the last one.

        Raises MicrographError as `Micrographs.add` does, and for a file whose y counts from above and whose
        micrographs are missing.
        """
        places = self.micrographs.add(file)
        picks = file.picks
        index = places[picks.micrograph_index] if len(picks) else np.empty(0, dtype=np.int64)
        xy = picks.coordinates
        if file.rows_from_top:
            heights = np.array([self.micrographs.header(i).shape[0] for i in places.tolist()])
            xy = placed(file, heights[picks.micrograph_index])
        with self.lock:
            self.table.write(start, xy, picks.figure_of_merit, index)
            self._match(start, np.unique(index).tolist())
        return start + len(picks)

    def set_labels(self, new: dict[int, int], browser: str) -> Action:
        """Label picks and save. Raises OutputError where that fails; nothing has changed then."""
        with self.lock:
            return self._saved(self.store.set(new, browser), browser)

    def add_box(self, box: Box, label: int, browser: str) -> tuple[int, Action]:
        """Label a place that no picker picked, and save. Raises GeometryError for one that is outside."""
        if not 0 <= box.micrograph < len(self.micrographs):
            raise PickeroptError(f"there is no micrograph {box.micrograph}; load the page again")
        height, width = self.micrographs.header(box.micrograph).shape
        if not (0 <= box.x < width and 0 <= box.y < height):
            what = f"x {box.x:g}, y {box.y:g} is outside of the micrograph, {width} x {height} px"
            raise GeometryError(f"{what}; click on it")
        with self.lock:
            key = self.store.add(box)
            return key, self._saved(self.store.set({key: label}, browser), browser)

    def undo(self, browser: str) -> Action:
        """Take back a browser's last action and save."""
        with self.lock:
            return self._saved(self.store.undo(browser), browser)

    def _saved(self, action: Action, browser: str) -> Action:
        if not action.changes:
            return action
        try:
            self._save()
        except PickeroptError:
            self.store.revert(action, browser)
            raise
        return action

    def _save(self) -> None:
        self.file.write(self._star(skipped=False))
        skipped = self._star(skipped=True) if self.store.skipped() else b""
        if skipped != self._skipped:
            self._write_skipped(skipped)

    def _write_skipped(self, data: bytes) -> None:
        if data:
            write_bytes_atomically(self.config.skipped_file, data)
        else:
            self.config.skipped_file.unlink(missing_ok=True)
        self._skipped = data

    def _star(self, skipped: bool) -> bytes:
        _, boxes, labels = self.store.rows(skipped)
        names = [self.micrographs.sites[box.micrograph].name for box in boxes]
        xy = np.array([(box.x, box.y) for box in boxes]).reshape(-1, 2)
        return labelled_star(names, xy, [self.store.name(label) or "" for label in labels])

    def _read(self, path: Path, skipped: bool) -> None:
        """Take the labels of an earlier session as added boxes, until their picks are read."""
        if not path.exists() or not path.stat().st_size:
            return
        file = read_picks(path)
        if file.picks.class_names is None:
            what = f"{path}: no column {CLASS}, so it holds no labels"
            raise FormatError(f"{what}; give another --out, so that it is not overwritten")
        places = self.micrographs.add(file)[file.picks.micrograph_index]
        for (x, y), place, name in zip(
            file.picks.coordinates.tolist(), places.tolist(), file.picks.class_names, strict=True
        ):
            key = self.store.add(Box(place, x, y))
            self.store.labels[key] = SKIPPED if skipped else self.store.add_class(name)
            self._pending.setdefault(place, {})[key] = self.store.added[key]
        if skipped:
            self._skipped = path.read_bytes()

    def _match(self, start: int, micrographs: Sequence[int]) -> None:
        """Find the picks among those from `start` on that an earlier session labelled."""
        pairs: dict[int, int] = {}
        taken = set(self.store.labels)
        columns = self.table.columns
        for place in self._waiting(micrographs):
            rows = start + np.flatnonzero(columns.micrograph[start:] == place)
            for key, box in list(self._pending[place].items()):
                apart = np.abs(columns.xy[rows] - (box.x, box.y)).max(axis=1, initial=0)
                near = int(apart.argmin()) if len(apart) else -1
                if near >= 0 and apart[near] <= SAME and int(rows[near]) not in taken:
                    pairs[key] = int(rows[near])
                    taken.add(pairs[key])
                    del self._pending[place][key]
        if pairs:
            moved = {old: new for old, new in pairs.items() if old in self.store.labels}
            self.store.move(moved)

    def _waiting(self, micrographs: Sequence[int]) -> Iterable[int]:
        return [place for place in micrographs if self._pending.get(place)]
