"""One token per character, numbered in code point order, as in nanoGPT's character datasets."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptbox.errors import DatasetError, ModelFolderError
from gptbox.tokenizers.base import StreamDecoder, Tokenizer

# Typographic character -> plain characters; the first one in the vocabulary replaces it if it is not there itself.
TYPOGRAPHY = {
    "\u2018": "'`",
    "\u2019": "'`",
    "\u201a": "',",
    "\u201c": "\"'",
    "\u201d": "\"'",
    "\u201e": "\"'",
    "\u2013": "-",
    "\u2014": "-",
    "\u2212": "-",
    "\u2026": ".",
    "\u00a0": " ",
    "\t": " ",
    "\r": "\n",
}

MAX_CHARACTERS = 65_536
"""Size of the largest vocabulary that uint16 ids can number."""
_CHUNK = 1 << 16  # characters encoded at once: their arrays fit the processor's cache


class CharTokenizer(Tokenizer):
    """A token's id is the index of its character in the vocabulary."""

    name = "char"
    unit = "character"

    def __init__(self, characters: Sequence[str]) -> None:
        """`characters` is the vocabulary, ordered by id.

        Raises DatasetError if it is empty or has more than MAX_CHARACTERS, ModelFolderError if one of them is repeated
        or is not a single character.
        """
        if not characters:
            raise DatasetError("The text is empty: it has no character to learn from.")
        if len(characters) > MAX_CHARACTERS:
            raise DatasetError(
                f"The text has {len(characters):,} different characters; the tokenizer {self.name} has ids for at most "
                f"{MAX_CHARACTERS:,}. The tokenizer byte takes any text."
            )
        if any(len(character) != 1 for character in characters) or len(set(characters)) != len(characters):
            raise ModelFolderError("The tokenizer's vocabulary must be different single characters.")
        self.characters = list(characters)
        self.ids = {character: i for i, character in enumerate(self.characters)}
        self.unknown_character = next((c for c in " \n" if c in self.ids), self.characters[0])
        self.replacements = {
            typed: known
            for typed, plain in TYPOGRAPHY.items()
            if typed not in self.ids and (known := next((c for c in plain if c in self.ids), None))
        }
        self._table = self._make_table()

    def _make_table(self) -> NDArray[np.uint16]:
        """Ids by code point, shape (highest known code point + 2,); the last one is for all code points above."""
        known = self.ids | {typed: self.ids[plain] for typed, plain in self.replacements.items()}
        code_points = [ord(character) for character in known]
        table = np.full(max(code_points) + 2, self.ids[self.unknown_character], np.uint16)
        table[code_points] = list(known.values())
        return table

    @classmethod
    def train(
        cls,
        blocks: Iterable[str],
        alphabet: Sequence[str] | None = None,
        num_bytes: int | None = None,
        data: Path | None = None,
    ) -> Self:
        return cls(sorted(set().union(*blocks)) if alphabet is None else alphabet)

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    def _replacement(self, character: str) -> str:
        return self.replacements.get(character, self.unknown_character)

    def encode_blocks(self, blocks: Iterable[str]) -> Iterator[NDArray[np.uint16]]:
        for block in blocks:
            for start in range(0, len(block), _CHUNK):
                # "surrogatepass", because UTF-32 rejects lone surrogates, which are unknown characters like any other.
                content = block[start : start + _CHUNK].encode("utf-32-le", "surrogatepass")
                # "clip" takes the table's last entry for all code points above it.
                yield self._table.take(np.frombuffer(content, "<u4"), mode="clip")

    def token_bytes(self, token: int) -> bytes:
        return self._character(token).encode("utf-8", "replace")

    def token_text(self, token: int) -> str:
        return self._character(token)

    def decode(self, ids: Iterable[int]) -> str:
        return "".join([self._character(i) for i in ids])

    def _character(self, token: int) -> str:
        # A model's vocabulary may be padded beyond its tokenizer's.
        return self.characters[token] if token < len(self.characters) else "\ufffd"

    def unknown(self, text: str) -> dict[str, str]:
        return {c: self._replacement(c) for c in dict.fromkeys(text) if c not in self.ids}

    def stream_decoder(self, prompt: Sequence[int] | NDArray[np.integer] = ()) -> StreamDecoder:
        return _CharStreamDecoder(self)

    def to_json(self) -> dict[str, Any]:
        normalizers = [
            {"type": "Replace", "pattern": {"String": typed}, "content": known}
            for typed, known in self.replacements.items()
        ]
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": r"[\s\S]"},
                "behavior": "Isolated",
                "invert": False,
            },
            "post_processor": None,
            "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": self.ids, "unk_token": self.unknown_character},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self | None:
        model = content.get("model") or {}
        if model.get("type") != "WordLevel":
            return None
        vocab = model.get("vocab") or {}
        if sorted(vocab.values()) != list(range(len(vocab))):
            raise ModelFolderError("tokenizer.json's vocabulary does not number its characters from 0 up.")
        return cls(sorted(vocab, key=lambda character: int(vocab[character])))


class _CharStreamDecoder(StreamDecoder):
    def __init__(self, tokenizer: CharTokenizer) -> None:
        self._tokenizer = tokenizer

    def push(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens)
