"""The tokenizers. To add one, add a file here and its class to TOKENIZERS."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gptbox.errors import ModelFolderError, SettingError
from gptbox.tokenizers.base import MANY_CHARACTERS, StreamDecoder, Tokenizer, printable
from gptbox.tokenizers.bpe import BPETokenizer
from gptbox.tokenizers.byte import ByteTokenizer
from gptbox.tokenizers.char import CharTokenizer
from gptbox.tokenizers.gpt2 import GPT2Tokenizer

TOKENIZERS: dict[str, type[Tokenizer]] = {
    tokenizer.name: tokenizer for tokenizer in (CharTokenizer, ByteTokenizer, GPT2Tokenizer, BPETokenizer)
}
AUTO = "auto"
"""Used instead of a name, selects the tokenizer that suits the text."""

MAX_AUTO_BYTES = 1_500_000
"""AUTO takes BPE for a text that is longer in UTF-8: there is enough of it to learn each token.

Measured on Shakespeare in bits per byte (benchmarks/LOG.md): at 1.1 MB BPE is 1.5 % better after one minute, and both
are equal after five; from 2.4 MB on BPE is 5 % better.
"""

__all__ = [
    "AUTO",
    "MANY_CHARACTERS",
    "TOKENIZERS",
    "StreamDecoder",
    "Tokenizer",
    "check_tokenizer_name",
    "choose_tokenizer",
    "printable",
    "tokenizer_from_json",
    "train_tokenizer",
]


def check_tokenizer_name(name: str, source: str = "TOKENIZER") -> None:
    """Raises SettingError for a name that is neither AUTO nor in TOKENIZERS; `source` is its setting or option."""
    if name not in (AUTO, *TOKENIZERS):
        raise SettingError(f"{source} {name!r} is not one of {', '.join((AUTO, *TOKENIZERS))}.")


def choose_tokenizer(num_characters: int, num_bytes: int) -> tuple[str, str]:
    """What AUTO means for a text: a name in TOKENIZERS, and the reason, as a clause after "because".

    `num_characters` is the number of different characters in the text, `num_bytes` its size in UTF-8.
    """
    if num_characters > MANY_CHARACTERS:  # most would be too rare to be learned
        return BPETokenizer.name, f"the text has {num_characters:,} different characters"
    if num_bytes > MAX_AUTO_BYTES:
        return BPETokenizer.name, f"the text is long enough for it ({num_bytes / 1e6:,.1f} MB)"
    return CharTokenizer.name, f"the text has only {num_characters:,} different characters and is not very long"


def train_tokenizer(
    name: str, blocks: Iterable[str], alphabet: Sequence[str], num_bytes: int, data: Path | None = None
) -> Tokenizer:
    """Train the tokenizer of that name, or the one that AUTO means, on a text; see `Tokenizer.train`.

    Raises DatasetError if the tokenizer cannot represent the text or lacks something, such as a file or a package.
    """
    if name == AUTO:
        name, _ = choose_tokenizer(len(alphabet), num_bytes)
    return TOKENIZERS[name].train(blocks, alphabet, num_bytes, data)


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
