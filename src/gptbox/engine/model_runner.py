"""Runs the compiled steps of a batch on the threads of a pool.

Threads share the rows (data parallel) or each matrix product (tensor parallel): `gptbox.engine.autotune` chooses.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptbox.engine import native
from gptbox.engine.abi import DecodeArguments, pack
from gptbox.engine.autotune import Strategy
from gptbox.engine.buffers import SampledTokens, Scratch, Sequences
from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.request import Logprobs
from gptbox.engine.worker_pool import WorkerPool


class ModelOutput(NamedTuple):
    """The tokens that a run sampled. The arrays are reused: they are valid until the next run."""

    sampled: SampledTokens
    steps_run: list[int]
    """Per batch row; a row that samples has one token per step."""

    def tokens(self, i: int) -> list[int]:
        """Ids sampled for batch row i."""
        ids: list[int] = self.sampled.tokens[: self.steps_run[i], i].tolist()
        return ids

    def logprobs(self, i: int, count: int, num_alternatives: int) -> Logprobs:
        """Log-probabilities of batch row i's first `count` tokens, and of `num_alternatives` for each of them."""
        ids, values = (
            self.sampled.top_tokens[:count, i, :num_alternatives],
            self.sampled.top_logprobs[:count, i, :num_alternatives],
        )
        pairs = [list(zip(*each, strict=True)) for each in zip(ids.tolist(), values.tolist(), strict=True)]
        return Logprobs(self.sampled.logprobs[:count, i].tolist(), pairs)


class ModelRunner:
    """The arrays of one batch, and the threads that compute with them. Not thread-safe."""

    def __init__(
        self, model: GPT, pool: WorkerPool, cache: KVCache, sequences: Sequences, interrupt: NDArray[np.int64]
    ) -> None:
        """Once interrupt[0] is not 0, a run ends after the current step."""
        slots = len(cache.lengths)
        self._pool = pool
        self._sampled = SampledTokens.of(slots)
        # One per thread for data parallelism, and the last one, for all threads, for tensor parallelism.
        threads = self._pool.size
        self._scratch = [Scratch.of(model.config, slots, each) for each in (*[1] * threads, threads)]
        self._arrays = model.packed, model.draft, cache, sequences, interrupt  # kept alive: the tables hold addresses
        self._argument_tables = [
            pack(
                DecodeArguments(
                    model.packed, model.draft or model.packed, cache.pages, scratch, sequences, self._sampled, interrupt
                )
            )
            for scratch in self._scratch
        ]

    def run(
        self,
        slots: NDArray[np.int64],
        num_new_tokens: NDArray[np.int64],
        do_sample: NDArray[np.int64],
        num_steps: int,
        strategy: Strategy,
    ) -> ModelOutput:
        """Run up to `num_steps` steps of the batch rows; arrays are (rows,), as in `gptbox.engine.kernels.decode`."""
        threads, count, draft = self._pool.size, len(slots), strategy.num_draft_tokens
        decode_steps = native.decode_steps  # looked up once: threads that share a barrier must run the same function
        arrays = slots.ctypes.data, num_new_tokens.ctypes.data, do_sample.ctypes.data, count
        steps_run = [0] * count
        parts = 1 if strategy.tensor_parallel else min(threads, count)
        bounds = _partition(num_new_tokens, parts)

        def data_parallel(rank: int) -> None:
            begin, end = bounds[rank], bounds[rank + 1]
            if begin < end:
                table = self._argument_tables[rank].ctypes.data
                done = decode_steps(table, *arrays, begin, end, num_steps, draft, 0, 1)
                steps_run[begin:end] = [done] * (end - begin)

        def tensor_parallel(rank: int) -> None:
            table = self._argument_tables[threads].ctypes.data
            done = decode_steps(table, *arrays, 0, count, num_steps, draft, rank, threads)
            if rank == 0:
                steps_run[:] = [done] * count

        if strategy.tensor_parallel:
            self._pool.run(tensor_parallel)
        else:
            self._pool.run(data_parallel, parts)
        return ModelOutput(self._sampled, steps_run)

    def score(self, slot: int, num_tokens: int, num_alternatives: int) -> Logprobs:
        """Prefill a slot's next `num_tokens` tokens, at most MAX_STEPS.

        Returns the log-probability of the token after each of them.
        """
        native.score(self._argument_tables[0].ctypes.data, slot, num_tokens, num_alternatives)
        return ModelOutput(self._sampled, [num_tokens]).logprobs(0, num_tokens, num_alternatives)


def _partition(num_new_tokens: NDArray[np.int64], parts: int) -> list[int]:
    """Bounds (parts + 1,) of consecutive batch rows with about equally many tokens."""
    ends = np.arange(1, parts) * (num_new_tokens.sum() / parts) - 0.5  # in tokens
    bounds = np.minimum(np.searchsorted(np.cumsum(num_new_tokens), ends) + 1, len(num_new_tokens))
    return [0, *bounds.tolist(), len(num_new_tokens)]
