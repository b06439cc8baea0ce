import numpy as np
import pytest
from tests.engine.helpers import alone, count_new_tokens, ids, request, run, sink

from gptbox.engine.batch import Batch
from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.prefix_cache import MIN_PREFIX_TOKENS, PrefixCache, have_common_prefix
from gptbox.engine.sampling_params import SamplingParams
from gptbox.models.config import ModelConfig

CONFIG = ModelConfig(architecture="gpt2", vocab_size=65, context_length=100, n_layer=1, n_head=1, n_embd=32)


class Slots:
    """Three slots without a model: `run` caches a sequence in full."""

    def __init__(self, total_pages: int) -> None:
        self.cache = KVCache(CONFIG, 3, total_pages)
        self.tokens = np.zeros((3, CONFIG.context_length + 1), np.int64)
        self.prefixes = PrefixCache(self.cache, self.tokens)

    def run(self, tokens: np.ndarray, num_pages: int) -> int:
        slot = self.prefixes.allocate(num_pages, tokens)
        self.tokens[slot, : len(tokens)] = tokens
        self.cache.lengths[slot] = len(tokens)
        return slot


def test_the_longest_cached_prefix_ends_before_the_last_token_of_the_prompt() -> None:
    slots, text = Slots(9), ids(60)
    slots.run(np.concatenate([text[:20], ids(10, 1)]), 1)
    assert slots.prefixes.longest_prefix(text) == (20, 0)
    slots.run(text[:40], 2)
    assert slots.prefixes.longest_prefix(text) == (40, 1)
    assert slots.prefixes.longest_prefix(text[:40]) == (39, 1)
    assert slots.prefixes.longest_prefix(text[: MIN_PREFIX_TOKENS + 1]) == (MIN_PREFIX_TOKENS, 0)
    assert slots.prefixes.longest_prefix(text[:MIN_PREFIX_TOKENS]) == (0, -1)
    slots.cache.lengths[:] = MIN_PREFIX_TOKENS - 1  # the rest is not computed yet
    assert slots.prefixes.longest_prefix(text) == (0, -1)


def test_a_free_slot_continues_its_own_prefix_and_a_running_one_is_copied() -> None:
    slots, text = Slots(9), ids(60)
    slots.cache.pages.memory[:] = np.arange(9)[:, None]
    other, source = slots.run(ids(30, 1), 1), slots.run(text[:40], 2)
    slots.prefixes.free(other)
    copy = slots.prefixes.allocate(2, text)
    assert copy == other
    assert slots.cache.lengths[copy] == 40
    np.testing.assert_array_equal(
        slots.cache.pages.memory[slots.cache.pages.table[copy, :2]],
        slots.cache.pages.memory[slots.cache.pages.table[source, :2]],
    )
    slots.prefixes.free(copy)
    slots.prefixes.free(source)
    slots.tokens[copy, 30] += 1
    before = slots.cache.pages.table[source, :2].tolist()
    assert slots.prefixes.allocate(3, text) == source  # though `copy` is the least recently used
    assert slots.cache.lengths[source] == 40
    assert slots.cache.pages.table[source, :2].tolist() == before


def test_a_sequence_without_reuse_starts_empty_in_the_least_recently_used_slot() -> None:
    slots, text = Slots(9), ids(40)
    for slot in (slots.run(ids(40, 1), 2), slots.run(text, 2)):
        slots.prefixes.free(slot)
    assert slots.prefixes.allocate(2, None) == 0
    assert slots.cache.lengths[0] == 0
    slots.prefixes.copy_prefix(text, 0)
    assert slots.cache.lengths[0] == 39
    slots.cache.lengths[0] = 0
    slots.prefixes.copy_prefix(ids(40, 2), 0)
    assert slots.cache.lengths[0] == 0


def test_free_slots_keep_their_pages_until_these_are_needed() -> None:
    slots = Slots(5)
    for seed in (1, 2):
        slots.run(ids(40, seed), 2)
    assert slots.prefixes.num_reusable_pages == 0
    slots.prefixes.free(0)
    assert slots.prefixes.num_reusable_pages == 2
    assert slots.run(ids(40, 3), 3) == 0
    assert (slots.cache.num_pages, slots.cache.num_resident) == ([3, 2, 0], 5)
    slots.prefixes.free(1)
    slots.prefixes.free(0)
    assert slots.run(ids(40, 4), 3) == 1
    assert (slots.cache.num_pages, slots.cache.num_resident) == ([0, 3, 0], 5)
    assert slots.prefixes.num_reusable_pages == 2


def test_the_cache_is_full_when_every_slot_runs() -> None:
    slots = Slots(3)
    for seed in range(3):
        assert not slots.prefixes.full
        slots.run(ids(5, seed), 1)
    assert slots.prefixes.full
    slots.prefixes.free(1)
    assert not slots.prefixes.full


def test_a_common_prefix_has_at_least_the_minimum_number_of_tokens() -> None:
    text = ids(30)
    other = text.copy()
    other[MIN_PREFIX_TOKENS] += 1
    assert have_common_prefix(text, other)
    assert have_common_prefix(text, text[:MIN_PREFIX_TOKENS])
    assert not have_common_prefix(text, text[: MIN_PREFIX_TOKENS - 1])
    other[MIN_PREFIX_TOKENS - 1] += 1
    assert not have_common_prefix(text, other)


def test_a_shared_prompt_is_prefilled_once(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = ids(30)
    requests = [request(model, prompt, max_tokens=1, seed=i) for i in range(4)]
    expected = [alone(model, prompt, each.params) for each in requests]
    counts = count_new_tokens(monkeypatch)
    run(Batch(model, 4), *requests)
    assert [sink(each).ids for each in requests] == expected
    assert sum(counts) == 30 + 3  # the other three compute only its last token


def test_the_cached_prefix_of_a_finished_request_is_reused(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, beginning = Batch(model, 3), ids(MIN_PREFIX_TOKENS + 4)
    run(batch, request(model, beginning, max_tokens=2, seed=1))
    prompt = np.concatenate([beginning, ids(4, 1)])
    expected = alone(model, prompt, SamplingParams(max_tokens=4, seed=2))
    counts = count_new_tokens(monkeypatch)
    follower = request(model, prompt, max_tokens=4, seed=2)
    run(batch, follower)
    assert counts[0] == 4
    assert sink(follower).ids == expected


def test_a_shorter_common_prefix_is_not_shared(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, prompt = Batch(model, 2), ids(30)
    run(batch, request(model, prompt, max_tokens=2, seed=1))
    other = prompt.copy()
    other[MIN_PREFIX_TOKENS - 1] = (other[MIN_PREFIX_TOKENS - 1] + 1) % 65
    expected = alone(model, other, SamplingParams(max_tokens=4, seed=2))
    counts = count_new_tokens(monkeypatch)
    follower = request(model, other, max_tokens=4, seed=2)
    run(batch, follower)
    assert counts[0] == 30
    assert sink(follower).ids == expected


def test_a_row_whose_prefix_source_is_cancelled_prefills_its_prompt_itself(model: GPT) -> None:
    batch, prompt = Batch(model, 2), ids(30)
    source, follower = (request(model, prompt, max_tokens=5, seed=i) for i in range(2))
    batch.add(source)
    batch.add(follower)
    source.cancel()
    batch.remove_finished()
    run(batch)
    assert sink(follower).ids == alone(model, prompt, follower.params)


def test_a_shared_prefix_is_copied_into_fewer_pages_than_its_source_has(
    large: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, beginning = Batch(large, 3), ids(100)
    first = request(large, beginning, max_tokens=300, seed=1)
    batch.add(first)
    while len(sink(first).ids) < 10:
        batch.step()
    prompt = np.concatenate([beginning[:70], ids(4, 1)])
    expected = alone(large, prompt, SamplingParams(max_tokens=4, seed=2))
    counts = count_new_tokens(monkeypatch)
    follower = request(large, prompt, max_tokens=4, seed=2)
    batch.add(follower)
    while len(sink(follower).ids) < 4:
        batch.step()
    assert counts[0] == 1 + 4  # the first row's next token, and the follower's four unshared ones
    assert sink(follower).ids == expected
    run(batch)
    assert sink(first).ids == alone(large, beginning, first.params)


def test_slots_and_pages_are_reused_before_new_ones_are_touched(model: GPT) -> None:
    batch = Batch(model, 50)
    for i in range(10):
        run(batch, *(request(model, ids(20, 10 * i + j), max_tokens=3) for j in range(4)))
    assert batch._cache.num_resident == 4  # pages, each of a whole context here
    assert batch._cache.pages.memory[:4].any(1).all()
    assert not batch._cache.pages.memory[4:].any()
    for j in range(50):
        assert not batch.full
        batch.add(request(model, [j], max_tokens=3))
    assert batch.full


def test_a_long_request_reuses_the_pages_of_finished_ones(large: GPT) -> None:
    batch, prompt = Batch(large, 8, total_pages=33), ids(900, 3)
    # Freed pages are scattered and unordered.
    shorts = [request(large, ids(40, i), max_tokens=20 + 60 * (i % 2), seed=i) for i in range(8)]
    run(batch, *shorts)
    assert batch._cache.num_resident == 4 * 2 + 4 * 4
    long = request(large, prompt, max_tokens=100, seed=9)
    assert batch.additional_bytes(long) == (32 - 24) * KVCache.page_bytes(large.config)
    batch.add(long)
    short = request(large, ids(5), max_tokens=20, seed=1)
    assert batch.additional_bytes(short) == KVCache.page_bytes(large.config)
    run(batch, short)
    assert batch._cache.num_resident == 33
    expected = [alone(large, each.prompt, each.params) for each in (*shorts, long, short)]
    assert [sink(each).ids for each in (*shorts, long, short)] == expected
