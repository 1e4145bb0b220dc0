"""Downloads over HTTP(S): resumed, checked, and under their final name only when complete.

A file grows as `.NAME.part`, beside `.NAME.part.tag` with the server's ETag or date and the announced size.
It is renamed when size, checksum and content are right. A resumed request (`Range`, RFC 9110 section 14) is
bound to that tag by `If-Range`: a file that has changed since starts again, as does one from a server that
does not support ranges.
"""

import contextlib
import fcntl
import hashlib
import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pickeropt import __version__
from pickeropt.errors import DownloadError, PickeroptError

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""HTTP answers after which the same request may well succeed."""
LONGEST_PAGE = 16 * 2**20

T = TypeVar("T")


class PassingError(Exception):
    """The line broke, or the server is busy: worth another try.

    wait : s, where the server says; counts_as : how many failures, more where another try costs a whole file
    """

    def __init__(self, what: str, wait: float = 0.0, counts_as: int = 1) -> None:
        super().__init__(what)
        self.wait = wait
        self.counts_as = counts_as


@dataclass(frozen=True)
class Patience:
    """attempts : in a row without a new byte; waits in s, doubled each time; timeout : s without a byte"""

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    timeout: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    def wait(self, failures: int, error: PassingError) -> None:
        """Wait after so many failures in a row, or as long as the server asks."""
        backoff = self.first_wait * 2.0 ** (failures - 1)
        self.sleep(max(error.wait, min(self.longest_wait, backoff)))


def fetch_text(url: str, patience: Patience) -> str:
    """A small page, up to 16 MB. Raises DownloadError."""

    def once() -> str:
        with open_url(url, {}, patience.timeout) as response:
            try:
                body: bytes = response.read(LONGEST_PAGE)
            except (OSError, http.client.HTTPException) as error:
                raise PassingError(f"the line broke ({type(error).__name__})") from error
            length = length_of(response)
            if length is not None and len(body) < min(length, LONGEST_PAGE):
                raise PassingError(f"the line was cut after {len(body)} of {length} bytes")
        return body.decode("utf-8", errors="replace")

    return _patiently(url, patience, once)


def remote_size(url: str, patience: Patience) -> int | None:
    """Bytes as the server announces them, None where it does not. Raises DownloadError."""

    def once() -> int | None:
        with open_url(url, {}, patience.timeout, "HEAD") as response:
            return length_of(response)

    return _patiently(url, patience, once)


def _patiently(url: str, patience: Patience, once: Callable[[], T]) -> T:
    failures = 0
    while True:
        try:
            return once()
        except PassingError as error:
            failures += 1
            if failures >= patience.attempts:
                raise DownloadError(f"{url}: {error}, {failures} times; try again later") from error
            patience.wait(failures, error)


def open_url(url: str, headers: dict[str, str], timeout: float, method: str = "GET") -> Any:
    """The response, to be closed; an answer 416 (no such range) is one too.

    Raises PassingError for what may pass, DownloadError for what will not.
    """
    fixed = {"User-Agent": f"pickeropt/{__version__}", "Accept-Encoding": "identity"}
    try:
        request = urllib.request.Request(url, headers=fixed | headers, method=method)
        return urllib.request.build_opener(_StaySecure).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            return error
        with error:
            _refused(url, error)
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{url}: its certificate is not valid ({error.reason})") from error
        raise PassingError(f"no connection ({error.reason})") from error
    except ValueError as error:
        raise DownloadError(f"{url!r} is no address ({error}); give one that starts with https://") from error
    except (OSError, http.client.HTTPException) as error:
        raise PassingError(f"the line broke ({error or type(error).__name__})") from error


def _refused(url: str, error: urllib.error.HTTPError) -> NoReturn:
    what = f"HTTP {error.code} {error.reason}"
    if error.code in PASSING:
        wait = error.headers.get("Retry-After", "")
        raise PassingError(what, min(float(wait), 600.0) if wait.isdecimal() else 0.0) from error
    raise DownloadError(f"{url}: {what}; check the address, or whether the entry has moved") from error


class _StaySecure(urllib.request.HTTPRedirectHandler):
    """Follows no redirect from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise DownloadError(f"{req.full_url}: leads to {newurl}, which is not secure; give another URL")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def length_of(response: Any) -> int | None:
    """Its Content-Length."""
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def range_of(response: Any) -> tuple[int | None, int | None]:
    """First byte and size of the whole as its Content-Range says, each None where it does not."""
    text = response.headers.get("Content-Range", "").strip()
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", text)
    if not found:
        return None, None
    first, total = found.groups()
    return int(first) if first else None, int(total) if total != "*" else None


CHUNK = 2**20
PAGES = ("text/html", "text/xml", "application/xml", "application/xhtml+xml")
"""What an error page comes as, sometimes under the status 200."""

OnBytes = Callable[[int, int | None], None]
"""Called with the bytes there are and the bytes there will be, None where the size is not known."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to have.

    size : bytes, sha256 : hex digest, where known
    check : called with the finished file under its temporary name; raises PickeroptError if it is not whole
    """

    url: str
    size: int | None = None
    sha256: str | None = None
    check: Callable[[Path], object] | None = None


@dataclass(frozen=True)
class DownloadedFile:
    """size : bytes; sha256 : hex digest"""

    size: int
    sha256: str


def part_of(path: Path) -> Path:
    """The name under which a file grows."""
    return path.with_name(f".{path.name}.part")


def download(
    wanted: RemoteFile, path: Path, patience: Patience | None = None, on_bytes: OnBytes | None = None
) -> DownloadedFile:
    """Fetch a file to `path`, going on where an earlier try stopped.

    Raises DownloadError: no such file, a line that stays broken, a wrong size or checksum, content that is
    not whole. Nothing then has the name `path`; the part stays where going on can help.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _download(wanted, path, patience or Patience(), on_bytes or (lambda done, of: None))
    except OSError as error:
        raise DownloadError(f"{path}: cannot be written ({error.strerror}); make room or mend it") from error


def _download(wanted: RemoteFile, path: Path, patience: Patience, on_bytes: OnBytes) -> DownloadedFile:
    part = part_of(path)
    with _only_here(part):
        failures, best = 0, 0
        while True:
            try:
                _go_on(wanted, part, patience.timeout, on_bytes)
                got = _checked(wanted, part)
                break
            except PassingError as error:
                size = part.stat().st_size
                failures = (0 if size > best else failures) + error.counts_as
                best = max(best, size)
                if failures >= patience.attempts:
                    what = f"{wanted.url}: {error}, again and again"
                    raise DownloadError(f"{what}; try again later, it goes on from there") from error
                patience.wait(failures, error)
        part.replace(path)
        _tag_of(part).unlink(missing_ok=True)
        return got


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _go_on(wanted: RemoteFile, part: Path, timeout: float, on_bytes: OnBytes) -> None:
    """One request; returns when the part is complete as far as the server says."""
    tag = _tag_of(part)
    start, validator, announced = _earlier(part)
    headers = {"Range": f"bytes={start}-", "If-Range": validator} if start else {}
    with open_url(wanted.url, headers, timeout) as response:
        if response.status == 416:
            total = range_of(response)[1]
            if total == start and announced in ("", str(total)):
                return  # the part is the whole file
            _empty(part)
            what = f"the server said {announced or '?'} bytes before and says {total or '?'} now"
            raise PassingError(what, counts_as=3)
        start, total = _place(response, part, start)
        _check_total(wanted, part, total)
        _keep_tag(response, tag, total)
        done = _copy(response, part, start, lambda done: on_bytes(done, total or wanted.size))
    if total is not None and done < total:
        raise PassingError(f"the line was cut after {done} of {total} bytes")
    if total is not None and done > total:
        _empty(part)
        raise PassingError(f"{done} bytes came where {total} were announced")


def _earlier(part: Path) -> tuple[int, str, str]:
    """Bytes to go on from, what binds them to the file, and its announced size; 0 without a sound tag."""
    try:
        validator, announced = _tag_of(part).read_text(encoding="utf-8").split("\n")
    except (FileNotFoundError, ValueError):
        return 0, "", ""
    sound = validator and validator.isascii() and validator.isprintable() and (announced or "0").isdecimal()
    start = part.stat().st_size
    return (start, validator, announced) if start and sound else (0, "", "")


def _place(response: Any, part: Path, start: int) -> tuple[int, int | None]:
    """Where the body belongs in the part, and the size of the whole."""
    kind = response.headers.get_content_type()
    if kind in PAGES:
        raise PassingError(f"an answer of the kind {kind} in place of the file")
    if response.status != 206:
        return 0, length_of(response)
    first, total = range_of(response)
    if first != start:
        _empty(part)
        raise PassingError("another part of the file than asked for")
    return start, total


def _check_total(wanted: RemoteFile, part: Path, total: int | None) -> None:
    if total is None and wanted.size is None and wanted.check is None:
        raise DownloadError(f"{wanted.url}: the server says no length, so the file cannot be checked")
    if wanted.size is not None and total is not None and total != wanted.size:
        _empty(part)
        what = f"{total} bytes on the server where {wanted.size} are expected"
        raise DownloadError(f"{wanted.url}: {what}; the file has changed at its source")


def _keep_tag(response: Any, tag: Path, total: int | None) -> None:
    """Write down what tells this file from a later one, a strong ETag or the date, and its announced size.

    Without either the rest of the file cannot be asked for, and nothing is written.
    """
    validator = response.headers.get("ETag", "")
    if not validator or validator.startswith("W/"):
        validator = response.headers.get("Last-Modified", "")
    if validator:
        tag.write_text(f"{validator}\n{'' if total is None else total}")
    else:
        tag.unlink(missing_ok=True)


def _copy(response: Any, part: Path, start: int, on_bytes: Callable[[int], None]) -> int:
    """Write the body at `start`; returns the bytes there are then."""
    with part.open("r+b") as file:
        file.truncate(start)
        file.seek(start)
        done = start
        while True:
            try:
                chunk = response.read(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                what = f"the line broke after {done} bytes ({type(error).__name__})"
                raise PassingError(what) from error
            if not chunk:
                return done
            file.write(chunk)
            done += len(chunk)
            on_bytes(done)


def _checked(wanted: RemoteFile, part: Path) -> DownloadedFile:
    """The finished file. What is not it is thrown away: once more it is fetched, then that is an error."""
    size, digest = part.stat().st_size, sha256_of(part)
    try:
        if wanted.size is not None and size != wanted.size:
            raise DownloadError(f"{size} bytes where {wanted.size} are expected")
        if wanted.sha256 is not None and digest != wanted.sha256:
            raise DownloadError(f"its SHA-256 is {digest} and not {wanted.sha256}")
        if wanted.check is not None:
            wanted.check(part)
    except PickeroptError as error:
        _empty(part)
        raise PassingError(f"what came is not the file ({error})", counts_as=3) from error
    return DownloadedFile(size, digest)


def _tag_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _empty(part: Path) -> None:
    _tag_of(part).unlink(missing_ok=True)
    with part.open("r+b") as file:
        file.truncate(0)


@contextlib.contextmanager
def _only_here(part: Path) -> Iterator[None]:
    """Hold the part, so that two runs never write into one file; an empty one is not left behind."""
    with part.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DownloadError(f"{part}: another run is downloading this file; wait for it") from error
        try:
            yield
        finally:
            if part.exists() and not part.stat().st_size:
                part.unlink()
