"""BPE's merges from its ranks.

tiktoken's vocabulary is a list of tokens: of all neighbours whose concatenation is a token, the pair with the lowest
rank is joined first (the leftmost of equals). Hugging Face's is a list of pairs, and joins no others. Both give the
same ids if each token has the pair from which tiktoken makes it, in the order of the tokens:

A token has at most one such pair. Whatever stands around it, no join that leads to it crosses its ends, so that the
joins inside it are those of the token alone, in the same order: the last of them joins the pair. A token whose own
bytes, alone, are not joined to it is therefore never made by joining, in any text.
"""

from collections.abc import Sequence
from itertools import pairwise


def _last_pair(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two parts that are left of a token's bytes before the last join; None if they are not joined so far."""
    parts = [token[i : i + 1] for i in range(len(token))]
    none = len(ranks)
    while len(parts) > 2:
        pairs = [ranks.get(left + right, none) for left, right in pairwise(parts)]
        lowest = min(pairs)
        if lowest == none:
            return None
        at = pairs.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def derive_merges(tokens: Sequence[bytes]) -> list[tuple[bytes, bytes] | None]:
    """The pair that each token of more than one byte is made from, in order; None if it cannot be made.

    `tokens` is the vocabulary by rank, with all 256 single bytes.
    """
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return [_last_pair(token, ranks) for token in tokens if len(token) > 1]


def without_unreachable(tokens: Sequence[bytes]) -> list[bytes]:
    """The tokens that are single bytes or can be made by joining; the others are part of none of these."""
    pairs = iter(derive_merges(tokens))
    return [token for token in tokens if len(token) == 1 or next(pairs) is not None]
