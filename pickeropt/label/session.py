"""The session: picks, labels and micrographs under one lock, and the loader that reads picks in the background."""

import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event, RLock, Thread

import numpy as np

from pickeropt.errors import FormatError, GeometryError, PickeroptError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.inputs import FoundFiles, find_files
from pickeropt.io.picks import read_picks, read_picks_start
from pickeropt.io.picks_file import PicksFile, placed
from pickeropt.io.relion_star import CLASS
from pickeropt.label.label_config import LabelConfig
from pickeropt.label.label_store import SKIPPED, Action, Box, LabelsFile, LabelStore, PickTable, labelled_star
from pickeropt.sites import Micrographs

SAME = 0.01
"""px: a labelled point within this distance of a pick is that pick."""


class Session:
    """Picks, micrographs and labels; opening it reads the labels of an earlier session.

    Raises OutputError where another server has them,
    FormatError where the file is no labelled STAR file, MicrographError as `Micrographs.add` does.
    """

    def __init__(self, config: LabelConfig) -> None:
        self.config = config
        self.lock = RLock()
        self.table = PickTable()
        self.micrographs = Micrographs(config.micrographs, config.pixel_size, labels=config.out)
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
        """Add the picks of a file, with ids from `start`; returns the id after the last one.

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
        """Add and label a box, and save. Raises GeometryError for one outside the micrograph."""
        if not 0 <= box.micrograph < len(self.micrographs):
            raise PickeroptError(f"there is no micrograph {box.micrograph}; load the page again")
        height, width = self.micrographs.header(box.micrograph).shape
        if not (0 <= box.x < width and 0 <= box.y < height):
            what = f"x {box.x:g}, y {box.y:g} is outside the micrograph, {width} x {height} px"
            raise GeometryError(f"{what}; click on it")
        with self.lock:
            key = self.store.add(box)
            return key, self._saved(self.store.set({key: label}, browser), browser)

    def undo(self, browser: str) -> Action:
        """Undo a browser's last action and save."""
        with self.lock:
            return self._saved(self.store.undo(browser), browser)

    def _saved(self, action: Action, browser: str) -> Action:
        if not action.changes:
            return action
        try:
            self.file.write(self._star(skipped=False))
            skipped = self._star(skipped=True) if self.store.skipped() else b""
            if skipped != self._skipped:
                self._write_skipped(skipped)
        except PickeroptError:
            self.store.revert(action, browser)
            raise
        return action

    def _write_skipped(self, data: bytes) -> None:
        if data:
            write_bytes_atomically(self.config.skipped_file, data)
        else:
            self.config.skipped_file.unlink(missing_ok=True)
        self._skipped = data

    def _star(self, skipped: bool) -> bytes:
        boxes, labels = self.store.rows(skipped)
        names = [self.micrographs.entries[box.micrograph].name for box in boxes]
        xy = np.array([(box.x, box.y) for box in boxes]).reshape(-1, 2)
        return labelled_star(names, xy, [self.store.name(label) or "" for label in labels])

    def _read(self, path: Path, skipped: bool) -> None:
        """Read the labels of an earlier session as added boxes, until their picks are read."""
        if not path.exists() or not path.stat().st_size:
            return
        file = read_picks(path)
        if file.picks.class_names is None:
            raise FormatError(f"{path}: has no column {CLASS}, so it is no file of labels; give another --out")
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
        """Match the labels of an earlier session to the picks from `start` on."""
        pairs: dict[int, int] = {}
        taken = set(self.store.labels)
        columns = self.table.columns
        for place in filter(self._pending.get, micrographs):
            rows = start + np.flatnonzero(columns.micrograph[start:] == place)
            for key, box in list(self._pending[place].items()):
                apart = np.abs(columns.xy[rows] - (box.x, box.y)).max(axis=1, initial=0)
                near = int(apart.argmin()) if len(apart) else -1
                if near >= 0 and apart[near] <= SAME and int(rows[near]) not in taken:
                    pairs[key] = int(rows[near])
                    taken.add(pairs[key])
                    del self._pending[place][key]
        if pairs:
            self.store.move({old: new for old, new in pairs.items() if old in self.store.labels})


def read_apart(path: Path) -> PicksFile:
    """The picks of a file, read in another process so that the server goes on answering.

    `content`, `row_spans` and the classes are empty.

    Raises PickeroptError as `read_picks` does, FormatError where the other process dies.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_read, args=(theirs, path), daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for the server alone
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    try:
        found: PicksFile | PickeroptError = ours.recv()
    except EOFError:
        what = "the process that read it died, perhaps out of memory"
        raise FormatError(f"{path}: {what}; free memory and start again") from None
    finally:
        ours.close()
        process.join()
    if isinstance(found, PickeroptError):
        raise found
    return found


def _read(connection: Connection, path: Path) -> None:
    found: PicksFile | PickeroptError
    try:
        file = read_picks(path)
        picks = replace(file.picks, class_names=None)
        found = replace(file, picks=picks, content=b"", row_spans=np.empty((0, 2), dtype=np.int64))
    except PickeroptError as error:
        found = error
    with suppress(BrokenPipeError):  # the server may have ended
        connection.send(found)


LARGE = 4 * 2**20
"""Bytes of a file from which on its first `START` bytes are shown before the rest is read."""
START = 2**19
HEAD_START = 0.7
"""Seconds for the first gallery before the other files are read."""


class Loader:
    """Reads files of picks in a thread.

    done, total : files; total is 0 until it is known
    starts : first id of each file, by its real path
    faults : one line for each file that could not be read
    then : called when all are read
    """

    def __init__(self, session: Session, inputs: Sequence[Path], then: Callable[[], None] = lambda: None) -> None:
        self.session, self._inputs, self._then = session, inputs, then
        self.done, self.total = 0, 0
        self.starts: dict[Path, int] = {}
        self.faults: list[str] = []
        self.finished = Event()
        self._stop = Event()
        self._first = Event()
        self._thread = Thread(target=self._run, name="reading picks", daemon=True)
        self._error: BaseException | None = None

    def start(self) -> None:
        """Returns once the first picks are read. Raises PickeroptError where the first file is faulty."""
        self._thread.start()
        self._first.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        try:
            found, _ = find_files(self._inputs)
            self.total = len(found.files)
            self._read(found)
            if not len(self.session.table) and self._error is None:
                given = ", ".join(map(str, self._inputs[:3]))
                raise FormatError(f"{given}: has no picks; give files that have rows")
            self._first.set()
            self._then()
        except PickeroptError as error:
            self._fail(error)
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._first.set()
            self.finished.set()

    def _read(self, found: FoundFiles) -> None:
        start = 0
        inside: set[Path] = set()
        for key in sorted(found.files, key=lambda key: found.paths_out[key].as_posix()):
            if self._stop.is_set():
                return
            try:
                if key not in inside:
                    start = self._read_one(found, key, start, inside)
            except PickeroptError as error:
                self._fail(error)
            self.done += 1
            if start and not self._first.is_set():
                self._first.set()
                self._stop.wait(HEAD_START if self.done < self.total else 0)

    def _read_one(self, found: FoundFiles, key: Path, start: int, inside: set[Path]) -> int:
        """The id after the last pick of a file."""
        self.starts[key] = start
        head = read_picks_start(key, START) if key.stat().st_size > LARGE else None
        if head is not None:
            self.session.put_picks(start, found.named(key, head))
            self._first.set()
        file = found.read(key) if head is None else found.named(key, read_apart(key))
        inside.update(companion.path.parent.resolve() / companion.path.name for companion in file.companions)
        return self.session.put_picks(start, file)

    def _fail(self, error: PickeroptError) -> None:
        if not self._first.is_set():
            self._error = error
        self.faults.append(" ".join(str(error).splitlines()))
