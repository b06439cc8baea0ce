"""One token per byte of UTF-8: 256 ids for every text, and no unknown character."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptbox.tokenizers.base import Tokenizer

_UNKNOWN_ID = "\ufffd".encode()


def _symbols() -> list[str]:
    """The printable character that stands for each byte in byte-level BPE, as in GPT-2's `bytes_to_unicode`."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


_VOCABULARY = {symbol: byte for byte, symbol in enumerate(_symbols())}


class ByteTokenizer(Tokenizer):
    """A token's id is its byte."""

    name = "byte"
    unit = "byte"

    @classmethod
    def train(cls, blocks: Iterable[str], alphabet: Sequence[str] | None = None) -> Self:
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
        return {character: "?" for character in dict.fromkeys(text) if "\ud800" <= character <= "\udfff"}

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
