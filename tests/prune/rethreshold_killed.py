"""Run as a program: kill a change of threshold at every one of its file operations, then repeat it.

    python rethreshold_killed.py ROOT        (ROOT with a finished run in ROOT/out)

Each line of output: whether it was killed, and what `out` held after that and after the repetition.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from pickeropt.prune.rethreshold import rethreshold

EVENTS = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree", "fcntl.flock", "ctypes.dlsym"}


def run(out: Path, kill_at: int) -> bool:
    """Rethreshold in a child that dies at its `kill_at`-th event (never for 0). Whether it was killed."""
    child = os.fork()
    if not child:
        count = 0

        def count_event(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event in EVENTS or (event == "open" and str(arguments[0]).startswith(str(out))):
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count_event)
        rethreshold(out, 0.9)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise SystemExit(f"the run that dies at event {kill_at} ended with {status}")
    return False


def state(out: Path) -> str | None:
    """One name for all that is in the folder, but for the seconds."""
    if not out.exists():
        return None
    found = hashlib.sha256()
    for path in sorted(out.rglob("*")):
        lines = path.read_bytes().splitlines() if path.is_file() else []
        lines = [line for line in lines if b'"seconds"' not in line]
        found.update(repr((str(path.relative_to(out)), lines)).encode())
    return found.hexdigest()


def main(root: Path) -> None:
    out, before = root / "out", root / "before"
    shutil.copytree(out, before)
    event, killed = 0, True
    while killed:
        event += 1
        for path in (out, root / "out.partial"):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(before, out)
        killed = run(out, event)
        between = state(out)
        run(out, 0)
        left = sorted(path.name for path in root.iterdir())
        print(json.dumps({"killed": killed, "between": between, "after": state(out), "left": left}))
    print(json.dumps(state(before)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
