"""Work in progress: `OUT.partial`, from which a killed run goes on, and `OUT` at the end.

::

    OUT.partial/
      lock         held (flock) while a run works here
      run.json     the settings and inputs of the run
      records/     KEY.npy, the numbers of one finished micrograph
      output/      becomes OUT by one rename
      old/         the former OUT, with --overwrite, from the last moment on

A record's key is the hash of all that its numbers come from, so a record that fits none
of the micrographs of a run is never taken.
"""

import ctypes
import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from pickeropt.errors import OutputError
from pickeropt.io.inputs import SUMMARY
from pickeropt.io.tables import write_bytes_atomically
from pickeropt.records import FloatArray

_TRIES = 3
_BUSY = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)


def partial_folder(out: Path) -> Path:
    """Where the run for `out` keeps what it has finished."""
    real = out.resolve()
    return real.with_name(f"{real.name}.partial")


def check_out(out: Path, overwrite: bool) -> None:
    """Raises OutputError where `out` exists, or with `overwrite` is no earlier output."""
    if not out.exists():
        return
    if not overwrite:
        raise OutputError(f"{out}: exists already; choose another folder, or replace it with --overwrite")
    if not out.is_dir() or (any(out.iterdir()) and not (out / SUMMARY).is_file()):
        raise OutputError(
            f"{out}: is no earlier output of pickeropt (no {SUMMARY} in it); choose another folder"
        )


def check_not_input(out: Path, folders: Sequence[Path], files: Sequence[Path]) -> None:
    """Raises OutputError where `out` lies in a folder of inputs, or an input lies in `out`."""
    real = out.resolve()
    for folder in folders:
        if real.is_relative_to(folder.resolve()):
            raise OutputError(f"{out}: lies in the input folder {folder}; choose a folder outside it")
    parents = {path: path.resolve() for path in files}
    for path, target in parents.items():
        if target.is_relative_to(real) or target.is_relative_to(partial_folder(out)):
            raise OutputError(f"{out}: would overwrite the input {path}; choose another folder")


def record_key(*parts: object) -> str:
    """A name for all that a micrograph's numbers come from."""
    found = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()[:40]


@dataclass(frozen=True)
class Workspace:
    """`OUT.partial` while this process holds its lock."""

    out: Path
    folder: Path
    overwrite: bool

    @property
    def staging(self) -> Path:
        return self.folder / "output"

    def load(self, key: str, shape: tuple[int | None, int]) -> FloatArray | None:
        """The numbers under a key, or None where there are none, or no whole ones.

        shape : rows, None for any number of them, and columns
        """
        try:
            found: FloatArray = np.load(self._record(key), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        fits = found.ndim == 2 and found.shape[1] == shape[1] and shape[0] in (None, found.shape[0])
        whole = fits and found.dtype == np.float32 and bool(np.isfinite(found).all())
        return found if whole else None

    def save(self, key: str, numbers: FloatArray) -> None:
        """Keep (n, m) float32 numbers of a finished micrograph under a key."""
        buffer = io.BytesIO()
        np.save(buffer, numbers)
        write_bytes_atomically(self._record(key), buffer.getvalue())

    def publish(self) -> None:
        """Make `staging` the output, in one step, and remove what was kept for it.

        Where the file system cannot exchange two folders a former output is moved to `old` first; a kill
        right then leaves it there, and `bring_back` puts it back.
        """
        target = self.out.resolve()
        check_out(self.out, self.overwrite)
        old = self.folder / "old"
        try:
            if not (target.exists() and _exchange(self.staging, target)):
                if target.exists():
                    shutil.rmtree(old, ignore_errors=True)
                    target.rename(old)
                self.staging.rename(target)
        except OSError as error:
            raise cannot_write(self.out, error) from error
        self.remove()

    def remove(self) -> None:
        """The lock goes last: nobody else works here before."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != "lock":
                path.unlink(missing_ok=True)
        (self.folder / "lock").unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def check_settings(self, settings: Mapping[str, str]) -> None:
        """Raises OutputError where the unfinished run was another one; notes the settings of this."""
        path = self.folder / "run.json"
        try:
            before = json.loads(path.read_bytes())
        except (OSError, ValueError):
            before = None
        if isinstance(before, dict) and before != settings and not self.overwrite:
            self._refuse(before, settings)
        write_bytes_atomically(path, json.dumps(dict(settings), indent=1).encode())

    def is_empty(self) -> bool:
        """Whether nothing here is worth keeping."""
        records = self.folder / "records"
        return not (self.folder / "old").exists() and not (records.is_dir() and any(records.iterdir()))

    def _refuse(self, before: Mapping[str, str], now: Mapping[str, str]) -> NoReturn:
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        name = names[0]
        then, to = before.get(name, "not there")[:16], now.get(name, "not there")[:16]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        what = f"{self.folder}: an unfinished run that differs in {name} ({then}, now {to}){more}"
        raise OutputError(f"{what}; repeat that run to finish it, or start anew with --overwrite")

    def _record(self, key: str) -> Path:
        return self.folder / "records" / f"{key}.npy"


def bring_back(out: Path) -> None:
    """Put back a former output that a kill left aside, where there is no other."""
    old = partial_folder(out) / "old"
    if not out.exists() and (old / SUMMARY).is_file():
        old.rename(out.resolve())


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where system or file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


@contextmanager
def open_workspace(out: Path, settings: Mapping[str, str], overwrite: bool) -> Iterator[Workspace]:
    """Hold `OUT.partial`, new or as a killed run left it.

    settings : what the numbers depend on, by name
    On an error what is finished stays there; a folder with nothing finished is removed.
    Raises OutputError: another process holds it, or it is of a run of other settings.
    """
    folder = partial_folder(out)
    lock = _lock(out, folder)
    try:
        workspace = Workspace(out, folder, overwrite)
        try:
            check_out(out, overwrite)
            workspace.check_settings(settings)
            yield workspace
        except BaseException:
            if workspace.is_empty():
                workspace.remove()
            raise
    finally:
        os.close(lock)


def _lock(out: Path, folder: Path) -> int:
    """An open file, locked until it is closed or the process dies.

    On a file system without locks it just opens. A lock file that its holder has removed
    in the meantime counts for nothing, so it is tried again.
    """
    path = folder / "lock"
    busy = OutputError(f"{out}: another run is writing to it; wait for it, or choose another folder")
    for _ in range(_TRIES):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise cannot_write(out, error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                os.close(lock)
                raise busy from None
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(lock).st_ino:
                return lock
        os.close(lock)
    raise busy


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error for a folder that cannot be written to."""
    return OutputError(f"{path}: cannot be written ({error.strerror}); choose another folder, or free space")
