"""A model ready for inference, without torch; `gptbox.engine.kernels.forward` is its forward pass."""

import numpy as np
from numpy.typing import NDArray

from gptbox.engine import native
from gptbox.engine.abi import ForwardArguments, pack
from gptbox.engine.autotune import StrategyTuner
from gptbox.engine.buffers import MAX_DRAFT_TOKENS, MAX_TOKENS, Scratch
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.packed_model import pack_model
from gptbox.models.config import ModelConfig
from gptbox.models.weights import Array, Weights
from gptbox.tokenizers.utf8 import Utf8Constraint


class GPT:
    """A decoder-only transformer. Thread-safe, but each KVCache belongs to one caller."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        quantize: bool = False,
        constraint: Utf8Constraint | None = None,
    ) -> None:
        """`weights` as in `gptbox.models.weights`, float32; `quantize` stores the matrices in int8.

        `constraint` says which tokens are sampled: by default all.
        """
        self.config = config
        self.constraint = constraint
        self.quantized = quantize
        self.packed = pack_model(config, weights, quantize)
        self.draft = None if quantize else pack_model(config, weights, True)
        """An int8 copy for self-speculative decoding, which changes no output; None if the model itself is int8."""
        self._tuners: dict[int, StrategyTuner] = {}

    @property
    def size(self) -> int:
        """Bytes of all weights, the draft's included."""
        arrays = [array for part in (self.packed, self.draft or ()) for array in part if isinstance(array, np.ndarray)]
        return sum(array.nbytes for array in {id(array): array for array in arrays}.values())

    def tuner(self, threads: int) -> StrategyTuner:
        """The tuner for this number of threads; its measurements outlive each batch."""
        return self._tuners.setdefault(threads, StrategyTuner(threads, 0 if self.draft is None else MAX_DRAFT_TOKENS))

    def forward(
        self, ids: NDArray[np.integer], cache: KVCache, slots: slice = slice(None), last_only: bool = False
    ) -> Array:
        """Logits (B, T, V) after each of the new tokens `ids` (B, T); with `last_only`, (B, V) after the last.

        The tokens continue the sequences in the cache's `slots` and are appended to them. The caller ensures that they
        fit: lengths[slots] + T <= context_length. Raises IndexError for an id outside of the vocabulary.
        """
        (batch, time), vocabulary = ids.shape, self.config.vocab_size
        start = cache.lengths[slots]
        assert int(start.max()) + time <= self.config.context_length, "the caller must slide the window first"
        if ids.min() < 0 or ids.max() >= vocabulary:
            raise IndexError(f"a token id is outside of 0 to {vocabulary - 1}")
        slot_indices = np.arange(len(cache.lengths))[slots]
        logits = np.empty((batch, time, vocabulary), np.float32)
        scratch = Scratch.of(self.config, MAX_TOKENS)
        table = pack(ForwardArguments(self.packed, cache.pages, scratch))
        # A chunk has as many whole rows as fit into MAX_TOKENS; a longer row is split.
        rows, length = max(1, MAX_TOKENS // time), min(time, MAX_TOKENS)
        for row in range(0, batch, rows):
            for first in range(0, time, length):
                chunk = ids[row : row + rows, first : first + length]
                inputs = scratch.step_inputs[0, :, : chunk.size]
                inputs[0] = chunk.reshape(-1)
                inputs[1] = np.repeat(slot_indices[row : row + rows], chunk.shape[1])
                inputs[2] = (start[row : row + rows, None] + first + np.arange(chunk.shape[1])).reshape(-1)
                native.forward(table.ctypes.data, chunk.size)
                logits[row : row + rows, first : first + length] = scratch.logits[: chunk.size, :vocabulary].reshape(
                    *chunk.shape, vocabulary
                )
        cache.lengths[slots] += time
        return logits[:, -1] if last_only else logits
