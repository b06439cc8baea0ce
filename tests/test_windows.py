"""How a text is cut for measuring: side by side, or evenly spaced once it is long; and a full context."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbox.windows import LIMIT, slide, windows


def spans(tokens: int, length: int, limit: int | None = None) -> list[tuple[int, int]]:
    """Where each window's inputs begin and end."""
    return [(start, start + size) for starts, size in windows(tokens, length, limit) for start in starts]


@given(tokens=st.integers(2, 50_000), length=st.integers(1, 9000), limit=st.none() | st.integers(50_000, 60_000))
def test_up_to_the_limit_each_token_but_the_first_is_predicted_once(
    tokens: int, length: int, limit: int | None
) -> None:
    cut = spans(tokens, length, limit)
    assert [start for start, _ in cut] == list(range(0, tokens - 1, length))
    assert [end for _, end in cut] == [*range(length, tokens - 1, length), tokens - 1]


@given(tokens=st.integers(2, 10**9), length=st.integers(1, 3000), limit=st.integers(1, 20_000))
def test_beyond_it_whole_windows_lie_evenly_over_the_text(tokens: int, length: int, limit: int) -> None:
    if tokens <= max(limit, length):
        return
    cut = spans(tokens, length, limit)
    assert all(end - start == length for start, end in cut)
    assert sum(end - start for start, end in cut) <= max(limit, length)
    assert sum(end - start for start, end in cut) > limit - length
    distances = {later - earlier for (earlier, _), (later, _) in pairwise(cut)}
    assert len(distances) <= 1
    assert all(distance >= length for distance in distances)
    assert cut[0][0] == 0
    assert cut[-1][1] <= tokens - 1
    assert tokens - 1 - cut[-1][0] < max(distances, default=tokens) + len(cut)


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_tiny_shakespeare_is_measured_whole(limit: int | None) -> None:
    assert spans(111_540, 256, limit) == spans(111_540, 256)
    assert sum(end - start for start, end in spans(111_540, 256, limit)) == 111_539


def test_a_hundred_million_tokens_are_measured_in_few() -> None:
    cut = spans(100_000_000, 256, LIMIT)
    assert len(cut) == 512
    assert cut[1] == (195_312, 195_568)
    assert cut[-1][1] > 99_800_000


def test_a_context_longer_than_the_limit_is_one_window() -> None:
    assert spans(5000, 256, limit=100) == [(0, 256)]
    assert spans(200, 256, limit=100) == [(0, 199)]


def test_a_batch_has_about_as_many_tokens_whatever_the_window() -> None:
    for length in (16, 64, 256, 1024):
        sizes = [len(starts) * length for starts, _ in windows(100_000, length)]
        assert sizes[0] == 2048
        assert max(sizes) == 2048


def test_slide_keeps_at_least_one_token() -> None:
    assert slide(np.array([1, 2]), 1).tolist() == [2]
    assert slide(np.arange(64), 64).tolist() == list(range(48, 64))
