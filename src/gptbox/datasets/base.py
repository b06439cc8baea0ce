"""What every dataset gives: one text, and where it came from."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from gptbox.datasets.progress import Watch, silent

CODE_POINTS = 0x110000  # of Unicode


@dataclass(frozen=True)
class Summary:
    """What can be said of a text after reading it once."""

    characters: int
    bytes: int
    """In UTF-8."""
    sha256: str
    """Of the UTF-8, in hex."""
    alphabet: tuple[str, ...]
    """Its different characters, in code point order."""

    @classmethod
    def of(cls, blocks: Iterable[str], watch: Callable[[int], None] = lambda _: None) -> Self:
        """Read a text to its end; `watch` is told the bytes read so far."""
        characters = size = 0
        digest = hashlib.sha256()
        ascii_seen = b""
        seen = np.zeros(CODE_POINTS, np.bool_)
        for block in blocks:
            content = block.encode("utf-8")
            digest.update(content)
            characters += len(block)
            size += len(content)
            # No byte of another character is an ASCII character's, so that taking known ones out leaves whole ones.
            new = content.translate(None, ascii_seen).decode("utf-8")
            seen[np.frombuffer(new.encode("utf-32-le"), "<u4")] = True
            ascii_seen = bytes(np.flatnonzero(seen[:128]).tolist())
            watch(size)
        alphabet = tuple(chr(point) for point in np.flatnonzero(seen))
        return cls(characters, size, digest.hexdigest(), alphabet)


@dataclass(frozen=True)
class FileMark:
    """What shows, without reading it, that a file is still the same."""

    name: str
    size: int
    mtime_ns: int
    ctime_ns: int
    """Changes with the content too, and cannot be set back, as unpacking an archive does with the other time."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Raises OSError."""
        status = path.stat()
        return cls(path.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class Text:
    """A dataset's whole text, normalised: Unicode characters, lines ended by "\\n" alone."""

    blocks: Callable[[], Iterable[str]] = field(compare=False, repr=False)
    """Gives it from the beginning, in pieces of any length; it may be called again. Raises DatasetError."""
    summary: Summary
    source: str
    """Where it came from, in one phrase for people: "Tiny Shakespeare (downloaded)"."""
    notes: tuple[str, ...] = ()
    """Each normalisation or fallback that happened, as one plain sentence."""
    files: tuple[FileMark, ...] = ()
    """The user's own files that it was read from; () where it came from elsewhere, or they are too new to be sure."""

    @classmethod
    def of(cls, text: str, source: str, notes: tuple[str, ...] = ()) -> Self:
        """A text that is short enough to be held."""
        return cls(lambda: (text,), Summary.of((text,)), source, notes)

    @property
    def text(self) -> str:
        """All of it in memory: for short ones."""
        return "".join(self.blocks())


class Dataset(ABC):
    name: str

    @abstractmethod
    def read(self, data: Path, watch: Watch = silent) -> Text:
        """The whole text. `data` is the folder of the user's own texts, one folder a dataset.

        Raises DatasetError where the text cannot be found, read or used, DownloadError where it cannot be fetched.
        """

    def own_files(self, data: Path) -> list[Path]:
        """The user's own files that `own_text` would read at present. Raises DatasetError."""
        return []

    def own_text(self, data: Path, watch: Watch = silent) -> Text | None:
        """What the user's own files hold at present; None where the text comes from elsewhere.

        This never uses the network, so that a run can be continued without one. Raises DatasetError.
        """
        return None
