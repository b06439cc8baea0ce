"""One token per byte of UTF-8: 256 ids for every text, and no unknown character."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptbox.tokenizers.base import Tokenizer
from gptbox.tokenizers.byte_level import SYMBOLS, surrogates

_UNKNOWN_ID = "\ufffd".encode()


_VOCABULARY = {symbol: byte for byte, symbol in enumerate(SYMBOLS)}


class ByteTokenizer(Tokenizer):
    """A token's id is its byte."""

    name = "byte"
    unit = "byte"

    @classmethod
    def train(
        cls,
        blocks: Iterable[str],
        alphabet: Sequence[str] | None = None,
        num_bytes: int | None = None,
        data: Path | None = None,
    ) -> Self:
        return cls()

    @property
    def vocab_size(self) -> int:
        return 256

    def encode_blocks(self, blocks: Iterable[str]) -> Iterator[NDArray[np.uint16]]:
        for block in blocks:
            # "replace" concerns lone surrogates only, which UTF-8 cannot encode.
            yield np.frombuffer(block.encode("utf-8", "replace"), np.uint8).astype(np.uint16)

    def token_bytes(self, token: int) -> bytes:
        # A model's vocabulary may be padded beyond its tokenizer's.
        return bytes((token,)) if token < 256 else _UNKNOWN_ID

    def unknown(self, text: str) -> dict[str, str]:
        return surrogates(text)

    def to_json(self) -> dict[str, Any]:
        # Byte-level BPE that never merges.
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": False,
                "use_regex": False,
            },
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": _VOCABULARY,
                "merges": [],
            },
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self | None:
        model, pre_tokenizer = content.get("model") or {}, content.get("pre_tokenizer") or {}
        is_byte_level = pre_tokenizer.get("type") == "ByteLevel" and not pre_tokenizer.get("add_prefix_space")
        is_plain = not (content.get("normalizer") or content.get("added_tokens") or model.get("merges"))
        if is_byte_level and is_plain and model.get("type") == "BPE" and model.get("vocab") == _VOCABULARY:
            return cls()
        return None
