"""Tiny Shakespeare, the text of nanoGPT's character lesson: the user's copy, else a download, else the plays."""

import hashlib
import http.client
import queue
import ssl
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

from gptbox.datasets.base import Corpus, Dataset
from gptbox.datasets.plays import Plays
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.datasets.text_file import read_files
from gptbox.datasets.text_folder import dataset_folder, text_files
from gptbox.errors import DatasetError, DownloadError

# Pinned to a commit, because a branch may move.
URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
    "/data/tinyshakespeare/input.txt"
)
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

_MAX_BYTES = 8 * 1024 * 1024  # seven times the size of the text
_RETRY_STATUSES = {408, 425, 429, 500, 502, 503, 504}


class TinyShakespeare(Dataset):
    name = "shakespeare_char"

    def __init__(
        self,
        url: str = URL,
        fallback: Dataset | None = None,
        timeout_s: float = 10.0,
        total_timeout_s: float = 30.0,
        retry_delays_s: tuple[float, ...] = (0.5, 1.5),
    ) -> None:
        """`timeout_s` bounds each connect and read, `total_timeout_s` the whole download with its retries."""
        self.url = url
        self.fallback = fallback or Plays()
        self.timeout_s = timeout_s
        self.total_timeout_s = total_timeout_s
        self.retry_delays_s = retry_delays_s

    def read(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus:
        """`input.txt` in the dataset's folder; without it, the download; if that fails, the plays."""
        if corpus := self.read_user_files(data, on_progress):
            return corpus
        file = dataset_folder(data, self.name) / "input.txt"
        unused = text_files(file.parent)
        notes = [f"Only a file named {file} would be used, not {unused[0].name} beside it."] if unused else []
        try:
            return Corpus.from_text(self.download(), "Tiny Shakespeare (downloaded)", tuple(notes))
        except DownloadError as failure:
            advice = f"To train on it, save {self.url} as {file} and start a new run."
            try:
                plays = self.fallback.read(data, on_progress)
            except DatasetError as error:
                raise DownloadError(f"{failure} {advice} The plays cannot replace it: {error}") from None
            return replace(
                plays,
                source=f"{plays.source} (Tiny Shakespeare could not be downloaded)",
                notes=(*notes, str(failure), f"It is replaced by {plays.source}. {advice}", *plays.notes),
            )

    def user_files(self, data: Path) -> list[Path]:
        file = dataset_folder(data, self.name) / "input.txt"
        return [file] if file in text_files(file.parent) else []

    def read_user_files(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus | None:
        if not (files := self.user_files(data)):
            return None
        [file] = files
        corpus = read_files(self.name, files, f"Tiny Shakespeare ({file.name})", on_progress)
        if (sha256 := corpus.summary.sha256) == SHA256:
            return corpus
        note = f"{file} is not Tiny Shakespeare: its SHA-256 is {sha256}, not {SHA256}. It is used anyway."
        return replace(corpus, source=f"the text {self.name} ({file.name})", notes=(*corpus.notes, note))

    def download(self) -> str:
        """The text from `url`, verified by its SHA-256.

        Transient errors are retried; a wrong address or a wrong text is not. Raises DownloadError.
        """
        # In a thread, because urllib's timeout covers neither DNS lookups nor a host's addresses taken together.
        results: queue.SimpleQueue[str | DownloadError] = queue.SimpleQueue()
        deadline = time.monotonic() + self.total_timeout_s
        threading.Thread(target=lambda: results.put(self._download_with_retries(deadline)), daemon=True).start()
        try:
            result = results.get(timeout=self.total_timeout_s)
        except queue.Empty:
            result = self._error(f"no complete answer within {self.total_timeout_s:g} s")
        if isinstance(result, DownloadError):
            raise result
        return result

    def _download_with_retries(self, deadline: float) -> str | DownloadError:
        problem = ""
        for delay in (0.0, *self.retry_delays_s):
            if time.monotonic() + delay > deadline:
                break
            time.sleep(delay)
            try:
                content = self._fetch(deadline)
            except urllib.error.HTTPError as error:
                error.close()
                problem = f"the server answered {error.code} {error.reason}"
                if error.code not in _RETRY_STATUSES:
                    break
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = getattr(error, "reason", error)
                problem = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
                if isinstance(reason, ssl.SSLCertVerificationError) or isinstance(error, ValueError):
                    break
            else:
                if len(content) > _MAX_BYTES:
                    problem = f"it has more than {_MAX_BYTES:,} bytes"
                elif (sha256 := hashlib.sha256(content).hexdigest()) != SHA256:
                    problem = f"its SHA-256 is {sha256}, expected {SHA256}"
                else:
                    return content.decode("utf-8")
                break
        return self._error(problem)

    def _fetch(self, deadline: float) -> bytes:
        """The content of `url`, up to _MAX_BYTES + 1 bytes, in one attempt."""
        request = urllib.request.Request(self.url, headers={"User-Agent": "gptbox"})
        content = bytearray()
        with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
            while len(content) <= _MAX_BYTES and (chunk := response.read1(65_536)):
                content += chunk
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{len(content):,} bytes in {self.total_timeout_s:g} s")
            expected = response.headers.get("Content-Length")
        if expected and expected.isdigit() and len(content) < min(int(expected), _MAX_BYTES):
            raise ConnectionError(f"the connection ended after {len(content):,} of {expected} bytes")
        return bytes(content[: _MAX_BYTES + 1])

    def _error(self, problem: str) -> DownloadError:
        return DownloadError(f"Tiny Shakespeare could not be downloaded from {self.url}: {problem}.")
