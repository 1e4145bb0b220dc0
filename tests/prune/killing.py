"""A child process that dies at one of its file operations. Forked, so that a kill costs milliseconds."""

import os
import signal
import sys
from collections.abc import Callable

EVENTS = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree", "fcntl.flock", "ctypes.dlsym"}


def dies_at(work: Callable[[], object], prefix: str, kill_at: int) -> bool:
    """Do the work in a child that dies at its `kill_at`-th event (never for 0). Whether it was killed.

    prefix : opening a file whose path starts so is an event too
    """
    child = os.fork()
    if not child:
        count = 0

        def count_event(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event in EVENTS or (event == "open" and str(arguments[0]).startswith(prefix)):
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count_event)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise SystemExit(f"the run that dies at event {kill_at} ended with {status}")
    return False
