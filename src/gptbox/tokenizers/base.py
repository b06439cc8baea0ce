"""The interface of all tokenizers: text to ids and back, and serialization as a Hugging Face `tokenizer.json`."""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

_NAMES = {"\n": "(line break)", " ": "(space)", "\t": "(tab)"}


def printable(character: str) -> str:
    """A visible representation of a character: itself, a name such as "(space)", or its code point."""
    if character in _NAMES:
        return _NAMES[character]
    if character.isprintable() and not unicodedata.combining(character):
        return character
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()


class StreamDecoder(ABC):
    """Decodes ids incrementally. Text once returned is final, and no character is split."""

    @abstractmethod
    def push(self, tokens: Sequence[int]) -> str:
        """The text that these tokens complete; may be empty."""

    @abstractmethod
    def flush(self) -> str:
        """The rest of the text; incomplete bytes become U+FFFD."""


class Tokenizer(ABC):
    """Converts text to token ids and back."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Ids run from 0 to vocab_size - 1."""

    @abstractmethod
    def encode(self, text: str) -> NDArray[np.uint16]:
        """Ids of the text, shape (tokens,). Never fails: unknown characters are replaced, see `unknown`."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; ids outside the vocabulary become U+FFFD."""

    @abstractmethod
    def unknown(self, text: str) -> dict[str, str]:
        """The characters that `encode` replaces, mapped to their replacements, in order of first appearance."""

    @abstractmethod
    def stream_decoder(self) -> StreamDecoder:
        """A new decoder for one sequence."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The content of a `tokenizer.json`."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: dict[str, Any]) -> Self | None:
        """Read a `tokenizer.json`; None if it describes another type of tokenizer."""

    @classmethod
    @abstractmethod
    def train(cls, texts: Sequence[str]) -> Self:
        """A tokenizer with a vocabulary made from these texts."""
