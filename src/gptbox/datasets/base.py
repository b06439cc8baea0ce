"""The interface of all datasets: a corpus, and where it came from."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.tokenizers import AUTO

_CODE_POINTS = 0x110000  # of Unicode


class Document(NamedTuple):
    """One of the texts of a corpus, such as a file."""

    name: str
    """Where the text comes from, for messages: "letters/1.txt"."""
    blocks: Iterable[str]
    """The text, in blocks of any length, to be read once and before the next document. Raises DatasetError."""


@dataclass(frozen=True)
class CorpusSummary:
    """Size, hash and alphabet of a corpus, computed in one pass."""

    documents: int
    characters: int
    bytes: int
    """Size in UTF-8."""
    sha256: str
    """Of the UTF-8 bytes, in hex."""
    alphabet: tuple[str, ...]
    """The distinct characters, in code point order."""

    @classmethod
    def of(cls, documents: Iterable[Document], on_bytes: Callable[[int], None] = lambda _: None) -> Self:
        """Read a corpus to its end; `on_bytes` is called with the number of bytes read so far."""
        num_documents = characters = size = 0
        digest = hashlib.sha256()
        ascii_seen = b""
        seen = np.zeros(_CODE_POINTS, np.bool_)
        for document in documents:
            num_documents += 1
            for block in document.blocks:
                content = block.encode("utf-8")
                digest.update(content)
                characters += len(block)
                size += len(content)
                # UTF-8 has no ASCII byte within another character, so that deleting known ASCII leaves valid UTF-8.
                if new := content.translate(None, ascii_seen):
                    seen[np.frombuffer(new.decode("utf-8").encode("utf-32-le"), "<u4")] = True
                    ascii_seen = bytes(np.flatnonzero(seen[:128]).tolist())
                on_bytes(size)
        alphabet = tuple(chr(point) for point in np.flatnonzero(seen))
        return cls(num_documents, characters, size, digest.hexdigest(), alphabet)


@dataclass(frozen=True)
class FileStat:
    """Stat data that shows, without reading a file, whether it has changed."""

    name: str
    """The file's place in the dataset's folder, with "/"."""
    size: int
    mtime_ns: int
    ctime_ns: int
    """Changes with the content, like mtime, but programs cannot set it, as tar sets mtime when it unpacks a file."""

    @classmethod
    def of(cls, path: Path, name: str) -> Self:
        """Raises OSError."""
        status = path.stat()
        return cls(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class Corpus:
    """The whole text of a dataset, normalised: Unicode characters, with "\\n" as the only line ending."""

    documents: Callable[[], Iterable[Document]] = field(compare=False, repr=False)
    """Yields the documents from the first one on each call; their texts, joined, are the whole text.

    Raises DatasetError.
    """
    summary: CorpusSummary
    source: str
    """Where the text came from, as a phrase for people: "Tiny Shakespeare (downloaded)"."""
    notes: tuple[str, ...] = ()
    """A sentence for each normalisation or fallback that was applied."""
    origin: str = ""
    """Dataset.origin."""
    files: tuple[FileStat, ...] = ()
    """The user's files that the text was read from; () if it came from elsewhere, or if a file may still change."""
    tokenizer: str = AUTO
    """What AUTO means for this text: a name in TOKENIZERS, or AUTO if that depends on the text."""

    @classmethod
    def from_text(cls, text: str, source: str, notes: tuple[str, ...] = ()) -> Self:
        """A corpus of one document, held in memory."""
        documents = (Document(source, (text,)),)
        return cls(lambda: documents, CorpusSummary.of(documents), source, notes)

    def __iter__(self) -> Iterator[str]:
        """The blocks of the text, from the beginning."""
        return chain.from_iterable(document.blocks for document in self.documents())

    @property
    def text(self) -> str:
        """The whole text as one string, for short texts."""
        return "".join(self)


class Dataset(ABC):
    """A named source of one corpus."""

    name: str

    @abstractmethod
    def read(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus:
        """The corpus. `data` is the folder of the user's own texts, one folder per dataset.

        Raises DatasetError if the text cannot be found, read or used, DownloadError if it cannot be downloaded.
        """

    origin: str = ""
    """Identifies the text among those of one name, such as by its address; "" if the name alone does."""

    def fetch(self, data: Path, on_progress: ProgressCallback = no_progress) -> None:  # noqa: B027
        """Download what `read` needs and keeps, so that it need not be done then; nothing by default.

        Raises DatasetError.
        """

    def user_files(self, data: Path) -> tuple[FileStat, ...]:
        """Stat data of the user's files that `read_user_files` would read; () if it is not known.

        Raises DatasetError.
        """
        return ()

    def read_user_files(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus | None:
        """The corpus from the user's files; None if the text comes from elsewhere.

        Never uses the network, so that a run can continue offline. Raises DatasetError.
        """
        return None
