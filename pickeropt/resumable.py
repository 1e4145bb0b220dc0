"""Work in progress: `OUT.partial`, from which a killed run goes on, and `OUT` at the end.

::

    OUT.partial/
      lock         held (flock) while a run works here
      run.json     the settings and inputs of the run
      records/     KEY.npy, the numbers of one finished micrograph
      output/      what is being written
      new/         the same once it is whole; becomes OUT by one rename
      old/         the former OUT, with --overwrite, from the last moment on

A record's key is the hash of all that its numbers come from, so a record that fits none
of the micrographs of a run is never taken.

What a training needs to go on after a kill: its state, written whole or not at all, and its folder.
"""

import ctypes
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from pickeropt.errors import OutputError
from pickeropt.files import cannot_write, lock_folder, write_bytes_atomically
from pickeropt.io.inputs import SUMMARY
from pickeropt.records import FloatArray

_IN_EVERY_SUMMARY = {"picks", "micrographs", "threshold", "seconds", "out"}


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
    if not out.is_dir() or (any(out.iterdir()) and not _has_summary(out)):
        raise OutputError(
            f"{out}: is no earlier output of pickeropt (no {SUMMARY} of one in it); choose another folder"
        )


def _has_summary(out: Path) -> bool:
    """Whether a summary in it has what all of ours have."""
    try:
        content = json.loads((out / SUMMARY).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.keys() >= _IN_EVERY_SUMMARY


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
    """`OUT.partial` while this process holds its lock.

    own : names in `OUT` that a run replaces, what else is there stays; None: all are replaced
    """

    out: Path
    folder: Path
    overwrite: bool
    own: frozenset[str] | None = None

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

    def publish(self) -> tuple[str, ...]:
        """Make `staging` the output, in one step, and remove what was kept for it.

        What is not the run's own in a former output goes over to the new one; returns the names. A kill
        right then leaves some of it in `new`, and `recover` moves it back.
        Where the file system cannot exchange two folders a former output is moved to `old` first; a kill
        right then leaves both aside, and `bring_back` puts the new one there.
        """
        target, new, old = self.out.resolve(), self.folder / "new", self.folder / "old"
        check_out(self.out, self.overwrite)
        stays: tuple[str, ...] = ()
        try:
            if not target.exists():
                self.staging.rename(target)
            else:
                self.staging.rename(new)
                stays = self._move_others(target, new)
                if not _exchange(new, target):
                    shutil.rmtree(old, ignore_errors=True)
                    target.rename(old)
                    new.rename(target)
        except OSError as error:
            raise cannot_write(self.out, error) from error
        self.remove()
        return stays

    def recover(self) -> None:
        """Give the output back what a kill, or an error, left in `new`, and remove that.

        Raises OutputError where something of the same name is in the output by now.
        """
        new = self.folder / "new"
        try:
            bring_back(self.out)
            if new.is_dir():
                self._move_others(new, self.out.resolve())
                shutil.rmtree(new)
        except OSError as error:
            raise cannot_write(self.out, error) from error

    def _move_others(self, source: Path, target: Path) -> tuple[str, ...]:
        """Move what is not the run's own from one folder to another. Returns the names."""
        if self.own is None or not source.exists():
            return ()
        others = sorted(path for path in source.iterdir() if path.name not in self.own)
        for path in others:
            place = target / path.name
            if place.exists() or place.is_symlink():
                raise OutputError(f"{path}: a killed run left it, and {place} is there too; remove one")
            path.rename(place)
        return tuple(path.name for path in others)

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
        aside = (self.folder / "new").exists() or (self.folder / "old").exists()
        return not aside and not (records.is_dir() and any(records.iterdir()))

    def _refuse(self, before: Mapping[str, str], now: Mapping[str, str]) -> NoReturn:
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        name = names[0]
        then, to = before.get(name, "not there")[:16], now.get(name, "not there")[:16]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        what = f"{self.folder}: an unfinished run that differs in {name} ({then}, now {to}){more}"
        remedy = "or go on with --overwrite: micrographs of which nothing has changed are not done again"
        raise OutputError(f"{what}; repeat that run to finish it, {remedy}")

    def _record(self, key: str) -> Path:
        return self.folder / "records" / f"{key}.npy"


def bring_back(out: Path) -> None:
    """Put the new output, else a former one, where a kill left them aside and there is no other."""
    for left in (partial_folder(out) / "new", partial_folder(out) / "old"):
        if not out.exists() and (left / SUMMARY).is_file():
            left.rename(out.resolve())


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where system or file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


@contextmanager
def open_workspace(
    out: Path, settings: Mapping[str, str], overwrite: bool, own: frozenset[str] | None = None
) -> Iterator[Workspace]:
    """Hold `OUT.partial`, new or as a killed run left it.

    settings : what the numbers depend on, by name
    own : as `Workspace` has it
    On an error what is finished stays there; a folder with nothing finished is removed.
    Raises OutputError: another process holds it, or it is of a run of other settings.
    """
    folder = partial_folder(out)
    lock = lock_folder(out, folder)
    try:
        workspace = Workspace(out, folder, overwrite, own)
        try:
            workspace.recover()
            check_out(out, overwrite)
            workspace.check_settings(settings)
            yield workspace
        except BaseException:
            with suppress(OSError, OutputError):
                workspace.recover()
            if workspace.is_empty():
                workspace.remove()
            raise
    finally:
        os.close(lock)


@dataclass(frozen=True)
class TrainingFolder:
    """The folder beside an output where its training keeps what it needs; gone when the output is there."""

    out: Path

    @property
    def folder(self) -> Path:
        return self.out.with_name(f"{self.out.name}.partial")

    @property
    def settings(self) -> Path:
        return self.folder / "settings.json"

    def check(self, settings: Mapping[str, Any], overwrite: bool) -> bool:
        """Whether an unfinished run of these settings is there to go on with.

        Raises OutputError where the output, or an unfinished run of other settings, is in the way.
        """
        if self.out.is_dir():
            raise OutputError(f"{self.out}: is a folder; give the name of a file with --out")
        old = self._old_settings()
        if old == settings:
            return True
        if overwrite:
            return False
        if old is not None:
            differing = sorted(n for n in {*old, *settings} if old.get(n) != settings.get(n))
            raise OutputError(
                f"{self.folder}: an unfinished run with other settings ({', '.join(differing)}); give its "
                "command again to finish it, or --overwrite to begin anew"
            )
        if self.out.exists():
            raise OutputError(f"{self.out}: exists already; choose another --out, or give --overwrite")
        return False

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Clear away an unfinished run of other settings, and say what this one is."""
        shutil.rmtree(self.folder, ignore_errors=True)
        write_bytes_atomically(self.settings, json.dumps(settings, indent=1, sort_keys=True).encode())

    def publish(self, path: Path, content: bytes) -> None:
        """Write a file beside the folder by way of it, so that a kill leaves nothing else there."""
        waiting = self.folder / path.name
        write_bytes_atomically(waiting, content)
        waiting.replace(path)

    def clear(self) -> None:
        """Remove what a finished run no longer needs; the settings first: half a folder is none."""
        self.settings.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _old_settings(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self.settings.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found
