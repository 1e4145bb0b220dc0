"""The web server's process: port, addresses and end; and its guard, who may send requests.

The guard asks for a token. A page of another site cannot read answers without the token, cannot post (Origin), and
cannot reach this machine under its own name (Host: DNS rebinding).
"""

import getpass
import hashlib
import ipaddress
import os
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pickeropt.errors import PickeroptError
from pickeropt.label.label_config import LabelConfig, is_loopback
from pickeropt.prune.prune_config import Finish

PORTS = range(20_000, 32_000)
"""Below the ephemeral ports of operating systems."""


def serve(
    inputs: Sequence[Path], config: LabelConfig, say: Callable[[str], None] = print, finish: Finish | None = None
) -> None:
    """Serve the page until Ctrl-C. Raises PickeroptError as `LabelServer` does, and for a port that is taken.

    say : called with each line for the user; finish : the last step of a pruning, as `prune` calls it
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        what = f"the page needs {error.name}, which is not installed"
        raise PickeroptError(f"{what}; install it with: pip install 'pickeropt[ui]'") from error
    from pickeropt.label.app import make_app
    from pickeropt.label.server import LabelServer

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
        stopped = server.close()
    say(f"stopped; the labels are in {config.out}")
    if not stopped:  # threads in torch would abort the interpreter; all files are complete
        sys.stdout.flush()
        os._exit(0)


def addresses(host: str, port: int, token: str) -> list[str]:
    """The address, the ssh tunnel from another machine, and a warning where other machines can reach the page."""
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
    """The port of a file of labels: the same every time, as the browser keeps unsent labels by address."""
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
    except (OSError, UnicodeError) as error:  # UnicodeError: not a host name, such as a..b
        if bound is not None:
            bound.close()
        remedy = "give another --port (0 takes a free one), or another --host"
        why = error.strerror if isinstance(error, OSError) else error
        what = f"{host}, port {port}: cannot be used ({why})"
        raise PickeroptError(f"{what}; {remedy}") from error
    return bound


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "USER"


HEADER = "x-pickeropt-token"
SAFE = (
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data: blob:; object-src 'none'; "
     b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)  # fmt: skip
MAX_BODY = 8 * 2**20
"""Bytes of a request."""


class Guard:
    """ASGI middleware that checks every request.

    token : of this run of the server
    host : the address that it is bound to; port : for the names of the cookies, which are shared by all ports
    """

    def __init__(self, app: ASGIApp, token: str, host: str, port: int) -> None:
        self._app, self._token = app, token
        self._names = _names(host)
        self._any_address = not is_loopback(host)
        self.token_cookie = f"pickeropt_token_{port}"
        self.browser_cookie = f"pickeropt_browser_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *SAFE]
                if not any(name == b"cache-control" for name, _ in message["headers"]):
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        answer = self._answer(scope, headers)
        if answer is None:
            scope.setdefault("state", {})["browser"] = _cookies(headers).get(self.browser_cookie, "")
            await self._app(scope, receive, send_safe)
        elif scope["type"] == "http":
            await answer(scope, receive, send_safe)

    def _answer(self, scope: Scope, headers: Headers) -> Response | None:
        """A refusal or a redirection; None where the application may answer."""
        if scope["type"] != "http":
            return _refused("no such connection")
        if not self._is_this_machine(headers.get("host", "")):
            return _refused("wrong Host; open the address that the server printed")
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{headers['host']}", f"https://{headers['host']}"):
            return _refused("this request comes from another site's page")
        if headers.get("sec-fetch-site") == "cross-site" and scope["path"] != "/":
            return _refused("this request comes from another site's page")
        if int(headers.get("content-length", "0") or 0) > MAX_BODY:
            return JSONResponse({"error": "the request is too large"}, 413)
        given = _query_token(scope)
        if scope["path"] == "/" and scope["method"] == "GET" and given is not None:
            return self._enter(given, self.browser_cookie in _cookies(headers))
        sent = headers.get(HEADER) or _cookies(headers).get(self.token_cookie, "")
        if not self._is_token(sent):
            return _refused("no token, or that of another run; open the address that the server printed")
        return None

    def _enter(self, given: str, known: bool) -> Response:
        """The first visit: move the token from the address to a cookie.

        known : whether this browser has been here before
        """
        if not self._is_token(given):
            return _refused("the token is that of another run; open the address that the server printed")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self.token_cookie, given, httponly=True, samesite="strict", path="/")
        if not known:
            name = secrets.token_urlsafe(12)
            answer.set_cookie(self.browser_cookie, name, httponly=True, samesite="strict", path="/")
        return answer

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), self._token.encode())

    def _is_this_machine(self, host: str) -> bool:
        """Whether a Host header has a name of this machine; the port may be that of a tunnel."""
        name = host.rpartition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
        if name.lower() in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._any_address or is_loopback(name)  # a bare address cannot be rebound by DNS


def _names(host: str) -> frozenset[str]:
    """Host names of this server."""
    names = {"localhost", host.lower()}
    if not is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(names)


def _query_token(scope: Scope) -> str | None:
    found = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token")
    return found[0] if found else None


def _cookies(headers: Headers) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}


def _refused(why: str) -> Response:
    return JSONResponse({"error": why}, 403)
