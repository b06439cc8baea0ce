"""A dataset from the Hugging Face Hub: one column of one split, stored as a .jsonl file.

DATASET_URL=hf:OWNER/NAME[:CONFIGURATION][?split=SPLIT&text=COLUMN&size=500MB]
"""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any
from urllib.parse import parse_qs

from gptbox.datasets import hub_stream
from gptbox.datasets.downloaded_text import MAX_BYTES, DownloadedText, Record
from gptbox.datasets.hub_stream import StreamRequest, public_text
from gptbox.datasets.json_lines import FIELD
from gptbox.datasets.progress import ProgressCallback
from gptbox.errors import DownloadError
from gptbox.settings import HUB_ADDRESS, parse_size

INSTALL = "pip install 'gptbox[hf]', or make hf, or with Docker docker-compose.hf.yml"


class HubText(DownloadedText):
    """The texts of a dataset on the Hugging Face Hub, from their beginning.

    A separate process streams them: its libraries' memory is freed when it ends, and it can be killed when a connection
    hangs.
    """

    def __init__(
        self,
        name: str,
        url: str,
        models: Path,
        *,
        max_bytes: int = MAX_BYTES,
        timeout_s: float = 300.0,
        attempts: int = 3,
        retry_delay_s: float = 3.0,
    ) -> None:
        """`url` matches HUB_ADDRESS; it is refused above `max_bytes` of text, unless it names a size.

        `timeout_s` bounds the time without a text; requests that fail are repeated up to `attempts` times, after
        `retry_delay_s` and the library's own delays.
        """
        super().__init__(name, url, models)
        match = HUB_ADDRESS.fullmatch(url)
        assert match is not None, "Settings accept no other address"
        query = {key: values[0] for key, values in parse_qs(match["query"] or "").items()}
        self._request = StreamRequest(
            path=match["path"],
            configuration=match["configuration"],
            split=query.get("split"),
            column=query.get("text", FIELD),
            size=parse_size(query["size"]) if "size" in query else None,
            max_bytes=max_bytes,
            attempts=attempts,
            retry_delay_s=retry_delay_s,
        )
        self._timeout_s = timeout_s

    @property
    def place(self) -> str:
        return self.url

    def _source(self, path: Path) -> str:
        return f"the text {self.name} ({self._request.path} from the Hugging Face Hub)"

    def _download(self, folder: Path, on_progress: ProgressCallback) -> Record:
        file = f"{self._request.path.rpartition('/')[2]}.jsonl"

        def report(done: int, total: int) -> None:
            on_progress(f"Downloading {self.name}", done, total)

        result = self._stream(folder / file, report)
        if self.sha256 not in (None, result["sha256"]):
            raise self._error(f"its SHA-256 is {result['sha256']}, expected {self.sha256}", is_permanent=True)
        count = _count(result["texts"], result["is_cut"])
        description = f"split {result['split']}, column {self._request.column}: {count}"
        return Record(file, result["size"], result["sha256"], description)

    def _stream(self, path: Path, report: Callable[[int, int], None]) -> dict[str, Any]:
        """Run hub_stream, which writes the file `path`; returns its last message. Raises DownloadError."""
        # Beside the file: /tmp may be small, and what a killed process leaves is deleted with its folder.
        with TemporaryDirectory(dir=path.parent) as cache, TemporaryFile(dir=path.parent) as errors:
            # -P, so that a folder `datasets` where the command runs is not taken for the package.
            command = [sys.executable, "-P", "-m", hub_stream.__name__, str(path), cache]
            request = json.dumps(asdict(self._request))
            messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
            with subprocess.Popen(
                [*command, request], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            ) as process:
                reader = threading.Thread(target=_read, args=(process.stdout, messages), daemon=True)
                try:
                    reader.start()
                    while (message := messages.get(timeout=self._timeout_s)) and "done" in message:
                        report(message["done"], message["total"])
                except queue.Empty:
                    raise self._error(f"nothing was received within {self._timeout_s:g} s") from None
                finally:
                    process.kill()
                    if reader.ident is not None:  # it has started
                        reader.join()  # before its file is closed
            if message is None:
                errors.seek(0)
                last_line = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
                problem = public_text(last_line) or process.returncode
                raise self._error(f"the process that reads it ended unexpectedly: {problem}")
        if "is_missing" in message:
            raise DownloadError(
                f"DATASET_URL={self.url} needs the Python package datasets, which is not installed: {INSTALL}.",
                is_permanent=True,
            )
        if "problem" in message:
            raise self._error(message["problem"], message["is_permanent"])
        return message

    def _error(self, problem: str, is_permanent: bool = False) -> DownloadError:
        return DownloadError(
            f"The text {self.name} could not be downloaded from {self.place}: {problem}.", is_permanent
        )


def _count(texts: int, is_cut: bool) -> str:
    if is_cut:
        return "the first text" if texts == 1 else f"the first {texts:,} texts"
    return "1 text" if texts == 1 else f"{texts:,} texts"


def _read(stream: IO[bytes], messages: "queue.SimpleQueue[dict[str, Any] | None]") -> None:
    """Pass on the messages of a process, and None at their end."""
    for line in stream:
        if line.endswith(b"\n"):  # else the process was killed
            messages.put(json.loads(line))
    messages.put(None)
