"""The interface of all tokenizers: text to ids and back, and serialization as a Hugging Face `tokenizer.json`."""

import codecs
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby, islice, takewhile
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from gptbox.tokenizers.utf8 import Utf8Constraint

MANY_CHARACTERS = 256
"""A text with more different characters is of a script with thousands, such as Chinese, or of several scripts."""

_NAMES = {"\n": "(line break)", " ": "(space)", "\t": "(tab)"}


def printable(character: str) -> str:
    """A visible representation of a character: itself, a name such as "(space)", or its code point."""
    if character in _NAMES:
        return _NAMES[character]
    # Marks without a width of their own are drawn on the character before them.
    if character.isprintable() and unicodedata.category(character) not in ("Mn", "Me"):
        return character
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()


class StreamDecoder(ABC):
    """Decodes ids incrementally. Text once returned is final, and no character is split.

    A text that ends within a character goes without it, as in vLLM and llama.cpp.
    """

    @abstractmethod
    def push(self, tokens: Sequence[int]) -> str:
        """The text that these tokens complete; may be empty."""

    def push_token(self, token: int) -> tuple[str, int]:
        """The text that a token completes, and the index in this text of the character in which the token begins.

        The index is above 0 if the token fails to continue an incomplete character, which then becomes U+FFFD.
        """
        return self.push((token,)), 0


class Tokenizer(ABC):
    """Converts text to token ids and back."""

    name: ClassVar[str]
    """Its key in TOKENIZERS, and the value of the setting TOKENIZER."""
    unit: ClassVar[str]
    """What a token is, as a noun: "character"; "token" if tokens have no common length."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Ids run from 0 to vocab_size - 1."""

    @property
    def eos_id(self) -> int | None:
        """Id of the token that ends a text; None if the vocabulary has none."""
        return None

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Type of the ids in arrays: uint16 if it can number the vocabulary, else uint32."""
        return np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.uint32)

    def encode(self, text: str) -> NDArray[np.unsignedinteger]:
        """Ids of the text, of `dtype`, shape (tokens,). Unknown characters are replaced, see `unknown`; never fails."""
        return np.concatenate([np.empty(0, self.dtype), *self.encode_blocks((text,))])

    @abstractmethod
    def encode_blocks(self, blocks: Iterable[str]) -> Iterator[NDArray[np.unsignedinteger]]:
        """Yield the ids of a text that is given in blocks, in arrays of `dtype`, shape (tokens,).

        Their concatenation is the ids of the joined text, wherever it is split into blocks. Memory does not grow with
        the length of the text.
        """

    def encode_documents(self, blocks: Iterable[str | None]) -> Iterator[NDArray[np.unsignedinteger]]:
        """As `encode_blocks`, for several texts, each of which None ends: it becomes `eos_id`, which must not be None.

        The last text may go on in another call.
        """
        for is_text, group in groupby(blocks, key=lambda block: block is not None):
            if is_text:
                yield from self.encode_blocks(block for block in group if block is not None)
            else:
                yield np.array([self.eos_id for _ in group], self.dtype)

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for: UTF-8, but perhaps only a part of a character."""

    def token_text(self, token: int) -> str:
        r"""The text of a token, or, if it is not whole characters, its bytes as OpenAI writes them: `bytes:\xe2`."""
        content = self.token_bytes(token)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; ids outside the vocabulary and incomplete characters become U+FFFD."""
        return b"".join([self.token_bytes(i) for i in ids]).decode("utf-8", "replace")

    @cached_property
    def utf8_constraint(self) -> Utf8Constraint | None:
        """Which tokens may be sampled, so that no character is broken; None if each token is whole characters."""
        constraint = Utf8Constraint(self.token_bytes, self.vocab_size)
        return constraint if constraint.is_needed else None

    @abstractmethod
    def unknown(self, text: str) -> dict[str, str]:
        """The characters that `encode` replaces, mapped to their replacements, in order of first appearance."""

    def stream_decoder(self, prompt: Sequence[int] | NDArray[np.integer] = ()) -> StreamDecoder:
        """A new decoder for one sequence. Its text begins with the character that `prompt` leaves incomplete."""
        return _Utf8StreamDecoder(self, prompt)

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The content of a `tokenizer.json`."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: dict[str, Any]) -> Self | None:
        """Read a `tokenizer.json`; None if it describes another type of tokenizer.

        Raises ModelFolderError if it is of this type but invalid.
        """

    @classmethod
    @abstractmethod
    def train(
        cls,
        blocks: Iterable[str],
        alphabet: Sequence[str] | None = None,
        num_bytes: int | None = None,
        data: Path | None = None,
    ) -> Self:
        """Build a tokenizer's vocabulary from a text.

        `blocks` yields the text, or the part of it to learn from, in blocks, from the beginning whenever it is
        iterated. `alphabet` has the whole text's distinct characters in code point order, `num_bytes` is its size in
        UTF-8; a tokenizer that needs only these reads no block. `data` is the folder of the user's own files, which may
        contain one that the tokenizer needs. Raises DatasetError if the tokenizer cannot represent the text or lacks
        something.
        """


class _Utf8StreamDecoder(StreamDecoder):
    """Holds back the bytes of an incomplete character."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] | NDArray[np.integer]) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # An incomplete character has at most three bytes; an end-of-text token, which ends all characters, has none.
        ending = takewhile(self._token_bytes, map(int, reversed(prompt)))
        self.push([*islice(ending, 3)][::-1])

    def push(self, tokens: Sequence[int]) -> str:
        return self._decoder.decode(b"".join([self._token_bytes(i) for i in tokens]))

    def push_token(self, token: int) -> tuple[str, int]:
        content = self._token_bytes(token)
        text = self._decoder.decode(content[:1])
        # The token's first byte is in the last character so far, which may be incomplete and still in the buffer.
        # The buffer may also hold an encoded surrogate, which becomes more than one U+FFFD.
        buffered = self._decoder.getstate()[0].decode("utf-8", "replace")
        return text + self._decoder.decode(content[1:]), max(0, len(text) + len(buffered) - 1)
