"""Pairs derived from ranks: the merges that gave the ranks, and the same ids."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gptbox.tokenizers.merges import derive_merges, without_unreachable

BYTES = [bytes((byte,)) for byte in range(256)]


def by_rank(text: bytes, tokens: list[bytes]) -> list[bytes]:
    """BPE as tiktoken defines it: join the neighbours whose concatenation has the lowest rank."""
    parts = [bytes((byte,)) for byte in text]
    while joined := [
        (tokens.index(left + right), at) for at, (left, right) in enumerate(pairwise(parts)) if left + right in tokens
    ]:
        _, at = min(joined)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def by_pair(text: bytes, merges: list[tuple[bytes, bytes]]) -> list[bytes]:
    """BPE as Hugging Face defines it: join the pair that comes first in the list."""
    parts = [bytes((byte,)) for byte in text]
    while joined := [(merges.index(pair), at) for at, pair in enumerate(pairwise(parts)) if pair in merges]:
        _, at = min(joined)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def test_the_pair_of_a_token_is_the_one_that_is_joined_last() -> None:
    tokens = [*BYTES, b"bc", b"ab", b"abc", b"abcabc", b"abcab"]
    assert derive_merges(tokens) == [(b"b", b"c"), (b"a", b"b"), (b"a", b"bc"), (b"abc", b"abc"), (b"abc", b"ab")]


def test_a_token_that_its_own_bytes_do_not_become_is_unreachable() -> None:
    tokens = [*BYTES, b"bc", b"abx", b"bcd", b"abcd"]
    assert derive_merges(tokens) == [(b"b", b"c"), None, (b"bc", b"d"), (b"a", b"bcd")]
    assert without_unreachable(tokens) == [*BYTES, b"bc", b"bcd", b"abcd"]
    assert by_rank(b"abx", tokens) == [b"a", b"b", b"x"]


@given(
    st.lists(st.text("abc", min_size=2, max_size=5).map(str.encode), unique=True, max_size=12),
    st.text("abc", max_size=12).map(str.encode),
)
def test_pairs_give_the_same_ids_as_ranks_for_any_vocabulary(words: list[bytes], text: bytes) -> None:
    """Whatever the order of the tokens, and whether they can be reached or not."""
    tokens = [*BYTES, *words]
    merges = [pair for pair in derive_merges(tokens) if pair is not None]
    assert by_pair(text, merges) == by_rank(text, tokens)
    assert by_rank(text, without_unreachable(tokens)) == by_rank(text, tokens)
