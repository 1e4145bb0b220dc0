"""A local HTTP server with faults: for the tests of `dataset empiar`."""

import contextlib
import email.utils
import gzip
import io
import tarfile
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DATE = email.utils.formatdate(1e9, usegmt=True)


@dataclass
class Fault:
    """What one request meets instead of a plain answer.

    cut : bytes of the body after which the line breaks
    announce : added to the Content-Length that is said; the body stays, or is cut to what was said
    status : an error status; ranges : False ignores Range; length : False says no Content-Length
    page : a web page in place of the file; shift : bytes by which a range is off
    """

    cut: int | None = None
    announce: int = 0
    status: int | None = None
    ranges: bool = True
    length: bool = True
    page: bool = False
    shift: int = 0
    retry_after: str | None = None


@dataclass
class Site:
    """files by path; faults by path, one a request, the last one again and again where `forever`."""

    files: dict = field(default_factory=dict)
    faults: dict = field(default_factory=dict)
    forever: bool = False
    tags: dict = field(default_factory=dict)
    requests: list = field(default_factory=list)
    url: str = ""

    def fault(self, path):
        waiting = self.faults.get(path, [])
        if not waiting:
            return Fault()
        return waiting[0] if self.forever and len(waiting) == 1 else waiting.pop(0)

    def gets(self, path):
        """The Range header of every GET of a path."""
        return [r for method, p, r in self.requests if (method, p) == ("GET", path)]


class Handler(BaseHTTPRequestHandler):
    """Answers for `self.server.site`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer("HEAD")

    def do_GET(self):
        self.answer("GET")

    def answer(self, method):
        site = self.server.site
        path = urllib.parse.unquote(self.path)
        site.requests.append((method, path, self.headers.get("Range")))
        fault = site.fault(path) if method == "GET" else Fault()
        self.close_connection = True
        body, kind = site.files.get(path), "application/octet-stream"
        if path.endswith("/"):
            body, kind = listing(site, path), "text/html"
        if fault.page:
            body, kind = b"<html>busy</html>", "text/html"
        if fault.status or body is None:
            self.head(fault.status or 404, {"Content-Length": 0, "Retry-After": fault.retry_after})
            return
        self.send_body(method, body, kind, fault)

    def head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()

    def send_body(self, method, body, kind, fault):
        path = urllib.parse.unquote(self.path)
        tag = '"page"' if fault.page else self.server.site.tags.get(path, f'"{path}"')
        wanted, bound = self.headers.get("Range"), self.headers.get("If-Range")
        ranged = wanted and fault.ranges and bound in (None, tag, DATE)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if ranged else 0
        if ranged and start >= len(body):
            self.head(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": 0})
            return
        start += fault.shift
        place = f"bytes {start}-{len(body) - 1}/{len(body) + fault.announce}"
        headers = {
            "Content-Length": len(body) - start + fault.announce if fault.length else None,
            "Content-Range": place if ranged else None,
            "Content-Type": kind,
            "ETag": tag or None,
            "Last-Modified": DATE,
            "Connection": "close",
        }
        self.head(206 if ranged else 200, headers)
        if method == "GET":
            body = body[start:] if fault.announce >= 0 else body[start : len(body) + fault.announce]
            self.wfile.write(body[: fault.cut])


@contextlib.contextmanager
def serving(site):
    """The site on a port of this machine; its address stands in `site.url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.site = site
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def listing(site, path):
    """An index page as Apache writes it."""
    inside = {p.removeprefix(path) for p in site.files if p.startswith(path) and p != path}
    names = sorted({n.split("/")[0] + "/" * ("/" in n) for n in inside})
    links = "".join(f'<a href="{urllib.parse.quote(n)}">{n[:20]}..&gt;</a> 2016-01-01 64M\n' for n in names)
    head = '<a href="?C=N;O=D">Name</a> <a href="/empiar/">Parent Directory</a>\n'
    return f"<html><body><pre>{head}{links}</pre></body></html>".encode()


def tar_gz(members):
    """A .tar.gz in memory of {name: bytes}."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)
