"""Bytes to text, in blocks, so that memory does not grow with the length."""

import codecs
import re
from collections.abc import Iterator
from typing import Protocol

from gptbox.datasets import encoding
from gptbox.datasets.encoding import Encoding
from gptbox.errors import DatasetError

BLOCK = 1 << 18
"""Bytes read at once; the arrays made of them fit the cache. 4 MiB blocks take 1.1 to 1.7 times as long."""

_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_CONTEXT_BYTES = 1024  # of ASCII in a sample, before the first byte that is not
_BYTES_PER_NUL = 1000  # a file with more NUL bytes is binary, or UTF-16 without a byte order mark


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        ...


class TextDecoder:
    """Decodes one text: UTF-8, UTF-16 or UTF-32 by a byte order mark, or another encoding that can be recognised.

    The first SAMPLE_BYTES, counted from the first byte that is not ASCII, decide about the whole text.
    """

    def __init__(self, label: str, name: str, block: int = BLOCK) -> None:
        """`label` names the text in errors, by its path; `name` in notes, by its place in the dataset's folder."""
        self.label, self.name, self.block = label, name, block
        self.notes: list[str] = []
        """A sentence if a byte order mark was dropped or the text converted, once it has been decoded to its end."""
        self._size = self._nuls = 0  # of the bytes read so far
        self._ahead = b""  # read for a sample, and not yet decoded

    def decode(self, stream: Readable) -> Iterator[str]:
        """The text, without a byte order mark. Raises DatasetError; some faults only show at the end."""
        self.notes, self._size, self._nuls, self._ahead = [], 0, 0, b""
        head = self._read(stream, encoding.LONGEST_MARK)
        if marked := encoding.by_mark(head):
            found, mark_size = marked
            content = head[mark_size:] or self._read(stream, self.block)
            if found.codec == "utf-8":
                yield from self._decode_utf8(stream, content)
                self.notes = [f"{self.name}: the byte order mark at the beginning was dropped."]
            else:
                yield from self._decode_other(stream, content, found)
                self.notes = [f"{self.name}: {found.name}, by its byte order mark, was converted to UTF-8."]
            return
        # ASCII is the same in every encoding that is guessed.
        content = head + self._read(stream, max(0, self.block - len(head)))
        context = b""
        while content and content.isascii():
            yield content.decode("ascii")
            context = (context + content)[-_CONTEXT_BYTES:]
            content = self._read(stream, self.block)
        if not content:
            self._reject_binary()
            return
        sample = self._sample(stream, content, context)
        guess = None if encoding.is_mostly_utf8(sample) or 0 in sample else encoding.guess(sample)
        if guess is None or guess.confidence < encoding.MIN_MENTIONED:
            yield from self._decode_utf8(stream, content)
            return
        if guess.confidence < encoding.MIN_CONFIDENCE:
            yield from self._decode_utf8(stream, content, guess)
            return
        yield from self._decode_other(stream, content, guess)
        self.notes = [
            f"{self.name}: {guess.name}, by a guess of {int(100 * guess.confidence)} % confidence, was converted to "
            "UTF-8. If the text looks wrong, convert the file yourself."
        ]

    def _read(self, stream: Readable, size: int) -> bytes:
        """The next bytes, at most `size`; none at the end."""
        if self._ahead:
            content, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            content = stream.read(size)
        self._size += len(content)
        self._nuls += content.count(0)
        return content

    def _sample(self, stream: Readable, content: bytes, context: bytes) -> bytes:
        """A sample from the first byte of `content` that is not ASCII on, with some ASCII before it."""
        first = _NOT_ASCII.search(content)
        assert first, "the caller looked for it"
        start = first.start()
        missing = start + encoding.SAMPLE_BYTES - len(content)
        self._ahead = stream.read(missing) if missing > 0 else b""
        rest = (content[start:] + self._ahead)[: encoding.SAMPLE_BYTES]
        return (context + content[:start])[-_CONTEXT_BYTES:] + rest

    def _decode_utf8(self, stream: Readable, block: bytes, guess: Encoding | None = None) -> Iterator[str]:
        """UTF-8 from `block` on; `guess` is another encoding that is possible, for the error."""
        rest = b""
        while True:
            content = rest + block
            try:
                text, used = codecs.utf_8_decode(content, "strict", not block)
            except UnicodeDecodeError as error:
                offset = self._size - len(content) + error.start
                # A binary file is reported as such, even if an invalid byte comes first: count its NUL bytes, too.
                while self._read(stream, self.block):
                    pass
                self._reject_binary()
                name = guess.name if guess else "WINDOWS-1252"
                perhaps = f" Perhaps it is {name} ({int(100 * guess.confidence)} % confidence)." if guess else ""
                raise DatasetError(
                    f"{self.label} is not UTF-8: invalid byte 0x{content[error.start]:02x} at offset {offset} "
                    f"(counted from 0).{perhaps} {self._advice(name)}"
                ) from None
            rest = content[used:]
            yield text
            if not block:
                break
            block = self._read(stream, self.block)
        self._reject_binary()

    def _decode_other(self, stream: Readable, block: bytes, found: Encoding) -> Iterator[str]:
        """The encoding `found` from `block` on."""
        decoder = codecs.getincrementaldecoder(found.codec)()
        characters = nul_characters = 0
        while True:
            try:
                text = decoder.decode(block, not block)
            except UnicodeDecodeError as error:
                offset = self._size - len(error.object) + error.start
                raise DatasetError(
                    f"{self.label} is not {found.name}, which its beginning looks like: invalid byte "
                    f"0x{error.object[error.start]:02x} at offset {offset} (counted from 0). {self._advice(found.name)}"
                ) from None
            yield text
            characters += len(text)
            nul_characters += text.count("\0")
            if not block:
                break
            block = self._read(stream, self.block)
        # In UTF-16 and UTF-32, NUL bytes are parts of characters.
        self._size, self._nuls = characters, nul_characters
        self._reject_binary("characters")

    def _advice(self, name: str) -> str:
        file = self.name.rpartition("/")[2]
        return f"Convert it: iconv -f {name} -t UTF-8 {file} > new.txt"

    def _reject_binary(self, units: str = "bytes") -> None:
        if self._nuls * _BYTES_PER_NUL > self._size:
            raise DatasetError(
                f"{self.label} looks like a binary file: {self._nuls:,} of its {self._size:,} {units} are NUL. "
                "Save only its text, as UTF-8, or remove the file."
            )
