"""What every tokenizer does: text to ids and back, and its own description as a Hugging Face `tokenizer.json`."""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

_NAMES = {"\n": "(line break)", " ": "(space)", "\t": "(tab)"}


def shown(character: str) -> str:
    """A character as it can be read in a line of text."""
    if character in _NAMES:
        return _NAMES[character]
    if character.isprintable() and not unicodedata.combining(character):
        return character
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()


class StreamDecoder(ABC):
    """Turns ids into text as they come; what it returned never has to be taken back, and no character is ever cut."""

    @abstractmethod
    def push(self, tokens: Sequence[int]) -> str:
        """The text that is certain once these have come, too; may be empty."""

    @abstractmethod
    def flush(self) -> str:
        """What is left at the end, incomplete bytes as U+FFFD."""


class Tokenizer(ABC):
    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Ids run from 0 to vocab_size - 1."""

    @abstractmethod
    def encode(self, text: str) -> NDArray[np.uint16]:
        """Ids of the text, shape (tokens,). Never fails: what the vocabulary lacks is replaced, see `unknown`."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; one that the vocabulary lacks is U+FFFD."""

    @abstractmethod
    def unknown(self, text: str) -> dict[str, str]:
        """Each character of the text that `encode` replaces, with its replacement, in order of appearance."""

    @abstractmethod
    def stream_decoder(self) -> StreamDecoder:
        """A decoder for one growing sequence."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The content of a `tokenizer.json`."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: dict[str, Any]) -> Self | None:
        """Read a `tokenizer.json`; None where it describes another kind of tokenizer."""

    @classmethod
    @abstractmethod
    def train(cls, texts: Sequence[str]) -> Self:
        """The tokenizer for these texts."""
