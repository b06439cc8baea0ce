"""Downloads over HTTP and HTTPS: bounded in size and time, retried, verified."""

import hashlib
import http.client
import queue
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, NamedTuple
from urllib.parse import quote, urlsplit

from gptbox.errors import DownloadError

_RETRY_STATUSES = {408, 425, 429, 500, 502, 503, 504}
_REPORT_INTERVAL_S = 0.2


class Downloaded(NamedTuple):
    """What is known of a file that was downloaded."""

    size: int
    sha256: str
    """In hex."""
    url: str
    """Where redirects led to."""


class _Problem(NamedTuple):
    text: str
    is_permanent: bool = False
    """Whether another attempt would fail in the same way."""


class _StorageError(Exception):
    """The downloaded content cannot be written."""


class _WrongContentError(Exception):
    """The server's answer is not what was asked for."""


@dataclass(frozen=True)
class Download:
    """One file to download."""

    title: str
    """The subject of error messages: "Tiny Shakespeare"."""
    url: str
    max_bytes: int
    sha256: str | None = None
    """The expected SHA-256, in hex; None takes any content."""
    timeout_s: float = 10.0
    """Bounds each connect and read."""
    total_timeout_s: float = 30.0
    """Bounds the whole download with its retries."""
    retry_delays_s: tuple[float, ...] = (0.5, 1.5)

    def to_file(self, file: BinaryIO, on_bytes: Callable[[int, int], None] = lambda done, total: None) -> Downloaded:
        """Write the content to an empty file.

        `on_bytes` is called with the number of bytes so far and in total, if the server tells it. Transient errors are
        retried; a wrong address or a wrong content is not. Raises DownloadError; the file is then of no use.
        """
        attempts = _Attempts(self, file, time.monotonic() + self.total_timeout_s)
        # In a thread, because urllib's timeout covers neither DNS lookups nor a host's addresses taken together.
        results: queue.SimpleQueue[Downloaded | _Problem] = queue.SimpleQueue()
        threading.Thread(target=lambda: results.put(attempts.run()), daemon=True).start()
        result: Downloaded | _Problem = _Problem(f"no complete answer within {self.total_timeout_s:g} s")
        while (left := attempts.deadline - time.monotonic()) > 0:
            try:
                result = results.get(timeout=min(left, _REPORT_INTERVAL_S))
                break
            except queue.Empty:
                if attempts.expected:
                    on_bytes(attempts.size, attempts.expected)
        if isinstance(result, _Problem):
            raise DownloadError(
                f"{self.title} could not be downloaded from {public_url(self.url)}: {result.text}.", result.is_permanent
            )
        return result


class _Attempts:
    """The attempts at a download, run in a thread of their own."""

    def __init__(self, download: Download, file: BinaryIO, deadline: float) -> None:
        self.download, self.file, self.deadline = download, file, deadline
        self.size = 0
        """Bytes received in this attempt."""
        self.expected = 0
        """Bytes that the server promises; 0 if it does not."""

    def run(self) -> Downloaded | _Problem:
        """The result, or the problem."""
        problem = _Problem("")
        for delay in (0.0, *self.download.retry_delays_s):
            if time.monotonic() + delay > self.deadline:
                break
            time.sleep(delay)
            try:
                return self._fetch()
            except urllib.error.HTTPError as error:
                error.close()
                problem = _Problem(f"the server answered {error.code} {error.reason}")
                if error.code not in _RETRY_STATUSES:
                    return problem._replace(is_permanent=True)
            except _WrongContentError as error:
                return _Problem(str(error), is_permanent=True)
            except _StorageError as error:
                return _Problem(f"it cannot be stored: {error}", is_permanent=True)
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = getattr(error, "reason", error)
                problem = _Problem(getattr(reason, "strerror", None) or str(reason) or type(reason).__name__)
                if isinstance(reason, ssl.SSLCertVerificationError) or isinstance(error, ValueError):
                    return problem._replace(is_permanent=True)
        return problem

    def _fetch(self) -> Downloaded:
        """One attempt, from the beginning."""
        download = self.download
        request = urllib.request.Request(_quoted(download.url), headers={"User-Agent": "gptbox"})
        digest = hashlib.sha256()
        self.size = self.expected = 0
        self._store(lambda: (self.file.seek(0), self.file.truncate()))
        with _OPENER.open(request, timeout=download.timeout_s) as response:
            promised = response.headers.get("Content-Length") or ""
            self.expected = int(promised) if promised.isdecimal() else 0
            if response.headers.get_content_type() == "text/html":
                raise _WrongContentError("the server answered with a web page, not with a text")
            if self.expected > download.max_bytes:
                raise _WrongContentError(f"it has {self.expected:,} bytes, more than {download.max_bytes:,}")
            while chunk := response.read1(1 << 18):
                self.size += len(chunk)
                if self.size > download.max_bytes:
                    raise _WrongContentError(f"it has more than {download.max_bytes:,} bytes")
                digest.update(chunk)
                self._store(partial(self.file.write, chunk))
                if time.monotonic() > self.deadline:
                    raise TimeoutError(f"{self.size:,} bytes in {download.total_timeout_s:g} s")
            url = response.geturl()
        if self.size < self.expected:
            raise ConnectionError(f"the connection ended after {self.size:,} of {self.expected} bytes")
        self._store(self.file.flush)
        if download.sha256 and digest.hexdigest() != download.sha256:
            raise _WrongContentError(f"its SHA-256 is {digest.hexdigest()}, expected {download.sha256}")
        return Downloaded(self.size, digest.hexdigest(), url)

    @staticmethod
    def _store(operation: Callable[[], object]) -> None:
        try:
            operation()
        except OSError as error:
            raise _StorageError(error.strerror or str(error)) from None


def _opener() -> urllib.request.OpenerDirector:
    """Opens HTTP and HTTPS only, also after a redirect: urllib's own would go on to FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor, urllib.request.UnknownHandler,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener


_OPENER = _opener()


def _quoted(url: str) -> str:
    """The address with spaces and characters beyond ASCII escaped, and without a fragment."""
    parts = urlsplit(url)
    safe = "/:@!$&'()*+,;=~%?"
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode("ascii")
    return parts._replace(
        netloc=host, path=quote(parts.path, safe), query=quote(parts.query, safe), fragment=""
    ).geturl()


def public_url(url: str) -> str:
    """The address without what may be secret: user, password, query and fragment."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
