import numpy as np
import pytest

from gptbox.engine.kv_cache import KVCache
from gptbox.models.config import ModelConfig

CONFIG = ModelConfig(architecture="gpt2", vocab_size=65, context_length=100, n_layer=2, n_head=2, n_embd=80)


def pages(cache: KVCache, slot: int) -> list[int]:
    return cache.pages.table[slot, : cache.num_pages[slot]].tolist()


def test_a_page_has_32_positions_of_all_layers_and_heads() -> None:
    # Keys of 40 numbers, and values padded to 64.
    assert KVCache.page_bytes(CONFIG) == 4 * 32 * 2 * 2 * (40 + 64)
    assert [KVCache.pages_for(CONFIG, tokens) for tokens in (1, 32, 33, 100, 101, 10_000)] == [1, 1, 2, 4, 4, 4]
    assert KVCache.pages_for(CONFIG) == 4


def test_slots_own_full_contexts_unless_pages_are_allocated() -> None:
    cache = KVCache(CONFIG, 3)
    assert sorted(pages(cache, 0) + pages(cache, 1) + pages(cache, 2)) == list(range(12))
    cache = KVCache(CONFIG, 3, total_pages=5)
    assert (cache.num_pages, cache.num_resident, cache.num_free) == ([0, 0, 0], 0, 0)


def test_freed_pages_are_reused_before_new_ones() -> None:
    cache = KVCache(CONFIG, 3, total_pages=6)
    cache.allocate(0, 2)
    cache.allocate(1, 3)
    assert (pages(cache, 0), pages(cache, 1), cache.num_resident) == ([0, 1], [2, 3, 4], 5)
    cache.lengths[1] = 80
    cache.allocate(1, 1)
    assert cache.lengths[1] == 32
    cache.allocate(0, 0)
    assert (cache.num_resident, cache.num_free) == (5, 4)
    cache.allocate(2, 4)
    assert (pages(cache, 2), cache.num_resident, cache.num_free) == ([0, 1, 3, 4], 5, 0)
    cache.allocate(0, 1)
    assert (pages(cache, 0), cache.num_resident) == ([5], 6)
    with pytest.raises(AssertionError, match="no room"):
        cache.allocate(1, 2)


def test_a_copy_has_the_first_tokens_in_its_own_pages() -> None:
    cache = KVCache(CONFIG, 2, total_pages=7)
    cache.allocate(1, 1)
    cache.allocate(0, 3)
    cache.allocate(1, 3)
    memory = cache.pages.memory
    memory[...] = np.random.default_rng(1).random(memory.shape)
    before = memory.copy()
    cache.copy(0, 1, 40)
    assert cache.lengths.tolist() == [0, 40]
    for i, (source, target) in enumerate(zip(pages(cache, 0), pages(cache, 1), strict=True)):
        expected = before[source] if i < 2 else before[target]
        np.testing.assert_array_equal(memory[target], expected)
