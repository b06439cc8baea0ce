"""Keys and values of the tokens that were already seen, so that each new token costs one position and not a window."""

import heapq

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.panels import PANEL, padded
from gptbox.engine.state import Pages
from gptbox.memory import allocate
from gptbox.model_config import ModelConfig


class KVCache:
    """Sequences of up to context_length tokens, one a slot; slot s holds `lengths[s]` of them.

    Memory is given out in pages, so that a sequence costs what it holds: PagedAttention, Kwon et al., arXiv 2309.06180.
    A page has 32 positions, as (n_layer, n_kv_head, keys and values); a head's keys (head_dim, 32) and values
    (head_dim / 32, 32, 32) are laid out as the weights of a product (`gptbox.engine.panels`): positions are a query's
    outputs, and the inputs of what it reads. Nothing is cleared between sequences. A page costs memory once it is used.
    """

    def __init__(self, config: ModelConfig, slots: int, pages: int | None = None) -> None:
        """With `pages` slots have none at first; else each has as many as its context takes."""
        each = self.pages_for(config)
        count = slots * each if pages is None else pages
        (memory,) = allocate((count, self.page_bytes(config) // 4))
        self.pages = Pages(memory, np.zeros((slots, each), np.int64))
        self.lengths: NDArray[np.int64] = np.zeros(slots, np.int64)
        self.held: list[int] = [0] * slots
        """How many pages each slot has."""
        self.used = 0
        """Pages that have ever been given out, and so cost memory: the first ones."""
        self._idle: list[int] = []
        """Of those, which no slot has: a heap."""
        if pages is None:
            for slot in range(slots):
                self.hold(slot, each)

    @staticmethod
    def pages_for(config: ModelConfig, tokens: int | None = None) -> int:
        """Pages that `tokens` of a sequence take; None means a full context."""
        context = config.context_length
        return padded(context if tokens is None else min(tokens, context)) // PANEL

    @staticmethod
    def page_bytes(config: ModelConfig) -> int:
        return 4 * PANEL * config.n_layer * config.n_kv_head * (config.head_dim + padded(config.head_dim))

    @property
    def idle(self) -> int:
        """Pages that cost memory and no slot has."""
        return len(self._idle)

    def hold(self, slot: int, count: int) -> None:
        """Let a slot have `count` pages: its first ones stay, and it has no more tokens than these."""
        assert count - self.held[slot] <= len(self.pages.memory) - self.used + self.idle, "there is no room"
        row = self.pages.table[slot]
        for i in range(count, self.held[slot]):
            heapq.heappush(self._idle, int(row[i]))
        for i in range(self.held[slot], count):
            # The lowest page first: pages never used cost no memory yet.
            if self._idle:
                row[i] = heapq.heappop(self._idle)
            else:
                row[i] = self.used
                self.used += 1
        self.held[slot] = count
        self.lengths[slot] = min(self.lengths[slot], count * PANEL)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let slot `target`, which has the pages for them, hold the first `length` tokens of slot `source`."""
        count = padded(length) // PANEL
        memory, table = self.pages
        memory[table[target, :count]] = memory[table[source, :count]]
        self.lengths[target] = length
