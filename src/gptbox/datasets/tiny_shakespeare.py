"""Tiny Shakespeare, the text of nanoGPT's character lesson: your own copy, or a download, or the plays instead."""

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

from gptbox.datasets.base import Dataset, Text
from gptbox.datasets.plays import Plays
from gptbox.datasets.progress import Watch, silent
from gptbox.datasets.text_file import read_files
from gptbox.datasets.text_folder import dataset_folder, text_files
from gptbox.errors import DatasetError, DownloadError

# Pinned to a commit: a branch may move.
URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
    "/data/tinyshakespeare/input.txt"
)
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

_LIMIT = 8 * 1024 * 1024  # bytes: seven times the text
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class TinyShakespeare(Dataset):
    name = "shakespeare_char"

    def __init__(
        self,
        url: str = URL,
        fallback: Dataset | None = None,
        timeout_s: float = 10.0,
        total_s: float = 30.0,
        pauses_s: tuple[float, ...] = (0.5, 1.5),
    ) -> None:
        """`timeout_s` bounds each connect and read, `total_s` the whole effort; each pause is before one more try."""
        self.url = url
        self.fallback = fallback or Plays()
        self.timeout_s = timeout_s
        self.total_s = total_s
        self.pauses_s = pauses_s

    def read(self, data: Path, watch: Watch = silent) -> Text:
        """`input.txt` in the dataset's folder; without it the download; where that fails, the plays."""
        if own := self.own_text(data, watch):
            return own
        file = dataset_folder(data, self.name) / "input.txt"
        unused = text_files(file.parent)
        notes = [f"Only a file named {file} would be used, not {unused[0].name} beside it."] if unused else []
        try:
            return Text.of(self.download(), "Tiny Shakespeare (downloaded)", tuple(notes))
        except DownloadError as failure:
            advice = f"To train on it, save {self.url} as {file} and start a new run."
            try:
                plays = self.fallback.read(data, watch)
            except DatasetError as missing:
                raise DownloadError(f"{failure} {advice} The plays cannot stand in for it: {missing}") from None
            return replace(
                plays,
                source=f"{plays.source} (Tiny Shakespeare could not be downloaded)",
                notes=(*notes, str(failure), f"Its place is taken by {plays.source}. {advice}", *plays.notes),
            )

    def own_files(self, data: Path) -> list[Path]:
        file = dataset_folder(data, self.name) / "input.txt"
        return [file] if file in text_files(file.parent) else []

    def own_text(self, data: Path, watch: Watch = silent) -> Text | None:
        if not (files := self.own_files(data)):
            return None
        [file] = files
        text = read_files(self.name, files, f"Tiny Shakespeare ({file.name})", watch)
        if (found := text.summary.sha256) == SHA256:
            return text
        note = f"{file} is not Tiny Shakespeare: its SHA-256 is {found}, not {SHA256}. It is used all the same."
        return replace(text, source=f"the text {self.name} ({file.name})", notes=(*text.notes, note))

    def download(self) -> str:
        """The text from `url`, checked.

        Raises DownloadError. Passing faults are tried again; a wrong address or text would stay wrong.
        """
        # A thread, because neither looking up a name nor trying a host's many addresses can be given a time limit.
        answers: queue.SimpleQueue[str | DownloadError] = queue.SimpleQueue()
        deadline = time.monotonic() + self.total_s
        threading.Thread(target=lambda: answers.put(self._tries(deadline)), daemon=True).start()
        try:
            answer = answers.get(timeout=self.total_s)
        except queue.Empty:
            answer = self._failure(f"no complete answer within {self.total_s:g} s")
        if isinstance(answer, DownloadError):
            raise answer
        return answer

    def _tries(self, deadline: float) -> str | DownloadError:
        problem = ""
        for pause in (0.0, *self.pauses_s):
            if time.monotonic() + pause > deadline:
                break
            time.sleep(pause)
            try:
                content = self._fetch(deadline)
            except urllib.error.HTTPError as error:
                error.close()
                problem = f"the server answered {error.code} {error.reason}"
                if error.code not in _TRANSIENT:
                    break
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = getattr(error, "reason", error)
                problem = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
                if isinstance(reason, ssl.SSLCertVerificationError) or isinstance(error, ValueError):
                    break
            else:
                if len(content) > _LIMIT:
                    problem = f"more than {_LIMIT:,} bytes came"
                elif (found := hashlib.sha256(content).hexdigest()) != SHA256:
                    problem = f"its SHA-256 is {found}, expected {SHA256}"
                else:
                    return content.decode("utf-8")
                break
        return self._failure(problem)

    def _fetch(self, deadline: float) -> bytes:
        """One try: at most one byte more than the limit."""
        request = urllib.request.Request(self.url, headers={"User-Agent": "gptbox"})
        content = bytearray()
        with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
            while len(content) <= _LIMIT and (piece := response.read1(65_536)):
                content += piece
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{len(content):,} bytes in {self.total_s:g} s")
            expected = response.headers.get("Content-Length")
        if expected and expected.isdigit() and len(content) < min(int(expected), _LIMIT):
            raise ConnectionError(f"the connection ended after {len(content):,} of {expected} bytes")
        return bytes(content[: _LIMIT + 1])

    def _failure(self, problem: str) -> DownloadError:
        return DownloadError(f"Tiny Shakespeare could not be downloaded from {self.url}: {problem}.")
