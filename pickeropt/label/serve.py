"""The server's process: an address to open, and a clean end."""

import getpass
import hashlib
import os
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pickeropt.errors import PickeroptError
from pickeropt.label.label_config import LabelConfig, is_loopback
from pickeropt.prune.prune_config import Finish

PORTS = range(20_000, 32_000)
"""Below those that systems give out by themselves."""


def serve(
    inputs: Sequence[Path],
    config: LabelConfig,
    say: Callable[[str], None] = print,
    finish: Finish | None = None,
) -> None:
    """Serve the page until Ctrl-C. Raises PickeroptError as `LabelServer` does, and for a port that is taken.

    say : called with each line for the user
    finish : what a pruning from the page does in the end, as `prune` calls it
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        what = f"the page needs {error.name}, which is not installed"
        raise PickeroptError(f"{what}; install it with: pip install 'pickeropt[ui]'") from error
    from pickeropt.label.app import make_app
    from pickeropt.label.server import LabelServer
    from pickeropt.label.serving import Guard

    bound = _bind_for(config)
    port = int(bound.getsockname()[1])
    try:
        server = LabelServer(inputs, config, finish)
    except BaseException:
        bound.close()
        raise
    token = secrets.token_urlsafe(24)
    guarded = Guard(make_app(server), token, config.host, port)
    settings = uvicorn.Config(
        guarded, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2
    )
    for line in addresses(config.host, port, token):
        say(line)
    try:
        uvicorn.Server(settings).run(sockets=[bound])
    except KeyboardInterrupt:
        pass
    finally:
        quiet = server.close()
    say(f"stopped; the labels are in {config.out}")
    if not quiet:  # threads within torch would end the interpreter with an abort; all files are whole
        sys.stdout.flush()
        os._exit(0)


def addresses(host: str, port: int, token: str) -> list[str]:
    """What to open, how to get there from another machine, and a warning where others can reach it too."""
    shown = f"[{host}]" if ":" in host else host
    lines = [f"open: http://{shown}:{port}/?token={token}"]
    name = socket.gethostname()
    if is_loopback(host):
        lines += [f"from another machine, first: ssh -N -L {port}:127.0.0.1:{port} {_user()}@{name}"]
    else:
        lines += [
            f"warning: with --host {host} other machines reach this page, and the token goes over the network"
            " unencrypted; leave out --host and come through ssh -L"
        ]
    return [*lines, "Ctrl-C ends it; labels are saved at every click"]


def usual_port(out: Path) -> int:
    """The port of a file of labels: the browser keeps what is unsent by address, so that must stay."""
    digest = hashlib.sha256(str(out.resolve()).encode(errors="surrogateescape")).digest()
    return PORTS.start + int.from_bytes(digest[:8]) % len(PORTS)


def _bind_for(config: LabelConfig) -> socket.socket:
    if config.port is not None:
        return _bind(config.host, config.port)
    try:
        return _bind(config.host, usual_port(config.out))
    except PickeroptError:  # taken
        return _bind(config.host, 0)


def _bind(host: str, port: int) -> socket.socket:
    bound = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(128)
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host, such as a..b
        if bound is not None:
            bound.close()
        remedy = "give another --port (0 takes a free one), or another --host"
        why = error.strerror if isinstance(error, OSError) else error
        what = f"{host}, port {port}: cannot be served on ({why})"
        raise PickeroptError(f"{what}; {remedy}") from error
    return bound


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "USER"
