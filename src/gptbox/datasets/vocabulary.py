"""Description of a text's vocabulary, for people."""

import unicodedata
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from gptbox.tokenizers import Tokenizer, printable

_MIN_COUNT = 10  # a character with fewer occurrences is hardly learnt
# Unicode's control, format, unassigned, private and separator characters.
_ODD_CATEGORIES = {"Cc", "Cf", "Cn", "Co", "Zl", "Zp"}
_MAX_ITEMS = 100  # of the vocabulary
_MAX_CHARACTERS = 20  # per warning


def describe_vocabulary(
    tokenizer: Tokenizer, train_counts: NDArray[np.int64], val_counts: NDArray[np.int64]
) -> tuple[str, list[str]]:
    """The vocabulary in a line, and a list of warnings about its characters.

    `train_counts` and `val_counts`, each (vocab_size,), are the occurrences of each id in the two splits.
    """
    counts = Counter({tokenizer.decode([i]): int(n) for i, n in enumerate(train_counts + val_counts)})
    unseen = [tokenizer.decode([int(i)]) for i in np.flatnonzero((train_counts == 0) & (val_counts > 0))]
    warnings = []
    if odd := [character for character in counts if _is_odd(character)]:
        warnings.append(f"odd characters: {_with_counts(odd, counts)}")
    if rare := sorted((c for c in counts if counts[c] < _MIN_COUNT and not _is_odd(c)), key=counts.__getitem__):
        warnings.append(f"rare characters, hardly learnt: {_with_counts(rare, counts)}")
    if unseen:
        warnings.append(f"only in the validation split, never learnt: {_with_counts(unseen, counts)}")
    return _ranges(list(counts)), warnings


def _is_odd(character: str) -> bool:
    """Control, invisible, private and unassigned characters, and U+FFFD, the trace of a wrong decoding."""
    return character == "\ufffd" or (character not in "\n\t" and unicodedata.category(character) in _ODD_CATEGORIES)


def _ranges(characters: list[str]) -> str:
    """Characters in code point order, with consecutive letters and digits as ranges: A-Z."""
    ranges: list[list[str]] = []
    for character in characters:
        if ranges and character.isalnum() and ord(character) == ord(ranges[-1][-1]) + 1 and ranges[-1][-1].isalnum():
            ranges[-1].append(character)
        else:
            ranges.append([character])
    items = []
    for span in ranges:
        items += [f"{span[0]}-{span[-1]}"] if len(span) > 3 else [printable(character) for character in span]
    more = f" and {len(items) - _MAX_ITEMS:,} more" if len(items) > _MAX_ITEMS else ""
    return " ".join(items[:_MAX_ITEMS]) + more


def _with_counts(characters: list[str], counts: Counter[str]) -> str:
    items = [f"{printable(c)} ({counts[c]:,} x)" for c in characters[:_MAX_CHARACTERS]]
    more = f" and {len(characters) - _MAX_CHARACTERS:,} more" if len(characters) > _MAX_CHARACTERS else ""
    return ", ".join(items) + more
