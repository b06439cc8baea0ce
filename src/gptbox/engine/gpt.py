"""A model that can be run, without torch. What it computes is in `gptbox.engine.kernels.forward`."""

import numpy as np
from numpy.typing import NDArray

from gptbox.engine import native
from gptbox.engine.autotune import StrategyTuner
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.network import network
from gptbox.engine.state import MOST_AHEAD, MOST_TOKENS, Scratch
from gptbox.model_config import ModelConfig
from gptbox.weights import Array, Weights


class GPT:
    """A decoder-only transformer. Reading is thread-safe; each KVCache belongs to one caller."""

    def __init__(self, config: ModelConfig, weights: Weights, quantize: bool = False) -> None:
        """`weights` as in `gptbox.weights`, float32; `quantize` keeps the matrices in 8 bits."""
        self.config = config
        self.network = network(config, weights, quantize)
        self.draft = None if quantize else network(config, weights, True)
        """The same model in 8 bits, which writes a lone text ahead: it makes that faster, and changes nothing in it."""
        self._tuners: dict[int, StrategyTuner] = {}

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        arrays = [array for part in (self.network, self.draft or ()) for array in part if isinstance(array, np.ndarray)]
        return sum(array.nbytes for array in {id(array): array for array in arrays}.values())

    def tuner(self, threads: int) -> StrategyTuner:
        """The tuner for this number of threads; what it has measured outlives the batches."""
        return self._tuners.setdefault(threads, StrategyTuner(threads, 0 if self.draft is None else MOST_AHEAD))

    def forward(
        self, ids: NDArray[np.integer], cache: KVCache, slots: slice = slice(None), last_only: bool = False
    ) -> Array:
        """Logits after each of the new tokens `ids` (B, T): (B, T, V), or (B, V) after the last.

        They continue what the cache holds in `slots`, and are appended to it. The caller sees to it that they fit:
        lengths[slots] + T <= context_length. Raises IndexError where an id is none of the vocabulary.
        """
        (batch, time), vocabulary = ids.shape, self.config.vocab_size
        start = cache.lengths[slots]
        assert int(start.max()) + time <= self.config.context_length, "the caller must slide the window first"
        if ids.min() < 0 or ids.max() >= vocabulary:
            raise IndexError(f"a token id is outside of 0 to {vocabulary - 1}")
        used = np.arange(len(cache.lengths))[slots]
        logits = np.empty((batch, time, vocabulary), np.float32)
        scratch = Scratch.of(self.config, MOST_TOKENS)
        table = native.table(self.network, self.draft or self.network, cache.pages, scratch)
        # As many rows at once as fit, and of one that alone does not, as many tokens.
        rows, length = max(1, MOST_TOKENS // time), min(time, MOST_TOKENS)
        for row in range(0, batch, rows):
            for first in range(0, time, length):
                some = ids[row : row + rows, first : first + length]
                plan = scratch.plan[0, :, : some.size]
                plan[0] = some.reshape(-1)
                plan[1] = np.repeat(used[row : row + rows], some.shape[1])
                plan[2] = (start[row : row + rows, None] + first + np.arange(some.shape[1])).reshape(-1)
                native.forward(table.ctypes.data, some.size)
                logits[row : row + rows, first : first + length] = scratch.logits[: some.size, :vocabulary].reshape(
                    *some.shape, vocabulary
                )
        cache.lengths[slots] += time
        return logits[:, -1] if last_only else logits
