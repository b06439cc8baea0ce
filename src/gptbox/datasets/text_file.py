"""UTF-8 text files, read in blocks, so that memory does not grow with their length."""

import codecs
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from gptbox.datasets.base import Corpus, CorpusSummary, Document, FileStat
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.errors import DatasetError

BLOCK = 1 << 18
"""Bytes read at once; the arrays made of them fit the cache. 4 MiB blocks take 1.1 to 1.7 times as long."""

# Longer byte order marks first: UTF-32's begins with UTF-16's.
_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_BYTES_PER_NUL = 1000  # a file with more NUL bytes is binary, or UTF-16 without a byte order mark
_SETTLE_TIME_NS = 2_000_000_000  # coarsest resolution of mtime, within which a file may change unnoticed


class TextFile:
    """A text file that can be read several times, as long as it does not change."""

    def __init__(self, path: Path, block: int = BLOCK) -> None:
        self.path, self.block = path, block
        self.stat: FileStat | None = None
        """Stat data at the first reading; None before it."""
        self.settled = False
        """Whether the file was old enough at the first reading for `stat` to show every later change."""
        self.notes: list[str] = []
        """A sentence for each normalisation, once the file has been read to its end."""
        self._has_bom, self._num_crlf, self._num_cr = False, 0, 0

    def blocks(self) -> Iterator[str]:
        """The text, without a byte order mark, and with CR LF and lone CR replaced by LF.

        Raises DatasetError, which names the file; some faults only show at its end.
        """
        self._has_bom, self._num_crlf, self._num_cr = False, 0, 0
        blank = True
        try:
            self._check_unchanged()
            with self.path.open("rb") as file:
                for text in self._normalise_line_endings(self._decode(file)):
                    blank = blank and (not text or text.isspace())
                    yield text
            self._check_unchanged()
        except OSError as error:
            raise DatasetError(f"{self.path} cannot be read: {error.strerror}.") from None
        if blank:
            raise DatasetError(f"{self.path} is empty or has only white space. Put text into it or remove it.")
        name = self.path.name
        self.notes = [f"{name}: the byte order mark at the beginning was dropped."] if self._has_bom else []
        if self._num_crlf:
            self.notes.append(f"{name}: {self._num_crlf:,} Windows line endings (CR LF) became LF.")
        if self._num_cr:
            self.notes.append(f"{name}: {self._num_cr:,} lone carriage returns (CR) became LF.")

    def _check_unchanged(self) -> None:
        stat = FileStat.of(self.path)
        if self.stat is None:
            self.stat = stat
            self.settled = time.time_ns() - max(stat.mtime_ns, stat.ctime_ns) > _SETTLE_TIME_NS
        elif stat != self.stat:
            raise DatasetError(f"{self.path} changed while it was read. Start again once it is complete.")

    def _decode(self, file: BinaryIO) -> Iterator[str]:
        """The decoded text, without the byte order mark."""
        head = file.read(max(map(len, _OTHER_ENCODINGS)))
        for bom, encoding in _OTHER_ENCODINGS.items():
            if head.startswith(bom):
                raise DatasetError(
                    f"{self.path} is {encoding}, not UTF-8. "
                    f"Convert it: iconv -f {encoding} -t UTF-8 {self.path.name} > new.txt"
                )
        file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
        self._has_bom = file.tell() > 0
        nuls, size, rest = 0, file.tell(), b""
        while True:
            block = file.read(self.block)
            nuls += block.count(0)
            size += len(block)
            content = rest + block
            try:
                text, used = codecs.utf_8_decode(content, "strict", not block)
            except UnicodeDecodeError as error:
                offset = size - len(content) + error.start
                # A binary file is reported as such, even if an invalid byte comes first: count its NUL bytes, too.
                for block in iter(lambda: file.read(self.block), b""):
                    nuls += block.count(0)
                    size += len(block)
                self._reject_binary(nuls, size)
                raise DatasetError(
                    f"{self.path} is not UTF-8: invalid byte 0x{content[error.start]:02x} at offset {offset} "
                    "(counted from 0). "
                    f"Convert it: iconv -f WINDOWS-1252 -t UTF-8 {self.path.name} > new.txt"
                ) from None
            rest = content[used:]
            yield text
            if not block:
                break
        self._reject_binary(nuls, size)

    def _reject_binary(self, nuls: int, size: int) -> None:
        if nuls * _BYTES_PER_NUL > size:
            raise DatasetError(
                f"{self.path} looks like a binary file: {nuls:,} of its {size:,} bytes are NUL. "
                "Save only its text, as UTF-8, or remove the file."
            )

    def _normalise_line_endings(self, blocks: Iterable[str]) -> Iterator[str]:
        """The same text with LF as the only line ending."""
        pending = ""  # a CR at the end of a block, whose LF may begin the next one
        for block in blocks:
            text = pending + block
            pending = "\r" if text.endswith("\r") else ""
            yield self._to_lf(text.removesuffix("\r"))
        yield self._to_lf(pending)

    def _to_lf(self, text: str) -> str:
        if "\r" not in text:
            return text
        num_crlf = text.count("\r\n")
        text = text.replace("\r\n", "\n")
        self._num_crlf += num_crlf
        self._num_cr += text.count("\r")
        return text.replace("\r", "\n")


class TextFiles:
    """Several files as one text, each starting on a new line."""

    def __init__(self, paths: Sequence[Path], block: int = BLOCK) -> None:
        self.files = [TextFile(path, block) for path in paths]

    def documents(self) -> Iterator[Document]:
        """A document per file. Raises DatasetError, which names the file, as TextFile.blocks does."""
        for i, file in enumerate(self.files):
            yield Document(file.path.name, self._lines(file) if i < len(self.files) - 1 else file.blocks())

    @staticmethod
    def _lines(file: TextFile) -> Iterator[str]:
        """The text of a file, with a line end if it lacks one."""
        last_character = ""
        for text in file.blocks():
            last_character = text[-1:] or last_character
            yield text
        if last_character != "\n":
            yield "\n"

    @property
    def notes(self) -> list[str]:
        return [note for file in self.files for note in file.notes]

    @property
    def stats(self) -> tuple[FileStat, ...]:
        """Stat data of all files; () if one of them was too new when it was read."""
        return tuple(file.stat for file in self.files if file.stat) if all(f.settled for f in self.files) else ()


def read_files(name: str, paths: Sequence[Path], source: str, on_progress: ProgressCallback = no_progress) -> Corpus:
    """The corpus of the dataset `name` from files, which are read once. Raises DatasetError, which names the file."""
    total = 0
    for path in paths:
        with suppress(OSError):  # reported when the file is read
            total += path.stat().st_size
    files = TextFiles(paths)
    summary = CorpusSummary.of(files.documents(), lambda done: on_progress(f"Reading {name}", done, total))
    return Corpus(files.documents, summary, source, tuple(files.notes), files.stats)
