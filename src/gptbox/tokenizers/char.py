"""One token per character, numbered in code point order, as in nanoGPT's character datasets."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptbox.errors import DatasetError, ModelFolderError
from gptbox.tokenizers.base import StreamDecoder, Tokenizer

# Characters that phones and word processors insert -> plain characters to replace them if the vocabulary lacks them.
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

_CHUNK = 1 << 20  # characters encoded at once


class CharTokenizer(Tokenizer):
    """`characters` is the vocabulary, ordered by id."""

    def __init__(self, characters: Sequence[str]) -> None:
        if not characters:
            raise DatasetError("The text is empty: it has no character to learn from.")
        if len(characters) > 65_536:
            raise DatasetError(f"The text has {len(characters):,} different characters; uint16 ids reach 65,536.")
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
        # Sorted code points and their ids, so that np.searchsorted encodes a whole text.
        code_points = np.array([ord(character) for character in self.characters], dtype=np.uint32)
        self._sorted_ids = np.argsort(code_points)
        self._sorted_code_points = code_points[self._sorted_ids]

    @classmethod
    def train(cls, texts: Sequence[str]) -> Self:
        return cls(sorted(set().union(*texts)))

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    def _replacement(self, character: str) -> str:
        return self.replacements.get(character, self.unknown_character)

    def encode(self, text: str) -> NDArray[np.uint16]:
        # In chunks: the search takes 20 bytes per character, too much for a long text on a small machine.
        return np.concatenate([self._encode_chunk(text[i : i + _CHUNK]) for i in range(0, len(text) or 1, _CHUNK)])

    def _encode_chunk(self, text: str) -> NDArray[np.uint16]:
        # "surrogatepass", because UTF-32 rejects lone surrogates, which are unknown characters like any other.
        code_points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        found = np.minimum(np.searchsorted(self._sorted_code_points, code_points), len(self._sorted_code_points) - 1)
        ids = self._sorted_ids[found].astype(np.uint16)
        for i in np.flatnonzero(self._sorted_code_points[found] != code_points):
            ids[i] = self.ids[self._replacement(chr(code_points[i]))]
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        return "".join([self._character(i) for i in ids])

    def _character(self, token: int) -> str:
        # A model's vocabulary may be padded beyond its tokenizer's.
        return self.characters[token] if token < len(self.characters) else "\ufffd"

    def unknown(self, text: str) -> dict[str, str]:
        return {c: self._replacement(c) for c in dict.fromkeys(text) if c not in self.ids}

    def stream_decoder(self) -> StreamDecoder:
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

    def flush(self) -> str:
        return ""
