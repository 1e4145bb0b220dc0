"""Run as a program: kill a change of threshold at every one of its file operations, then repeat it.

    python rethreshold_killed.py ROOT [copied]        (ROOT with a finished run in ROOT/out)

With `copied` the file system cannot exchange two folders.

Each line of output: whether it was killed, and what `out` held after that and after the repetition.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

from killing import dies_at

from pickeropt import resumable as workspace
from pickeropt.prune.rethreshold import rethreshold


def state(out: Path) -> str | None:
    """One name for all that is in the folder, but for the seconds."""
    if not out.exists():
        return None
    if not (out / "labels.star").exists() or not (out / "Class2D/run.star").exists():
        return "without files of the user"
    found = hashlib.sha256()
    for path in sorted(out.rglob("*")):
        lines = path.read_bytes().splitlines() if path.is_file() else []
        lines = [line for line in lines if b'"seconds"' not in line]
        found.update(repr((str(path.relative_to(out)), lines)).encode())
    return found.hexdigest()


def main(root: Path, exchange: bool) -> None:
    if not exchange:
        workspace._exchange = lambda one, other: False
    out, before = root / "out", root / "before"
    shutil.copytree(out, before, symlinks=True)
    event, killed = 0, True
    while killed:
        event += 1
        for path in (out, root / "out.partial"):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(before, out, symlinks=True)
        killed = dies_at(lambda: rethreshold(out, 0.9), str(out), event)
        between = state(out)
        dies_at(lambda: rethreshold(out, 0.9), str(out), 0)
        left = sorted(path.name for path in root.iterdir())
        print(json.dumps({"killed": killed, "between": between, "after": state(out), "left": left}))
    print(json.dumps(state(before)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), exchange=sys.argv[2:] != ["copied"])
