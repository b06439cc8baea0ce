"""The tokenizers. To add one, add a file here and a line to TOKENIZERS."""

from typing import Any

from gptbox.errors import ModelFolderError
from gptbox.tokenizers.base import StreamDecoder, Tokenizer, printable
from gptbox.tokenizers.char import CharTokenizer

TOKENIZERS: dict[str, type[Tokenizer]] = {
    "char": CharTokenizer,
}

__all__ = ["TOKENIZERS", "StreamDecoder", "Tokenizer", "printable", "tokenizer_from_json"]


def tokenizer_from_json(content: dict[str, Any]) -> Tokenizer:
    """The tokenizer that a `tokenizer.json` describes.

    Raises ModelFolderError if no tokenizer of TOKENIZERS reads it.
    """
    for tokenizer_class in TOKENIZERS.values():
        if (tokenizer := tokenizer_class.from_json(content)) is not None:
            return tokenizer
    found = (content.get("model") or {}).get("type")
    raise ModelFolderError(f"tokenizer.json is of the type {found}, which gptbox does not read; it reads WordLevel.")
