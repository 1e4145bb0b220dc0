"""The labels of a session: picks as growing columns, classes, labels, added boxes, undo by browser, and their file.

The file is complete at every moment, one server at a time, changes by other programs never overwritten.
"""

import fcntl
import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import OutputError, PickeroptError, ShotsError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.relion_star import CLASS, MICROGRAPH, X, Y
from pickeropt.io.star import star_token
from pickeropt.label.label_config import COLOURS, USUAL_CLASSES
from pickeropt.shots import is_class_name

UNLABELLED = -1
SKIPPED = -2
"""Shown to the user, who gave no label."""
NO_GUESS = -1
_CAPACITY = 4096


@dataclass(frozen=True)
class Columns:
    """n picks, by id; views of the table, which may be written to under the session's lock.

    xy : (n, 2) float64 px, as in their file, rows as stored
    merit : (n,) float32, the picker's score, NaN where it gave none
    micrograph : (n,) int32
    label : (n,) int16 index into the classes, UNLABELLED or SKIPPED
    guess : (n,) int16, the class of the model, or NO_GUESS
    score : (n,) float32, P(particle), NaN without a model
    doubt : (n,) float32, 1 less the probability of the guess, NaN likewise
    kept : (n,) int8, 1 kept and 0 rejected by the pruning, -1 where there was none
    """

    xy: NDArray[np.float64]
    merit: NDArray[np.float32]
    micrograph: NDArray[np.int32]
    label: NDArray[np.int16]
    guess: NDArray[np.int16]
    score: NDArray[np.float32]
    doubt: NDArray[np.float32]
    kept: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.merit)

    def first(self, count: int) -> "Columns":
        """Views of the first picks."""
        return Columns(*(column[:count] for column in vars(self).values()))


class PickTable:
    """Columns with room to grow. Not locked: the session's lock is held to write."""

    def __init__(self) -> None:
        self._all = _columns(_CAPACITY)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def columns(self) -> Columns:
        """The picks so far."""
        return self._all.first(self._count)

    def write(
        self, start: int, xy: NDArray[np.float64], merit: NDArray[np.floating], micrograph: NDArray[np.integer]
    ) -> None:
        """Write m picks at the ids from `start` on; labels and scores of those already there stay."""
        stop = start + len(xy)
        if stop > len(self._all):
            grown = _columns(max(stop, 2 * len(self._all)))
            for old, new in zip(vars(self.columns).values(), vars(grown).values(), strict=True):
                new[: self._count] = old
            self._all = grown
        self._all.xy[start:stop] = xy
        self._all.merit[start:stop] = merit
        self._all.micrograph[start:stop] = micrograph
        self._count = max(self._count, stop)


def _columns(count: int) -> Columns:
    return Columns(
        xy=np.zeros((count, 2)),
        merit=np.full(count, np.nan, dtype=np.float32),
        micrograph=np.zeros(count, dtype=np.int32),
        label=np.full(count, UNLABELLED, dtype=np.int16),
        guess=np.full(count, NO_GUESS, dtype=np.int16),
        score=np.full(count, np.nan, dtype=np.float32),
        doubt=np.full(count, np.nan, dtype=np.float32),
        kept=np.full(count, -1, dtype=np.int8),
    )


FIRST_ADDED = 1_000_000_000
"""The id of the first box added by hand; picks have theirs from 0 on."""
SKIP = "skip"
UNSEEN = "unlabelled"
"""Names that no class can have."""
MAX_STEPS = 1000
"""Actions that a browser can undo."""


@dataclass(frozen=True)
class Box:
    """A box that no picker picked: its micrograph and its centre, px."""

    micrograph: int
    x: float
    y: float


@dataclass(frozen=True)
class Action:
    """What one request changed, at a revision.

    changes : each id, with its label before and after
    owners : by id, the revision of the action that its label before came from
    undone : the action that this one undoes
    """

    revision: int
    changes: tuple[tuple[int, int, int], ...]
    owners: Mapping[int, int] = field(default_factory=dict)
    undone: "Action | None" = None


@dataclass
class LabelStore:
    """Labels by id, in the order in which they were given. Not locked: the session's lock is held.

    labels : index into `class_names`, or SKIPPED
    added : boxes by id, also those whose label was taken away again
    revision : grows by one at every change
    """

    table: PickTable
    class_names: list[str] = field(default_factory=lambda: list(USUAL_CLASSES))
    labels: dict[int, int] = field(default_factory=dict)
    added: dict[int, Box] = field(default_factory=dict)
    revision: int = 0
    _changed: dict[int, int] = field(default_factory=dict)
    _owner: dict[int, int] = field(default_factory=dict)
    _steps: dict[str, list[Action]] = field(default_factory=lambda: defaultdict(list))

    def add_class(self, name: str) -> int:
        """Its index. Raises ShotsError for a name that cannot be a class."""
        if name in self.class_names:
            return self.class_names.index(name)
        if not is_class_name(name) or name in (SKIP, UNSEEN) or name[0] in "_#'\"" or len(name) > 40:
            remedy = "take a short name without blanks, commas, quotes, # and =, such as aggregate"
            raise ShotsError(f"{name[:60]!r} cannot be the name of a class; {remedy}")
        self.class_names.append(name)
        return len(self.class_names) - 1

    def place(self, key: int) -> Box:
        """Where a pick or an added box is. Raises PickeroptError for an id that is none."""
        box = self.added.get(key)
        if box is not None:
            return box
        if not 0 <= key < len(self.table):
            raise PickeroptError(f"there is no pick {key}; load the page again")
        columns = self.table.columns
        x, y = columns.xy[key].tolist()
        return Box(int(columns.micrograph[key]), x, y)

    def index(self, name: str | None) -> int:
        """The index of a class by the page's name for it. Raises PickeroptError for an unknown one."""
        if name is None:
            return UNLABELLED
        if name == SKIP:
            return SKIPPED
        if name not in self.class_names:
            raise PickeroptError(f"there is no class {name[:60]!r}; add it first")
        return self.class_names.index(name)

    def name(self, label: int) -> str | None:
        return {UNLABELLED: None, SKIPPED: SKIP}.get(label) or (self.class_names[label] if label >= 0 else None)

    def set(self, new: Mapping[int, int], browser: str) -> Action:
        """Label picks: id to index, UNLABELLED or SKIPPED. Raises PickeroptError for an id that is none."""
        for key in new:
            self.place(key)
        changes = tuple(
            (key, self.labels.get(key, UNLABELLED), label)
            for key, label in new.items()
            if self.labels.get(key, UNLABELLED) != label
        )
        self.revision += 1
        owners = {key: self._owner.get(key, 0) for key, _, _ in changes}
        action = Action(self.revision, changes, owners)
        for key, _, label in changes:
            self._put(key, label, self.revision)
        if changes:
            self._steps[browser] = [*self._steps[browser][1 - MAX_STEPS :], action]
        return action

    def add(self, box: Box) -> int:
        """The id of a new box, which has no label yet."""
        key = FIRST_ADDED + len(self.added)
        self.added[key] = box
        return key

    def undo(self, browser: str) -> Action:
        """Undo this browser's last action, except what another has labelled since; may be empty."""
        self.revision += 1
        while self._steps[browser]:
            last = self._steps[browser].pop()
            mine = [change for change in last.changes if self._owner.get(change[0]) == last.revision]
            if mine:
                owners = {key: last.revision for key, _, _ in mine}
                for key, before, _ in mine:
                    self._put(key, before, last.owners[key])
                changes = tuple((key, now, before) for key, before, now in mine)
                return Action(self.revision, changes, owners, last)
        return Action(self.revision, ())

    def revert(self, action: Action, browser: str) -> None:
        """Remove an action that could not be saved, and restore this browser's undo steps."""
        for key, before, _ in action.changes:
            self._put(key, before, action.owners[key])
        if action.undone is not None:
            self._steps[browser].append(action.undone)
        elif self._steps[browser] and self._steps[browser][-1] is action:
            self._steps[browser].pop()

    def can_undo(self, browser: str) -> bool:
        return bool(self._steps.get(browser))

    def move(self, pairs: Mapping[int, int]) -> None:
        """Move the labels of added boxes to the picks that they match: old id to new; the order stays."""
        self.revision += 1
        self.labels = {pairs.get(key, key): label for key, label in self.labels.items()}
        for steps in self._steps.values():
            steps[:] = [_renamed(action, pairs) for action in steps]
        for old, new in pairs.items():
            self._owner[new] = self._owner.pop(old, 0)
            self.table.columns.label[new] = self.labels[new]
            self._changed[old] = self._changed[new] = self.revision

    def changes(self, since: int) -> list[int]:
        """The ids whose label changed after a revision."""
        return [key for key, revision in self._changed.items() if revision > since]

    def counts(self) -> NDArray[np.int64]:
        """(k,) labels a class."""
        given = np.array([label for label in self.labels.values() if label >= 0], dtype=np.int64)
        return np.bincount(given, minlength=len(self.class_names))

    def skipped(self) -> int:
        return sum(label == SKIPPED for label in self.labels.values())

    def rows(self, skipped: bool) -> tuple[list[Box], list[int]]:
        """Places and labels, of those skipped or of all others, in the order they were given."""
        keys = [key for key, label in self.labels.items() if (label == SKIPPED) == skipped]
        return [self.place(key) for key in keys], [self.labels[key] for key in keys]

    def _put(self, key: int, label: int, owner: int) -> None:
        if label == UNLABELLED:
            self.labels.pop(key, None)
        else:
            self.labels[key] = label
        if key < FIRST_ADDED:
            self.table.columns.label[key] = label
        self._changed[key] = self.revision
        self._owner[key] = owner


def _renamed(action: Action, pairs: Mapping[int, int]) -> Action:
    """An action with the new ids of its boxes."""
    changes = tuple((pairs.get(key, key), before, after) for key, before, after in action.changes)
    owners = {pairs.get(key, key): owner for key, owner in action.owners.items()}
    return replace(action, changes=changes, owners=owners)


def describe_classes(names: Sequence[str], counts: NDArray[np.int64]) -> list[dict[str, object]]:
    """The classes for the page: name, key, colour, number of labels."""
    return [
        {"name": name, "key": str(i + 1) if i < 9 else "", "colour": COLOURS[i % len(COLOURS)], "count": int(counts[i])}
        for i, name in enumerate(names)
    ]


Stamp = tuple[int, int, int]
"""Size, time of change in ns and inode of a file."""


COLUMNS = (MICROGRAPH, X, Y, CLASS)


class LabelsFile:
    """A labelled STAR file, locked while this object is open.

    copy : the original, where it had more than `COLUMNS`, which are all that is written
    Raises OutputError where another server has it, or where it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _lock(path)
        self._stamp = _stamp(path)
        self._digest = digest(path)
        self.copy: Path | None = None
        self._to_keep = _has_more(path)

    def close(self) -> None:
        lock_path(self.path).unlink(missing_ok=True)
        os.close(self._lock)

    def changed(self) -> str | None:
        """One line where another program has changed or removed the file since it was read or written."""
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return None
        if digest(self.path) == self._digest:
            self._stamp = stamp
            return None
        done = "removed" if stamp is None else "changed"
        remedy = "your last label is not saved; restart this server to go on with the file as it is"
        return f"{self.path} was {done} by another program; {remedy}"

    def write(self, data: bytes) -> None:
        """Replace the content; a file with more columns is kept under another name.

        Raises OutputError where another program changed it, or the disk is full.
        """
        problem = self.changed()
        if problem:
            raise OutputError(problem)
        if self._to_keep:
            self.copy, self._to_keep = keep_copy(self.path), False
        write_bytes_atomically(self.path, data)
        self._stamp = _stamp(self.path)
        self._digest = hashlib.sha256(data).digest()


def labelled_star(names: Sequence[str], xy: NDArray[np.float64], class_names: Sequence[str]) -> bytes:
    """A labelled STAR file as `finetune` reads it; coordinates keep every digit.

    Not by starfile, which puts no quotes around a value that starts with # or _.
    names, class_names : (n,) each; xy : (n, 2) px
    Raises FormatError for a name that no STAR file can hold.
    """
    head = [b"data_labels", b"", b"loop_"]
    head += [f"{label} #{i}".encode() for i, label in enumerate(COLUMNS, start=1)]
    rows = [
        b"%b %s %s %b" % (star_token(name), repr(x).encode(), repr(y).encode(), star_token(kind))
        for name, (x, y), kind in zip(names, xy.tolist(), class_names, strict=True)
    ]
    return b"\n".join([*head, *rows, b""])


def keep_copy(path: Path) -> Path:
    """Copy a file to the first free name beside it, NAME-1.star and so on; returns the copy.

    Raises OutputError where that fails.
    """
    names = (path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(1, 10_000))
    copy = next(name for name in names if not name.exists())
    try:
        shutil.copy2(path, copy)
    except OSError as error:
        raise OutputError(f"{copy}: cannot be written ({error.strerror}); move {path} away") from error
    return copy


def digest(path: Path) -> bytes | None:
    """sha256 of a file, None where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None


def lock_path(path: Path) -> Path:
    """The lock of a labels' file."""
    return path.with_name(f".{path.name}.lock")


def _lock(path: Path) -> int:
    """An open file, locked until it is closed or the process dies; only open on a file system without locks."""
    place = lock_path(path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(place, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        process = os.pread(lock, 64, 0).decode(errors="replace").strip()
        os.close(lock)
        who = f"another server (process {process})" if process else "another server"
        raise OutputError(f"{path}: {who} has it open; use its page, stop it, or give another --out") from None
    except OSError:
        return lock
    if _stamp(place) is None or place.stat().st_ino != os.fstat(lock).st_ino:  # removed by its last holder
        os.close(lock)
        return _lock(path)
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def _has_more(path: Path) -> bool:
    """Whether a STAR file has other columns than `COLUMNS`, in any block."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return False
    found = {words[0] for line in lines if (words := line.split()) and words[0].startswith(b"_")}
    return not found <= {label.encode() for label in COLUMNS}
