"""The labels' file: complete at every moment, one server at a time, changes by other programs never overwritten."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import OutputError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.relion_star import CLASS, MICROGRAPH, X, Y
from pickeropt.io.star import star_token

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
