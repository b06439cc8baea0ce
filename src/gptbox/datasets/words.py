"""The words of a training text, to say how many of a generated text's words are real."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, Self

import numpy as np

from gptbox.datasets.prepared import PreparedDataset

MAX_BYTES = 4_000_000
"""Size in UTF-8 of the part of a training text whose words are collected: all of a shorter text, else pieces spaced
evenly from its beginning to its end."""
MIN_WORDS = 10
"""Fewest words of which a share is given."""
_PIECE_BYTES = 1 << 16
_OVERLAP = 64  # tokens by which a piece reaches into the next: no word is longer, so none is cut off in both
_MIN_RECURRING = 0.3
"""Smallest share of a text's running words that occur more than once in it: 0.97 of a megabyte of English, 0.5 of ten
kilobytes of Hebrew. With fewer, as in lists of codes, hardly any word of a text by the same author would be real."""
_WITHOUT_SPACES = {
    "BALINESE", "BOPOMOFO", "CJK", "HALFWIDTH", "HIRAGANA", "IDEOGRAPHIC", "JAVANESE", "KATAKANA", "KATAKANA-HIRAGANA",
    "KHMER", "LAO", "MYANMAR", "NEW", "TAI", "THAI", "YI",
}  # fmt: skip
"""Scripts that put no spaces between words, as the first words of their characters' names."""


@lru_cache(maxsize=1 << 16)
def _kind(character: str) -> Literal["letter", "letter without spaces", "other"]:
    """The kind of a character; marks count as letters."""
    if unicodedata.category(character)[0] not in "LM":
        return "other"
    script = unicodedata.name(character, "").partition(" ")[0]
    return "letter without spaces" if script in _WITHOUT_SPACES else "letter"


def _class(text: str, kind: str) -> str:
    """The text's characters of a kind, each once, as the inside of a character class of `re`.

    `re` has no class of all letters and marks, and one that lists them is four times as slow.
    """
    return "".join(sorted(character for character in set(text) if _kind(character) == kind))


def find_words(text: str) -> list[str]:
    """The words of a text, in order and case-folded: runs of letters and marks, with apostrophes inside.

    Both apostrophes become the plain one. Letters of scripts that put no spaces between words are in none.
    """
    text = text.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    letter = _class(text, "letter")
    return re.findall(f"[{letter}]+(?:'[{letter}]+)*", text) if letter else []


def _letters_without_spaces(text: str) -> int:
    """Number of letters and marks of scripts that put no spaces between words."""
    letter = _class(text, "letter without spaces")
    return sum(map(len, re.findall(f"[{letter}]+", text))) if letter else 0


class TrainingWords:
    """The words that occur in a training text."""

    def __init__(self, counts: Counter[str], letters_without_spaces: int = 0) -> None:
        """From the occurrences of each word, and the number of letters that are in none (see `find_words`).

        The text is taken to have no words if most of its letters are in none, or if too few of its words recur.
        """
        recurring = sum(count for count in counts.values() if count > 1)
        letters = sum(len(word) * count for word, count in counts.items())
        has_words = letters > letters_without_spaces and recurring >= _MIN_RECURRING * counts.total()
        self._words = frozenset(counts) if has_words else frozenset()

    @classmethod
    def of(cls, dataset: PreparedDataset) -> Self:
        """Collect the words of the training split; of a long one, those of a part of MAX_BYTES.

        This takes about 0.1 s of CPU time per megabyte, and 3 MB of memory for the words of 4 MB of English.
        """
        counts: Counter[str] = Counter()
        without_spaces = 0
        for text, is_first in _pieces(dataset):
            # Words at the ends of a piece, and at the end of the split, may be cut off.
            counts.update(find_words(text)[0 if is_first else 1 : -1])
            without_spaces += _letters_without_spaces(text)
        return cls(counts, without_spaces)

    def share(self, text: str) -> float | None:
        """The share of real words, 0 to 1, among the words of `text` but the first and the last: they may be cut off.

        None if there are fewer than MIN_WORDS, or if the training text has no words.
        """
        words = find_words(text)[1:-1]
        if not self._words or len(words) < MIN_WORDS:
            return None
        return sum(word in self._words for word in words) / len(words)


def _pieces(dataset: PreparedDataset) -> Iterator[tuple[str, bool]]:
    """The pieces of the training text, and whether each is its beginning."""
    tokenizer, ids = dataset.tokenizer, dataset.train
    contents = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    if tokenizer.eos_id is not None:
        contents[tokenizer.eos_id] = b"\n"  # a document's last word does not go on in the next document
    length = min(len(ids), max(1, _PIECE_BYTES * len(ids) // dataset.train_bytes))
    count = min(-(-len(ids) // length), MAX_BYTES // _PIECE_BYTES)
    for start in np.linspace(0, len(ids) - length, count, dtype=np.int64):
        content = b"".join([contents[i] for i in ids[start : start + length + _OVERLAP].tolist()])
        yield content.decode("utf-8", "replace"), start == 0
