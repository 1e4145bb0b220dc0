"""The lock that a run holds on the folder it works in."""

import errno
import fcntl
import os
import uuid
from contextlib import suppress
from pathlib import Path

from pickeropt.errors import OutputError


def partial_name(path: Path) -> Path:
    """A name beside the file, to write under before renaming."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write under a temporary name beside the file, then rename; makes missing folders.

    Raises OutputError where the folder cannot be written to; the file is then as before.
    """
    partial = partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error


_TRIES = 3
_BUSY = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)


def lock_folder(out: Path, folder: Path) -> int:
    """`FOLDER/lock`, open, locked until it is closed or the process dies.

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
