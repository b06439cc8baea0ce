"""Assigns the slots of a KV cache, and reuses the prefixes in it: a prompt's cached prefix is not prefilled again.

Automatic prefix caching, as in vLLM (Kwon et al., arXiv 2309.06180), by copying pages instead of sharing them.
"""

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.kv_cache import KVCache

MIN_PREFIX_TOKENS = 16
"""Shortest prompt prefix that is reused."""


class PrefixCache:
    """Slots and their cached sequences: each running sequence has a slot of its own.

    A freed slot keeps its pages until a sequence needs the slot or the pages; until then, prompts reuse its prefixes.
    """

    def __init__(self, cache: KVCache, tokens: NDArray[np.int64]) -> None:
        """`tokens` (slots, context + 1): ids of each slot's sequence; the first cache.lengths of them are cached."""
        self._cache = cache
        self._tokens = tokens
        self._num_used_slots = 0
        """Slots that have ever been used: the first ones. Another is used only if none of them is free."""
        self._free_slots: list[int] = []
        """Used slots without a running sequence, least recently used first."""

    @property
    def full(self) -> bool:
        """Whether no slot is free."""
        return not self._free_slots and self._num_used_slots == len(self._tokens)

    @property
    def num_reusable_pages(self) -> int:
        """Resident pages that no running sequence owns."""
        return self._cache.num_free + sum(self._cache.num_pages[slot] for slot in self._free_slots)

    def allocate(self, num_pages: int, prompt: NDArray[np.integer] | None) -> int:
        """Take a slot with `num_pages` pages, and the longest cached prefix of `prompt` in them; no prefix for None.

        Sets the slot's length to the prefix's, and returns the slot. The caller ensures that slots and pages suffice.
        """
        if not self._free_slots:
            self._free_slots.append(self._num_used_slots)
            self._num_used_slots += 1
        length, source = (0, -1) if prompt is None else self.longest_prefix(prompt)
        slot = source if source in self._free_slots else self._free_slots[0]
        self._free_slots.remove(slot)
        self._allocate_pages(slot, num_pages)
        if length and source != slot:
            self._cache.copy(source, slot, length)
        self._cache.lengths[slot] = length
        return slot

    def _allocate_pages(self, slot: int, num_pages: int) -> None:
        """Let a slot own `num_pages`: first its own, then free ones, those of free slots, and ones never used."""
        missing = num_pages - self._cache.num_pages[slot]
        for other in self._free_slots:
            if missing <= self._cache.num_free:
                break
            self._cache.allocate(other, 0)
        self._cache.allocate(slot, num_pages)

    def free(self, slot: int) -> None:
        """End a slot's sequence."""
        self._free_slots.append(slot)

    def longest_prefix(self, prompt: NDArray[np.integer]) -> tuple[int, int]:
        """Length of the longest prefix of `prompt` in any slot, and that slot; (0, -1) below MIN_PREFIX_TOKENS.

        Excludes the last token, whose logits are needed.
        """
        same = self._tokens[: self._num_used_slots, : len(prompt)] == prompt
        common = np.where(same.all(1), len(prompt), same.argmin(1))
        cached = np.minimum(np.minimum(common, self._cache.lengths[: self._num_used_slots]), len(prompt) - 1)
        best = int(cached.argmax())
        return (int(cached[best]), best) if cached[best] >= MIN_PREFIX_TOKENS else (0, -1)

    def copy_prefix(self, prompt: NDArray[np.integer], slot: int) -> None:
        """Copy the longest cached prefix of `prompt`, if there is one, to an allocated slot that is empty."""
        length, source = self.longest_prefix(prompt)
        if length:
            self._cache.copy(source, slot, length)


def have_common_prefix(a: NDArray[np.integer], b: NDArray[np.integer]) -> bool:
    """Whether two prompts begin with the same MIN_PREFIX_TOKENS tokens."""
    n = MIN_PREFIX_TOKENS
    return min(len(a), len(b)) >= n and np.array_equal(a[:n], b[:n])
