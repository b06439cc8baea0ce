"""DATASET_URL: a text or archive from a web address, downloaded once and kept.

    data/.downloads/NAME-0123456789ab/   or, where data/ cannot be written, beside the runs: models/.downloads/...
        enwik8.zip       the file, as it was downloaded
        download.json    its SHA-256 and size

The digits are the beginning of the address's SHA-256. A folder is complete or absent; delete it to download again.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urldefrag, urlsplit

from gptbox.datasets.base import Corpus, Dataset, FileStat
from gptbox.datasets.download import Download, public_url
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.datasets.text_file import read_files, stat_files
from gptbox.datasets.text_folder import text_files
from gptbox.datasets.text_form import SUPPORTED, TextForm, printable_name
from gptbox.errors import DatasetError, DownloadError
from gptbox.system import file_lock
from gptbox.system.atomic import atomic_folder, remove_temporaries, write_json

FOLDER = ".downloads"
MAX_BYTES = 1 << 30
"""Largest file that is downloaded: 1 GiB."""

_MAX_NAME = 80  # characters of a stored file's name
_PIN = "sha256="


@dataclass(frozen=True)
class _Record:
    """The content of download.json."""

    file: str
    """Name of the downloaded file, beside download.json."""
    size: int
    sha256: str


class _Stored(NamedTuple):
    """A download that is complete."""

    path: Path
    record: _Record


class UrlText(Dataset):
    """The text at an HTTP or HTTPS address, whose end may be `#sha256=` and the expected SHA-256 in hex.

    The name at the end of the address, or of the one that it redirects to, tells the form: .txt, .zip and so on.
    """

    def __init__(
        self,
        name: str,
        url: str,
        models: Path,
        *,
        max_bytes: int = MAX_BYTES,
        timeout_s: float = 30.0,
        total_timeout_s: float = 3600.0,
        retry_delays_s: tuple[float, ...] = (1.0, 4.0),
    ) -> None:
        """`models` is the folder of the runs; the download is stored there if the data folder cannot be written.

        Raises DatasetError if the address has a user name or password.
        """
        self.name = name
        address, fragment = urldefrag(url)
        self.url = address
        self.sha256 = fragment.removeprefix(_PIN).lower() or None
        self.origin = hashlib.sha256(address.encode()).hexdigest()[:12]
        self._models = models
        self._download = Download(
            f"The text {name}", address, max_bytes, self.sha256, timeout_s, total_timeout_s, retry_delays_s
        )
        if "@" in urlsplit(address).netloc:
            raise DatasetError(
                f"The address {public_url(address)} has a user name or a password, which are not sent. Download the "
                "file yourself and put it into a folder in data."
            )

    def read(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus:
        self.fetch(data, on_progress)
        corpus = self.read_user_files(data, on_progress)
        if corpus is None:
            raise DatasetError(f"The download of {public_url(self.url)} has been deleted. Start again.")
        return corpus

    def fetch(self, data: Path, on_progress: ProgressCallback = no_progress) -> None:
        """Download the file, unless it is stored. Raises DatasetError, DownloadError."""
        if self._stored(data) is None:
            with self._writable_folder(data) as folder:
                self._fetch_into(folder / f"{self.name}-{self.origin}", on_progress)

    def user_files(self, data: Path) -> tuple[FileStat, ...]:
        stored = self._stored(data)
        return stat_files([stored.path]) if stored else ()

    def read_user_files(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus | None:
        stored = self._stored(data)
        if stored is None:
            return None
        path, record = stored
        source = f"the text {self.name} ({path.name} from {urlsplit(self.url).hostname})"
        corpus = read_files(self.name, [path], source, on_progress)
        notes = [f"{public_url(self.url)}: {record.size:,} bytes, SHA-256 {record.sha256}."]
        with suppress(DatasetError):
            if text_files(data / self.name):
                notes.append(f"The files in {data / self.name} are not used, because DATASET_URL gives the text.")
        return replace(corpus, notes=(*notes, *corpus.notes), origin=self.origin)

    def _stored(self, data: Path) -> _Stored | None:
        """The complete download; None if there is none. Raises DatasetError if it is not the expected one."""
        for folder in self._folders(data):
            path = folder / f"{self.name}-{self.origin}"
            try:
                record = _Record(**json.loads((path / "download.json").read_text(encoding="utf-8")))
                if (path / record.file).stat().st_size != record.size:
                    continue
            except (OSError, ValueError, TypeError):
                continue
            if self.sha256 not in (None, record.sha256):
                raise DatasetError(
                    f"The text {self.name}, as it was downloaded, has the SHA-256 {record.sha256}, expected "
                    f"{self.sha256}. Correct DATASET_URL, or delete {path} to download it again."
                )
            return _Stored(path / record.file, record)
        return None

    def _folders(self, data: Path) -> Sequence[Path]:
        return (data / FOLDER, self._models / FOLDER)

    @contextmanager
    def _writable_folder(self, data: Path) -> Iterator[Path]:
        """The first of the folders that can be written, locked if it is free, and without what killed downloads left.

        Raises DatasetError if there is none.
        """
        problem = ""
        for folder in self._folders(data):
            lock: AbstractContextManager[object] = nullcontext()
            try:
                # An absent data folder stays absent.
                folder.mkdir(parents=folder.parent == self._models, exist_ok=True)
                with suppress(BlockingIOError, ImportError):  # another download is going on; Windows has no locks
                    lock = file_lock.acquire(folder / ".lock")
                    remove_temporaries(folder)
            except OSError as error:
                problem = f"{folder} cannot be written: {error.strerror}"
                continue
            with lock:
                yield folder
            return
        raise DatasetError(f"There is no place for the text {self.name}: {problem}.")

    def _fetch_into(self, path: Path, on_progress: ProgressCallback) -> None:
        """Download into the folder `path`, atomically."""
        operation = f"Downloading {self.name}"
        try:
            with atomic_folder(path) as temporary:
                unnamed = temporary / "download"
                with unnamed.open("wb") as file:
                    downloaded = self._download.to_file(file, lambda done, total: on_progress(operation, done, total))
                name = self._file_name(downloaded.url)
                unnamed.rename(temporary / name)
                write_json(temporary / "download.json", asdict(_Record(name, downloaded.size, downloaded.sha256)))
        except OSError as error:
            if not (path / "download.json").exists():  # else another process was faster
                raise DownloadError(
                    f"The text {self.name} cannot be stored in {path}: {error.strerror or error}."
                ) from None

    def _file_name(self, redirected: str) -> str:
        """The name to store the file under, from the address or the one that it redirected to."""
        names = [printable_name(unquote(urlsplit(url).path).rpartition("/")[2]) for url in (self.url, redirected)]
        for name in names:
            if TextForm.of(name) is not None:
                return name[-_MAX_NAME:].lstrip(".")
        raise DownloadError(
            f"{public_url(self.url)} is not the address of a text: its name, {names[0] or '(none)'}, is not that of "
            f"one of the {SUPPORTED}.",
            is_permanent=True,
        )
