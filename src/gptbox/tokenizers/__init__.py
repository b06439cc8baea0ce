"""The tokenizers. To add one, add a file here and its class to TOKENIZERS."""

from collections.abc import Iterable, Sequence
from typing import Any

from gptbox.errors import ModelFolderError, SettingError
from gptbox.tokenizers.base import StreamDecoder, Tokenizer, printable
from gptbox.tokenizers.byte import ByteTokenizer
from gptbox.tokenizers.char import MAX_CHARACTERS, CharTokenizer

TOKENIZERS: dict[str, type[Tokenizer]] = {tokenizer.name: tokenizer for tokenizer in (CharTokenizer, ByteTokenizer)}
AUTO = "auto"
"""Used instead of a name, selects the tokenizer that suits the text."""

__all__ = [
    "AUTO",
    "TOKENIZERS",
    "StreamDecoder",
    "Tokenizer",
    "check_tokenizer_name",
    "printable",
    "tokenizer_from_json",
    "train_tokenizer",
]


def check_tokenizer_name(name: str, source: str = "TOKENIZER") -> None:
    """Raises SettingError for a name that is neither AUTO nor in TOKENIZERS; `source` is its setting or option."""
    if name not in (AUTO, *TOKENIZERS):
        raise SettingError(f"{source} {name!r} is not one of {', '.join((AUTO, *TOKENIZERS))}.")


def train_tokenizer(name: str, blocks: Iterable[str], alphabet: Sequence[str]) -> Tokenizer:
    """Train the tokenizer of that name on a text; see `Tokenizer.train`.

    AUTO means characters, or bytes if the text has too many different characters. Raises DatasetError if the tokenizer
    cannot represent the text.
    """
    if name == AUTO:
        name = CharTokenizer.name if len(alphabet) <= MAX_CHARACTERS else ByteTokenizer.name
    return TOKENIZERS[name].train(blocks, alphabet)


def tokenizer_from_json(content: dict[str, Any]) -> Tokenizer:
    """The tokenizer that a `tokenizer.json` describes.

    Raises ModelFolderError if no tokenizer of TOKENIZERS reads it, or if its vocabulary is invalid.
    """
    for tokenizer_class in TOKENIZERS.values():
        if (tokenizer := tokenizer_class.from_json(content)) is not None:
            return tokenizer
    found = (content.get("model") or {}).get("type")
    raise ModelFolderError(
        f"tokenizer.json has a model of type {found}, but is none of gptbox's tokenizers: {', '.join(TOKENIZERS)}."
    )
