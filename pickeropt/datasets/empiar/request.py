"""One HTTP(S) request, and which of its failures pass by themselves."""

import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from pickeropt import __version__
from pickeropt.errors import DownloadError

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
