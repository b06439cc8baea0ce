"""DATASET_URL: a text that is downloaded once and kept.

    data/.downloads/enwik8-0123456789ab/   or, where data/ cannot be written, beside the runs: models/.downloads/...
        enwik8.zip       the file, as it was downloaded
        download.json    its SHA-256 and size

The digits are the beginning of the address's SHA-256. A folder is complete or absent; delete it to download again.
"""

import hashlib
import json
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urldefrag

from gptbox.datasets.base import Corpus, Dataset, FileStat
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.datasets.text_file import read_files, stat_files
from gptbox.datasets.text_folder import text_files
from gptbox.errors import DatasetError, DownloadError
from gptbox.settings import name_from_url
from gptbox.system import file_lock
from gptbox.system.atomic import atomic_folder, remove_temporaries, write_json

FOLDER = ".downloads"
MAX_BYTES = 1 << 30
"""Largest text that is downloaded unless more is asked for: 1 GiB."""

_PIN = "sha256="


@dataclass(frozen=True)
class Record:
    """The content of download.json."""

    file: str
    """Name of the downloaded file, beside download.json."""
    size: int
    sha256: str
    description: str = ""
    """What is known of the file beyond its address, for people."""


class _Stored(NamedTuple):
    """A download that is complete."""

    path: Path
    record: Record


class DownloadedText(Dataset):
    """The text at an address, whose end may be `#sha256=` and the expected SHA-256 of the file in hex."""

    def __init__(self, name: str, url: str, models: Path) -> None:
        """`models` is the folder of the runs; the download is stored there if the data folder cannot be written."""
        self.name = name
        self.url, fragment = urldefrag(url)
        self.sha256 = fragment.removeprefix(_PIN).lower() or None
        self.origin = hashlib.sha256(self.url.encode()).hexdigest()[:12]
        self._folder_name = f"{name_from_url(self.url)}-{self.origin}"
        self._models = models

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the text comes from, for messages; without what may be secret."""

    @abstractmethod
    def _source(self, path: Path) -> str:
        """A phrase for Corpus.source; `path` is the stored file."""

    @abstractmethod
    def _download(self, folder: Path, on_progress: ProgressCallback) -> Record:
        """Download the file into an empty folder. Raises DownloadError, OSError."""

    def read(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus:
        self.fetch(data, on_progress)
        corpus = self.read_user_files(data, on_progress)
        if corpus is None:
            raise DatasetError(f"The download of {self.place} has been deleted. Start again.")
        return corpus

    def fetch(self, data: Path, on_progress: ProgressCallback = no_progress) -> None:
        """Download the file, unless it is stored. Raises DatasetError, DownloadError."""
        if self._stored(data) is None:
            with self._writable_folder(data) as folder:
                self._fetch_into(folder / self._folder_name, on_progress)

    def user_files(self, data: Path) -> tuple[FileStat, ...]:
        stored = self._stored(data)
        return stat_files([stored.path]) if stored else ()

    def read_user_files(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus | None:
        stored = self._stored(data)
        if stored is None:
            return None
        path, record = stored
        corpus = read_files(self.name, [path], self._source(path), on_progress)
        description = f"{record.description}, " if record.description else ""
        notes = [f"{self.place}: {description}{record.size:,} bytes, SHA-256 {record.sha256}."]
        with suppress(DatasetError):
            if text_files(data / self.name):
                notes.append(f"The files in {data / self.name} are not used, because DATASET_URL gives the text.")
        return replace(corpus, notes=(*notes, *corpus.notes), origin=self.origin)

    def _stored(self, data: Path) -> _Stored | None:
        """The complete download; None if there is none. Raises DatasetError if it is not the expected one."""
        for folder in self._folders(data):
            stored = _load(folder / self._folder_name)
            if stored is None:
                continue
            if self.sha256 not in (None, stored.record.sha256):
                raise DatasetError(
                    f"The text {self.name}, as it was downloaded, has the SHA-256 {stored.record.sha256}, expected "
                    f"{self.sha256}. Correct DATASET_URL, or delete {stored.path.parent} to download it again."
                )
            return stored
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
        try:
            with atomic_folder(path) as temporary:
                record = self._download(temporary, on_progress)
                write_json(temporary / "download.json", asdict(record))
                if _load(path) is None:
                    shutil.rmtree(path, ignore_errors=True)  # damaged
        except OSError as error:
            if _load(path) is None:  # else another process was faster
                raise DownloadError(
                    f"The text {self.name} cannot be stored in {path}: {error.strerror or error}."
                ) from None


def _load(path: Path) -> _Stored | None:
    """The download in a folder; None if there is none or it is damaged."""
    try:
        record = Record(**json.loads((path / "download.json").read_text(encoding="utf-8")))
        if (path / record.file).stat().st_size == record.size:
            return _Stored(path / record.file, record)
    except (OSError, ValueError, TypeError):
        pass
    return None
