"""What is in a prepared text, in lines for people."""

import unicodedata
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from gptbox.tokenizers import Tokenizer, shown

_RARE = 10  # a character seen less often than this is hardly learnt
_ODD = {"Cc", "Cf", "Cn", "Co", "Zl", "Zp"}  # Unicode's control, format, unassigned, private and separator characters
_SHOWN = 100  # characters listed in a report


def describe_characters(
    tokenizer: Tokenizer, train: NDArray[np.int64], val: NDArray[np.int64]
) -> tuple[str, list[str]]:
    """The vocabulary, and a line for each thing to be wary of.

    `train` and `val` say how often each id occurs in the two parts, each (vocab_size,).
    """
    counts = Counter({tokenizer.decode([i]): int(n) for i, n in enumerate(train + val)})
    unseen = [tokenizer.decode([int(i)]) for i in np.flatnonzero((train == 0) & (val > 0))]
    lines = []
    if odd := [character for character in counts if _is_odd(character)]:
        lines.append(f"odd characters: {_listed(odd, counts)}")
    if rare := sorted((c for c in counts if counts[c] < _RARE and not _is_odd(c)), key=counts.__getitem__):
        lines.append(f"rare characters, hardly learnt: {_listed(rare, counts)}")
    if unseen:
        lines.append(f"only in the part to check with, never learnt: {_listed(unseen, counts)}")
    return _spans(list(counts)), lines


def _is_odd(character: str) -> bool:
    """Control, invisible, private and unassigned characters, and the mark of a text once decoded wrongly."""
    return character == "\ufffd" or (character not in "\n\t" and unicodedata.category(character) in _ODD)


def _spans(characters: list[str]) -> str:
    """Characters in code point order, letters and digits that follow one another as A-Z."""
    spans: list[list[str]] = []
    for character in characters:
        if spans and character.isalnum() and ord(character) == ord(spans[-1][-1]) + 1 and spans[-1][-1].isalnum():
            spans[-1].append(character)
        else:
            spans.append([character])
    words = []
    for span in spans:
        words += [f"{span[0]}-{span[-1]}"] if len(span) > 3 else [shown(character) for character in span]
    more = f" and {len(words) - _SHOWN:,} more" if len(words) > _SHOWN else ""
    return " ".join(words[:_SHOWN]) + more


def _listed(characters: list[str], counts: Counter[str]) -> str:
    words = [f"{shown(c)} ({counts[c]:,} x)" for c in characters[:20]]
    more = f" and {len(characters) - 20:,} more" if len(characters) > 20 else ""
    return ", ".join(words) + more
