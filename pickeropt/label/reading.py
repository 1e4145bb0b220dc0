"""A large file of picks, read in a process of its own, so that the server goes on answering."""

import signal
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from pickeropt.errors import FormatError, PickeroptError
from pickeropt.io.picks import read_picks
from pickeropt.io.picks_file import PicksFile


def read_apart(path: Path) -> PicksFile:
    """The picks of a file, without its text: `content` and `row_spans` are empty, and so are the classes.

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
        what = "the process that was reading it died, perhaps for want of memory"
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
