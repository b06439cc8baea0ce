"""UTF-8 text files, read in blocks: however long they are, no more than a block is held."""

import codecs
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from gptbox.datasets.base import FileMark, Summary, Text
from gptbox.datasets.progress import Watch, silent
from gptbox.errors import DatasetError

BLOCK = 1 << 18
"""Bytes read at once: what is made of them stays in the cache. With 4 MiB, all takes 1.1 to 1.7 times as long."""

# The longer marks first: UTF-32's begins with UTF-16's.
_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_NUL_LIMIT = 1000  # one NUL in so many bytes: no text has that, but pictures, archives and unmarked UTF-16 do
_SETTLED_NS = 2_000_000_000  # the coarsest clock that file systems have: a younger file may change unseen


class TextFile:
    """One file. What was seen when it was read first, `mark` and `notes`, must be seen again each further time."""

    def __init__(self, path: Path, block: int = BLOCK) -> None:
        self.path, self.block = path, block
        self.mark: FileMark | None = None
        self.settled = False
        """Whether the file was old enough when it was marked for its mark to show every later change."""
        self.notes: list[str] = []
        """A sentence for each thing that was normalised, once the file was read to its end."""
        self._bom, self._windows, self._returns = False, 0, 0

    def blocks(self) -> Iterator[str]:
        """The text: a byte order mark is dropped; CR LF and a lone CR become LF.

        Raises DatasetError naming the file, at its end for what only all of it shows.
        """
        self._bom, self._windows, self._returns = False, 0, 0
        blank = True
        try:
            self._look()
            with self.path.open("rb") as file:
                for text in self._lines(self._characters(file)):
                    blank = blank and (not text or text.isspace())
                    yield text
            self._look()
        except OSError as error:
            raise DatasetError(f"{self.path} cannot be read: {error.strerror}.") from None
        if blank:
            raise DatasetError(
                f"{self.path} is empty: it has no character but white space. Put text into it or take it away."
            )
        name = self.path.name
        self.notes = [f"{name}: the byte order mark at the beginning was dropped."] if self._bom else []
        if self._windows:
            self.notes.append(f"{name}: {self._windows:,} line ends of Windows (CR LF) became LF.")
        if self._returns:
            self.notes.append(f"{name}: {self._returns:,} lone carriage returns (CR) became LF.")

    def _look(self) -> None:
        mark = FileMark.of(self.path)
        if self.mark is None:
            self.mark = mark
            self.settled = time.time_ns() - max(mark.mtime_ns, mark.ctime_ns) > _SETTLED_NS
        elif mark != self.mark:
            raise DatasetError(f"{self.path} changed while it was read. Start again once it is complete.")

    def _characters(self, file: BinaryIO) -> Iterator[str]:
        """Decoded as it stands, but for the byte order mark."""
        head = file.read(max(map(len, _OTHER_ENCODINGS)))
        for mark, encoding in _OTHER_ENCODINGS.items():
            if head.startswith(mark):
                raise DatasetError(
                    f"{self.path} is {encoding}, not UTF-8. "
                    f"Convert it: iconv -f {encoding} -t UTF-8 {self.path.name} > new.txt"
                )
        file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
        self._bom = file.tell() > 0
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
                # A binary file is called one, whichever of its bytes comes first.
                for block in iter(lambda: file.read(self.block), b""):
                    nuls += block.count(0)
                    size += len(block)
                self._refuse_binary(nuls, size)
                raise DatasetError(
                    f"{self.path} is not UTF-8: the byte 0x{content[error.start]:02x} at offset {offset} "
                    "(counted from 0) fits no character. "
                    f"Convert it: iconv -f WINDOWS-1252 -t UTF-8 {self.path.name} > new.txt"
                ) from None
            rest = content[used:]
            yield text
            if not block:
                break
        self._refuse_binary(nuls, size)

    def _refuse_binary(self, nuls: int, size: int) -> None:
        if nuls * _NUL_LIMIT > size:
            raise DatasetError(
                f"{self.path} looks like a binary file: {nuls:,} of its {size:,} bytes are NUL. "
                "Save the text alone, as UTF-8, or take the file away."
            )

    def _lines(self, texts: Iterable[str]) -> Iterator[str]:
        """With every line's end as LF."""
        held = ""  # a CR, whose LF may begin the next text
        for text in texts:
            text = held + text
            held = "\r" if text.endswith("\r") else ""
            yield self._line_ends(text.removesuffix("\r"))
        yield self._line_ends(held)

    def _line_ends(self, text: str) -> str:
        if "\r" not in text:
            return text
        windows = text.count("\r\n")
        text = text.replace("\r\n", "\n")
        self._windows += windows
        self._returns += text.count("\r")
        return text.replace("\r", "\n")


class TextFiles:
    """Several files as one text, each beginning on a new line."""

    def __init__(self, paths: Sequence[Path], block: int = BLOCK) -> None:
        self.files = [TextFile(path, block) for path in paths]

    def blocks(self) -> Iterator[str]:
        """Raises DatasetError naming a file, see TextFile.blocks."""
        for i, file in enumerate(self.files):
            last = ""
            for text in file.blocks():
                last = text[-1:] or last
                yield text
            if last != "\n" and i < len(self.files) - 1:
                yield "\n"

    @property
    def notes(self) -> list[str]:
        return [note for file in self.files for note in file.notes]

    @property
    def marks(self) -> tuple[FileMark, ...]:
        """Of all files; () where one was too new when it was read."""
        return tuple(file.mark for file in self.files if file.mark) if all(f.settled for f in self.files) else ()


def read_files(name: str, paths: Sequence[Path], source: str, watch: Watch = silent) -> Text:
    """The files as the text of the dataset `name`, read to their end once. Raises DatasetError naming a file."""
    total = 0
    for path in paths:
        with suppress(OSError):  # reading it will tell
            total += path.stat().st_size
    files = TextFiles(paths)
    summary = Summary.of(files.blocks(), lambda done: watch(f"Reading {name}", done, total))
    return Text(files.blocks, summary, source, tuple(files.notes), files.marks)
