"""The paged KV cache: keys and values of past tokens, so that only new tokens are computed."""

import heapq

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.buffers import Pages
from gptbox.engine.packing import PANEL, padded
from gptbox.models.config import ModelConfig
from gptbox.system.memory import allocate


class KVCache:
    """Keys and values of sequences of up to context_length tokens, one per slot; slot s holds lengths[s] tokens.

    Memory is allocated in pages, so that a sequence takes only what its tokens need: PagedAttention, Kwon et al., arXiv
    2309.06180. A page has 32 positions, as (n_layer, n_kv_head, keys and values). A head's keys (head_dim, 32) and
    values (head_dim / 32, 32, 32) have the layout of packed weights (`gptbox.engine.packing`): positions are the
    outputs of query times keys, and the inputs of probabilities times values. Pages are not cleared between sequences.
    A page takes memory from its first use on.
    """

    def __init__(self, config: ModelConfig, slots: int, total_pages: int | None = None) -> None:
        """With `total_pages`, slots own no pages at first; without, each owns as many as a full context takes."""
        pages_per_context = self.pages_for(config)
        count = slots * pages_per_context if total_pages is None else total_pages
        (memory,) = allocate((count, self.page_bytes(config) // 4))
        self.pages = Pages(memory, np.zeros((slots, pages_per_context), np.int64))
        self.lengths: NDArray[np.int64] = np.zeros(slots, np.int64)
        self.num_pages: list[int] = [0] * slots
        """Pages that each slot owns."""
        self.num_resident = 0
        """Pages that have ever been used and so take memory: the first ones."""
        self._free: list[int] = []
        """A heap of the resident pages that no slot owns."""
        if total_pages is None:
            for slot in range(slots):
                self.allocate(slot, pages_per_context)

    @staticmethod
    def pages_for(config: ModelConfig, tokens: int | None = None) -> int:
        """Pages that a sequence of `tokens` tokens takes; None means a full context."""
        context = config.context_length
        return padded(context if tokens is None else min(tokens, context)) // PANEL

    @staticmethod
    def page_bytes(config: ModelConfig) -> int:
        """Bytes per page."""
        return 4 * PANEL * config.n_layer * config.n_kv_head * (config.head_dim + padded(config.head_dim))

    @property
    def num_free(self) -> int:
        """Resident pages that no slot owns."""
        return len(self._free)

    def allocate(self, slot: int, num_pages: int) -> None:
        """Let a slot own exactly `num_pages` pages: allocate missing ones, or free its last ones and their tokens."""
        assert num_pages - self.num_pages[slot] <= len(self.pages.memory) - self.num_resident + self.num_free, (
            "there is no room"
        )
        row = self.pages.table[slot]
        for i in range(num_pages, self.num_pages[slot]):
            heapq.heappush(self._free, int(row[i]))
        for i in range(self.num_pages[slot], num_pages):
            # Resident pages first, the lowest first: others would take new memory.
            if self._free:
                row[i] = heapq.heappop(self._free)
            else:
                row[i] = self.num_resident
                self.num_resident += 1
        self.num_pages[slot] = num_pages
        self.lengths[slot] = min(self.lengths[slot], num_pages * PANEL)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of slot `source` to slot `target`, which owns enough pages."""
        count = padded(length) // PANEL
        memory, table = self.pages
        memory[table[target, :count]] = memory[table[source, :count]]
        self.lengths[target] = length
