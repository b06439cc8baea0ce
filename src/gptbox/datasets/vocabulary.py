"""Description of a text's vocabulary, for people."""

import unicodedata
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from gptbox.tokenizers import Tokenizer, printable

_MIN_COUNT = 10  # a token with fewer occurrences is hardly learned
# Unicode's control, format, unassigned, private and separator characters.
_ODD_CATEGORIES = {"Cc", "Cf", "Cn", "Co", "Zl", "Zp"}
_MAX_ITEMS = 100  # of the vocabulary
_MAX_TOKENS = 20  # per warning


def is_odd(token: str) -> bool:
    """Whether a text is a single odd character.

    Odd are control, invisible, private and unassigned characters, and U+FFFD, the trace of a wrong decoding.
    """
    if token in ("\n", "\t") or len(token) != 1:
        return False
    return token == "\ufffd" or unicodedata.category(token) in _ODD_CATEGORIES


def describe_vocabulary(
    tokenizer: Tokenizer, train_counts: NDArray[np.int64], val_counts: NDArray[np.int64], name_odd: bool = True
) -> tuple[str, list[str]]:
    """The vocabulary in a line, and a list of warnings about the tokens that occur in the text.

    `train_counts` and `val_counts`, each (vocab_size,), are the occurrences of each id in the two splits.
    `name_odd` is whether to warn of odd characters, which HealthReport names with their places.
    """
    totals = train_counts + val_counts
    counts = Counter({tokenizer.token_text(int(i)): int(totals[i]) for i in np.flatnonzero(totals)})
    unseen = [tokenizer.token_text(int(i)) for i in np.flatnonzero((train_counts == 0) & (val_counts > 0))]
    units = f"{tokenizer.unit}s"
    warnings = []
    if name_odd and (odd := [token for token in counts if is_odd(token)]):
        warnings.append(f"odd {units}: {_with_counts(odd, counts)}")

    def listed(tokens: list[str]) -> str:
        # Longer tokens are the tokenizer's choice; which ones are rare tells nothing about the text.
        return f"{len(tokens):,}" if tokenizer.unit == "token" else _with_counts(tokens, counts)

    if rare := sorted((t for t in counts if counts[t] < _MIN_COUNT and not is_odd(t)), key=counts.__getitem__):
        warnings.append(f"rare {units}, hardly learned: {listed(rare)}")
    if unseen:
        warnings.append(f"{units} only in the validation split, never learned: {listed(unseen)}")
    size = f"{tokenizer.vocab_size:,} {units}"
    if tokenizer.unit == "character":
        return f"{size}: {_ranges(list(counts))}", warnings
    return f"{size}, of which {len(counts):,} occur in the text", warnings


def _name(token: str) -> str:
    """A token's text in a visible form."""
    return printable(token) if len(token) == 1 else token


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


def _with_counts(tokens: list[str], counts: Counter[str]) -> str:
    items = [f"{_name(token)} ({counts[token]:,} x)" for token in tokens[:_MAX_TOKENS]]
    more = f" and {len(tokens) - _MAX_TOKENS:,} more" if len(tokens) > _MAX_TOKENS else ""
    return ", ".join(items) + more
