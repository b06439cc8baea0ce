"""The tokenizers. A new one is a file beside these and a line in TOKENIZERS."""

from typing import Any

from gptbox.errors import ModelFolderError
from gptbox.tokenizers.base import StreamDecoder, Tokenizer, shown
from gptbox.tokenizers.char import CharTokenizer

TOKENIZERS: dict[str, type[Tokenizer]] = {
    "char": CharTokenizer,
}

__all__ = ["TOKENIZERS", "StreamDecoder", "Tokenizer", "shown", "tokenizer_from_json"]


def tokenizer_from_json(content: dict[str, Any]) -> Tokenizer:
    """The tokenizer that a `tokenizer.json` describes.

    Raises ModelFolderError where no tokenizer of ours reads it.
    """
    for kind in TOKENIZERS.values():
        if (tokenizer := kind.from_json(content)) is not None:
            return tokenizer
    found = (content.get("model") or {}).get("type")
    raise ModelFolderError(f"tokenizer.json is of a kind ({found}) that gptbox does not read; it reads WordLevel.")
