"""Files of picks, read in the background while the first of them are shown already."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread

from pickeropt.errors import FormatError, PickeroptError
from pickeropt.io.inputs import Found, find_files
from pickeropt.io.picks import read_picks_start
from pickeropt.label.reading import read_apart
from pickeropt.label.session import Session

LARGE = 4 * 2**20
"""Bytes of a file whose start is shown before the rest is read."""
START = 2**19
HEAD_START = 0.7
"""Seconds that the first gallery has before the other files are read."""


class Loader:
    """Reads files of picks in a thread.

    done, total : files; total is 0 until it is known
    starts : first id of each file, by its real path
    faults : what could not be read, a line each
    then : called when all are read
    """

    def __init__(
        self, session: Session, inputs: Sequence[Path], then: Callable[[], None] = lambda: None
    ) -> None:
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
        """Returns when there is something to show. Raises PickeroptError where the first file is faulty."""
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
                raise FormatError(f"{given}: there are no picks in it; give files that have rows")
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

    def _read(self, found: Found) -> None:
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

    def _read_one(self, found: Found, key: Path, start: int, inside: set[Path]) -> int:
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
