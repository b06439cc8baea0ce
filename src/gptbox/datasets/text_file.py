"""Files of texts, read in blocks, so that memory does not grow with their length."""

import gzip
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from gptbox.datasets import json_lines
from gptbox.datasets.archive import GzipStream, ZipArchive
from gptbox.datasets.base import Corpus, CorpusSummary, Document, FileStat
from gptbox.datasets.line_endings import LineEndings
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.datasets.text_decoder import BLOCK, Readable, TextDecoder
from gptbox.datasets.text_form import TextForm, printable_name
from gptbox.errors import DatasetError

_SETTLE_TIME_NS = 2_000_000_000  # coarsest resolution of mtime, within which a file may change unnoticed
_MAX_NOTES = 20  # of the files of a corpus


class TextFile:
    """A file of one or more texts that can be read several times, as long as it does not change."""

    def __init__(self, path: Path, block: int = BLOCK, name: str = "") -> None:
        """`name` is the file's place in the dataset's folder, with "/"; by default it is in that folder itself."""
        self.path, self.block = path, block
        self.name = printable_name(name or path.name)
        self.form = TextForm.of(path.name) or TextForm("text")
        self.stat: FileStat | None = None
        """Stat data at the first reading; None before it."""
        self.settled = False
        """Whether the file was old enough at the first reading for `stat` to show every later change."""
        self.notes: list[str] = []
        """A sentence for each conversion and normalisation, once the file has been read to its end."""
        self._opened: BinaryIO | None = None

    @property
    def label(self) -> str:
        """The path, for errors."""
        return printable_name(str(self.path))

    @property
    def position(self) -> int:
        """The number of bytes of the file, as it is on the disk, that have been read; 0 while it is not being read."""
        return self._opened.tell() if self._opened and not self._opened.closed else 0

    def documents(self, is_last: bool = True) -> Iterator[Document]:
        """The texts of the file, each with a line end, except the last one if `is_last`.

        Raises DatasetError, which names the file and, in an archive, the member; some faults only show at the end.
        """
        self.notes = []
        match self.form.kind:
            case "text":
                yield Document(self.name, self.blocks() if is_last else _with_line_end(self.blocks()))
            case "json_lines":
                with self._open() as stream:
                    yield from self._json_lines(stream, self.label, self.name, is_last)
            case "zip":
                yield from self._members(is_last)
            case "nested":
                raise DatasetError(
                    f"{self.label} is an archive in a .gz file, which is not read. Unpack it, or make a .zip of its "
                    "texts."
                )

    def blocks(self) -> Iterator[str]:
        """The text of a file that holds a single one. Raises DatasetError as `documents` does."""
        self.notes = []
        with self._open() as stream:
            yield from self._text(stream, self.label, self.name)

    def _members(self, is_last: bool) -> Iterator[Document]:
        with self._open_raw() as file:
            archive = ZipArchive(file, self.label, self._size)
            for member in archive.members:
                label, name = f"{self.label}/{member.name}", f"{self.name}/{member.name}"
                ends = is_last and member is archive.members[-1]
                with archive.open(member) as stream:
                    if member.form.kind == "json_lines":
                        yield from self._json_lines(stream, label, name, ends)
                    else:
                        blocks = self._text(stream, label, name)
                        yield Document(name, blocks if ends else _with_line_end(blocks))

    def _text(self, stream: Readable, label: str, name: str) -> Iterator[str]:
        """The blocks of a text, with LF as the only line ending."""
        decoder, endings = TextDecoder(label, name, self.block), LineEndings()
        blank = True
        # Here, too, because the reader of a document runs this, not the generator that opened the file.
        with self._reported_faults():
            for text in endings.normalise(decoder.decode(stream)):
                blank = blank and (not text or text.isspace())
                yield text
        if blank:
            raise DatasetError(f"{label} is empty or has only white space. Put text into it or remove it.")
        self.notes += [*decoder.notes, *endings.notes(name)]

    def _json_lines(self, stream: Readable, label: str, name: str, is_last: bool) -> Iterator[Document]:
        decoder, endings = TextDecoder(label, name, self.block), LineEndings()
        previous: Document | None = None
        num_blank = 0
        for number, line in json_lines.texts(decoder.decode(stream), label):
            if not line or line.isspace():
                num_blank += 1
                continue
            if previous:
                yield previous
            text = "".join(endings.normalise((line,))) if "\r" in line else line
            previous = Document(f"{name}, line {number:,}", (text if text.endswith("\n") else text + "\n",))
            last_text = text
        if previous is None:
            raise DatasetError(f"{label} has no line with text. Put text into it or remove it.")
        yield previous._replace(blocks=(last_text,)) if is_last else previous
        self.notes += [*decoder.notes, *endings.notes(name)]
        if num_blank:
            self.notes.append(f"{name}: {num_blank:,} lines without text were passed over.")

    @contextmanager
    def _open(self) -> Iterator[Readable]:
        """The content of the file, unpacked."""
        with self._open_raw() as file:
            yield GzipStream(file, self.label, self._size) if self.form.is_gzipped else file

    @contextmanager
    def _open_raw(self) -> Iterator[BinaryIO]:
        """The file as it is on the disk, which must be the same at the end and at each later reading."""
        with self._reported_faults():
            self._check_unchanged()
            with self.path.open("rb") as self._opened:
                yield self._opened
            self._check_unchanged()

    @contextmanager
    def _reported_faults(self) -> Iterator[None]:
        """Turns errors of reading and unpacking into DatasetError."""
        try:
            yield
        except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as error:
            problem = printable_name(str(error)).rstrip(".")
            raise DatasetError(
                f"{self.label} is damaged or incomplete: {problem}. Copy or download it again."
            ) from None
        except OSError as error:
            raise DatasetError(f"{self.label} cannot be read: {error.strerror or error}.") from None

    @property
    def _size(self) -> int:
        return self.stat.size if self.stat else 0

    def _check_unchanged(self) -> None:
        stat = FileStat.of(self.path, self.name)
        if self.stat is None:
            self.stat = stat
            self.settled = time.time_ns() - max(stat.mtime_ns, stat.ctime_ns) > _SETTLE_TIME_NS
        elif stat != self.stat:
            raise DatasetError(f"{self.label} changed while it was read. Start again once it is complete.")


def _with_line_end(blocks: Iterator[str]) -> Iterator[str]:
    """The same text, with a line end if it lacks one."""
    last_character = ""
    for text in blocks:
        last_character = text[-1:] or last_character
        yield text
    if last_character != "\n":
        yield "\n"


class TextFiles:
    """Several files as one corpus, in which each document starts on a new line."""

    def __init__(self, paths: Sequence[Path], block: int = BLOCK, folder: Path | None = None) -> None:
        """`folder` is the dataset's, for the files' names; None takes each file's own."""
        names = [path.relative_to(folder).as_posix() if folder else "" for path in paths]
        self.files = [TextFile(path, block, name) for path, name in zip(paths, names, strict=True)]
        self._bytes_before = 0
        self._current: TextFile | None = None

    def documents(self) -> Iterator[Document]:
        """The documents of all files. Raises DatasetError, which names the file, as TextFile.documents does."""
        self._bytes_before = 0
        for file in self.files:
            self._current = file
            yield from file.documents(is_last=file is self.files[-1])
            self._bytes_before += file.stat.size if file.stat else 0

    @property
    def bytes_read(self) -> int:
        """How far the reading of the documents has come, in bytes on the disk."""
        return self._bytes_before + (self._current.position if self._current else 0)

    @property
    def notes(self) -> list[str]:
        """The notes of all files; if they are many, the first ones and the number of the others."""
        notes = [note for file in self.files for note in file.notes]
        if (more := len(notes) - _MAX_NOTES) <= 0:
            return notes
        return [*notes[:_MAX_NOTES], f"{more:,} more notes of this kind are left out."]

    @property
    def stats(self) -> tuple[FileStat, ...]:
        """Stat data of all files; () if one of them was too new when it was read."""
        return tuple(file.stat for file in self.files if file.stat) if all(f.settled for f in self.files) else ()


def stat_files(paths: Sequence[Path], folder: Path | None = None) -> tuple[FileStat, ...]:
    """Stat data of files as TextFiles has them; () if a file has none, which is reported when it is read."""
    try:
        return tuple(FileStat.of(file.path, file.name) for file in TextFiles(paths, folder=folder).files)
    except OSError:
        return ()


def read_files(
    name: str,
    paths: Sequence[Path],
    source: str,
    on_progress: ProgressCallback = no_progress,
    folder: Path | None = None,
) -> Corpus:
    """The corpus of the dataset `name` from files, which are read once. Raises DatasetError, which names the file.

    `folder` is the dataset's, for the names of files in its sub-folders.
    """
    total = 0
    for path in paths:
        with suppress(OSError):  # reported when the file is read
            total += path.stat().st_size
    files = TextFiles(paths, folder=folder)
    summary = CorpusSummary.of(files.documents(), lambda _: on_progress(f"Reading {name}", files.bytes_read, total))
    return Corpus(files.documents, summary, source, tuple(files.notes), files=files.stats)
