"""Evaluation windows: contiguous, or evenly spaced over a long split."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbox.models.evaluation import MAX_EVAL_TOKENS, evaluation_windows


def spans(num_tokens: int, window: int, max_tokens: int | None = None) -> list[tuple[int, int]]:
    """Start and end of each window's inputs."""
    batches = evaluation_windows(num_tokens, window, max_tokens)
    return [(start, start + length) for starts, length in batches for start in starts]


@given(tokens=st.integers(2, 50_000), length=st.integers(1, 9000), limit=st.none() | st.integers(50_000, 60_000))
def test_up_to_the_limit_each_token_but_the_first_is_predicted_once(
    tokens: int, length: int, limit: int | None
) -> None:
    cut = spans(tokens, length, limit)
    assert [start for start, _ in cut] == list(range(0, tokens - 1, length))
    assert [end for _, end in cut] == [*range(length, tokens - 1, length), tokens - 1]


@given(tokens=st.integers(2, 10**9), length=st.integers(1, 3000), limit=st.integers(1, 20_000))
def test_beyond_the_limit_whole_windows_are_spaced_evenly(tokens: int, length: int, limit: int) -> None:
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


@pytest.mark.parametrize("limit", [None, MAX_EVAL_TOKENS])
def test_tiny_shakespeare_is_evaluated_completely(limit: int | None) -> None:
    assert spans(111_540, 256, limit) == spans(111_540, 256)
    assert sum(end - start for start, end in spans(111_540, 256, limit)) == 111_539


def test_a_hundred_million_tokens_are_sampled() -> None:
    cut = spans(100_000_000, 256, MAX_EVAL_TOKENS)
    assert len(cut) == 512
    assert cut[1] == (195_312, 195_568)
    assert cut[-1][1] > 99_800_000


def test_a_context_longer_than_the_limit_is_one_window() -> None:
    assert spans(5000, 256, max_tokens=100) == [(0, 256)]
    assert spans(200, 256, max_tokens=100) == [(0, 199)]


def test_batches_have_the_same_number_of_tokens_for_every_window() -> None:
    for length in (16, 64, 256, 1024):
        sizes = [len(starts) * length for starts, _ in evaluation_windows(100_000, length)]
        assert sizes[0] == 2048
        assert max(sizes) == 2048
