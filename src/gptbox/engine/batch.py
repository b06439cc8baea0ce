"""Continuous batching for one model: rows join and leave between steps, and long prompts are prefilled in chunks."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptbox.engine import native
from gptbox.engine.abi import DecodeArguments, pack
from gptbox.engine.autotune import Strategy
from gptbox.engine.buffers import MAX_STEPS, MAX_TOKENS, SampledTokens, Scratch, Sequences
from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.request import Logprobs, Request
from gptbox.engine.sampling_params import SamplingParams
from gptbox.engine.worker_pool import WorkerPool
from gptbox.models.context_window import slide_window

TIME_SLICE_S = 0.01
"""Target duration of the decoding steps between two schedulings; a request that joins or leaves cuts them short."""
MANY_ROWS = 8
"""From this many rows on time slices are doubled, because delivering tokens takes time per row."""
_PREFILL_COST = 0.25
"""Rough cost of prefilling a token, relative to decoding one."""
_FEW_STEPS = 4
"""Fewest decoding steps that give a usable timing."""
SHARED_TOKENS = 16
"""Shortest prompt prefix that is copied from another slot's cache instead of being prefilled."""


@dataclass(eq=False)
class _RowState:
    """A running request and its slot."""

    request: Request
    slot: int
    window: NDArray[np.integer]
    """The end of the prompt that fits the context."""
    num_tokens: int
    """Tokens in the slot's window; those beyond the cache's length are computed next."""
    num_remaining: int
    """Tokens still to generate."""
    prefix_source: "_RowState | None" = None
    """A row that is still prefilling a shared prefix: this row waits for it, then copies the prefix."""
    prompt_logprobs: Logprobs | None = None
    """The prompt's log-probabilities so far, while they are computed."""

    @property
    def is_finished(self) -> bool:
        return (self.num_remaining <= 0 and self.prompt_logprobs is None) or self.request.cancelled


class Batch:
    """The running rows of one model. Not thread-safe; a worker pool may share the computation."""

    def __init__(
        self,
        model: GPT,
        slots: int,
        pool: WorkerPool | None = None,
        interrupt: NDArray[np.int64] | None = None,
        total_pages: int | None = None,
    ):
        """Up to `slots` requests at once, whose keys and values share `total_pages`; by default a full context each.

        Another thread sets `interrupt` (1,) to end the current steps early.
        """
        self.model = model
        self.rows: list[_RowState] = []
        self._pool = pool or WorkerPool(1)
        self._tuner = model.tuner(self._pool.size)
        self._interrupt = np.zeros(1, np.int64) if interrupt is None else interrupt
        self._cache = KVCache(
            model.config, slots, slots * KVCache.pages_for(model.config) if total_pages is None else total_pages
        )
        self._sequences = Sequences.of(model.config, self._cache.lengths)
        self._num_slots = slots
        self._num_used_slots = 0
        """Slots that have ever been used: the first ones; a new one is used only if none of them is free."""
        self._free_slots: list[int] = []
        """Used slots without a row, least recently used first; they keep their pages until these are needed."""
        self._sampled = SampledTokens.of(slots)
        # One per thread for data parallelism, and the last one, for all threads, for tensor parallelism.
        threads = self._pool.size
        self._scratch = [Scratch.of(model.config, slots, each) for each in (*[1] * threads, threads)]
        self._argument_tables = [
            pack(DecodeArguments(
                model.packed, model.draft or model.packed, self._cache.pages, scratch, self._sequences, self._sampled,
                self._interrupt,
            ))
            for scratch in self._scratch
        ]  # fmt: skip
        self._step_s = 1e-5 + model.packed.panels.nbytes / 2e10  # from memory bandwidth, until it has been measured
        # Prefill tokens per step, for some milliseconds; per row at most a chunk, so that threads can share the rows.
        budget = threads * int(np.clip(250_000_000 // (model.packed.panels.nbytes // 4), 16, 192))
        self._prefill_budget = min(budget, MAX_TOKENS - min(slots, 64))
        self._prefill_chunk = min(budget, 128)

    @property
    def cache_bytes(self) -> int:
        """Memory that the KV cache takes: pages that have ever been used."""
        return self._cache.num_resident * KVCache.page_bytes(self.model.config)

    def additional_bytes(self, request: Request) -> int:
        """Memory by which the KV cache grows if this request joins."""
        reusable = self._cache.num_resident - sum(self._cache.num_pages[row.slot] for row in self.rows)
        return max(0, self._max_pages(request) - reusable) * KVCache.page_bytes(self.model.config)

    def _max_pages(self, request: Request) -> int:
        """Pages that a request needs at most; its last token is never computed, only sampled."""
        return KVCache.pages_for(self.model.config, len(request.prompt) + max(request.params.max_tokens - 1, 0))

    @property
    def full(self) -> bool:
        """Whether no slot is free."""
        return not self._free_slots and self._num_used_slots == self._num_slots

    def add(self, request: Request) -> None:
        """Give a request a slot; the batch must not be full. The next steps prefill its prompt."""
        window = request.prompt[-self.model.config.context_length :]
        if not self._free_slots:
            self._free_slots.append(self._num_used_slots)
            self._num_used_slots += 1
        row = _RowState(request, self._free_slots[0], window, len(window), request.params.max_tokens)
        shared, source = 0, row.slot
        if request.prompt_logprobs:
            row.prompt_logprobs = Logprobs([], [])  # every token must be computed: no prefix is reused
        else:
            row.prefix_source = next(
                (
                    other
                    for other in self.rows
                    if self._is_prefilling(other) and _common_prefix(other.window, window) >= SHARED_TOKENS
                ),
                None,
            )
            if row.prefix_source is None:
                shared, source = self._longest_cached_prefix(window)
                if source in self._free_slots:
                    row.slot = source
        self._free_slots.remove(row.slot)
        self._allocate_pages(row.slot, self._max_pages(request))
        if shared and source != row.slot:
            self._cache.copy(source, row.slot, shared)
        self._cache.lengths[row.slot] = shared
        self._sequences.begin(row.slot, request.prompt, request.params)
        self._sequences.tokens[row.slot, : len(window)] = window
        request.interrupt = self._interrupt
        self.rows.append(row)

    def _allocate_pages(self, slot: int, num_pages: int) -> None:
        """Let a slot own `num_pages`: its own, then free ones, those of free slots, and last ones never used."""
        missing = num_pages - self._cache.num_pages[slot]
        for other in self._free_slots:
            if missing <= self._cache.num_free:
                break
            self._cache.allocate(other, 0)
        self._cache.allocate(slot, num_pages)

    def remove_finished(self) -> None:
        """Free the slots of finished rows, and end their sinks."""
        for row in [row for row in self.rows if row.is_finished]:
            self.rows.remove(row)
            self._free_slots.append(row.slot)
            row.request.sink.end(None)

    def clear(self) -> list[Request]:
        """Free all slots; returns their requests, whose sinks are left for the caller to end."""
        rows, self.rows = self.rows, []
        self._free_slots.extend(row.slot for row in rows)
        return [row.request for row in rows]

    def _is_prefilling(self, row: _RowState) -> bool:
        return row.num_tokens - int(self._cache.lengths[row.slot]) > 1

    def _longest_cached_prefix(self, window: NDArray[np.integer]) -> tuple[int, int]:
        """Length of the longest prefix of `window` in any slot's cache, and that slot; (0, -1) if it is too short.

        Excludes the last token, whose logits are needed.
        """
        same = self._sequences.tokens[: self._num_used_slots, : len(window)] == window
        common = np.where(same.all(1), len(window), same.argmin(1))
        cached = np.minimum(np.minimum(common, self._cache.lengths[: self._num_used_slots]), len(window) - 1)
        best = int(cached.argmax())
        return (int(cached[best]), best) if cached[best] >= SHARED_TOKENS else (0, -1)

    def _copy_shared_prefix(self, row: _RowState) -> None:
        """Copy what the row's prefix source has prefilled, from whichever slot has it now."""
        row.prefix_source = None
        shared, source = self._longest_cached_prefix(row.window)
        if shared:
            self._cache.copy(source, row.slot, shared)

    def step(self) -> tuple[int, int]:
        """Generate at least one token for every row whose prompt is prefilled; no row may be finished.

        Returns the number of tokens generated, and of steps run.
        """
        context, budget = self.model.config.context_length, self._prefill_budget
        scheduled: list[_RowState] = []
        num_new_tokens, do_sample = [], []
        max_steps = MAX_STEPS
        for row in self.rows:
            if row.prefix_source is not None:
                if row.prefix_source in self.rows and self._is_prefilling(row.prefix_source):
                    continue
                self._copy_shared_prefix(row)
            if row.prompt_logprobs is not None:
                self._score_prompt(row)
                if row.prompt_logprobs is not None or row.num_remaining <= 0:
                    continue
            if self._cache.lengths[row.slot] == context:
                self._slide(row)
            length = int(self._cache.lengths[row.slot])
            new = row.num_tokens - length
            if new > 1:
                new = min(new, budget, self._prefill_chunk)
                budget -= new
                if new == 0:
                    max_steps = 1  # this row waits, but for no more than one step
                    continue
            samples = length + new == row.num_tokens
            scheduled.append(row)
            num_new_tokens.append(new)
            do_sample.append(samples)
            if not samples or row.num_remaining == row.request.params.max_tokens:
                max_steps = 1  # more of the prompt comes next; a first token is delivered at once
            max_steps = min(max_steps, row.num_remaining, context - length - new + 1)
        if not scheduled:
            return 0, 0
        strategy, share = self._tuner.choose(len(scheduled))
        time_slice = TIME_SLICE_S * share * (2 if len(scheduled) >= MANY_ROWS else 1)
        min_steps = max(1 if share == 1 else _FEW_STEPS, 1 + strategy.num_draft_tokens)
        num_steps = min(max_steps, max(min_steps, int(time_slice / self._step_s)))
        began = time.perf_counter()
        steps_run = self._run_steps(
            scheduled, np.array(num_new_tokens), np.array(do_sample, np.int64), num_steps, strategy
        )
        seconds = time.perf_counter() - began
        self._step_s += 0.2 * (seconds / max(steps_run) - self._step_s)
        # Mostly prefill, or few steps, is no usable timing; but one step of many rows or of a large model is.
        decoded, prefilled = sum(steps_run), sum(num_new_tokens) - len(num_new_tokens)
        if prefilled < decoded and (
            max(steps_run) >= _FEW_STEPS or len(scheduled) >= MANY_ROWS or seconds > TIME_SLICE_S / 2
        ):
            self._tuner.record(len(scheduled), strategy, decoded + _PREFILL_COST * prefilled, seconds, share)
        num_generated = sum(self._deliver(row, i, steps_run[i]) for i, row in enumerate(scheduled) if do_sample[i])
        return num_generated, max(steps_run)

    def _run_steps(
        self,
        rows: list[_RowState],
        num_new_tokens: NDArray[np.int64],
        do_sample: NDArray[np.int64],
        num_steps: int,
        strategy: Strategy,
    ) -> list[int]:
        """Run up to `num_steps` steps; returns how many were run, per row."""
        threads, count, draft = self._pool.size, len(rows), strategy.num_draft_tokens
        decode_steps = native.decode_steps  # looked up once: threads that share a barrier must run the same function
        slots = np.array([row.slot for row in rows])
        arrays = slots.ctypes.data, num_new_tokens.ctypes.data, do_sample.ctypes.data, count
        steps_run = [0] * count
        # Cut the rows into parts of about equally many tokens.
        parts = 1 if strategy.tensor_parallel else min(threads, count)
        ends = (
            np.searchsorted(np.cumsum(num_new_tokens), np.arange(1, parts) * (num_new_tokens.sum() / parts) - 0.5) + 1
        )
        bounds = [0, *np.minimum(ends, count).tolist(), count]

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
        return steps_run

    def _deliver(self, row: _RowState, i: int, count: int) -> int:
        """Send the `count` tokens sampled for batch row i to its sink; returns `count`."""
        ids = self._sampled.tokens[:count, i].tolist()
        # The last sampled token is in the window, but not in the cache yet.
        row.num_tokens = int(self._cache.lengths[row.slot]) + 1
        row.num_remaining -= count
        if not row.request.cancelled:
            num_alternatives = row.request.params.logprobs
            row.request.sink.tokens(
                ids, None if num_alternatives is None else self._logprobs(i, count, num_alternatives)
            )
        return count

    def _logprobs(self, i: int, count: int, num_alternatives: int) -> Logprobs:
        """Those of the last `count` tokens of batch row i."""
        ids, values = (
            self._sampled.top_tokens[:count, i, :num_alternatives],
            self._sampled.top_logprobs[:count, i, :num_alternatives],
        )
        pairs = [list(zip(*each, strict=True)) for each in zip(ids.tolist(), values.tolist(), strict=True)]
        return Logprobs(self._sampled.logprobs[:count, i].tolist(), pairs)

    def _slide(self, row: _RowState) -> None:
        """Move a full window on: its newest quarter is prefilled again from position 0."""
        tokens, context = self._sequences.tokens[row.slot], self.model.config.context_length
        kept = slide_window(tokens[1 : context + 1].copy(), context)
        tokens[: len(kept)] = kept
        row.num_tokens = len(kept)
        self._cache.lengths[row.slot] = 0

    def _score_prompt(self, row: _RowState) -> None:
        """Prefill one chunk of a prompt with its log-probabilities; the last chunk ends before the last token."""
        assert row.prompt_logprobs is not None
        num_alternatives = row.request.params.logprobs or 0
        count = min(row.num_tokens - 1 - int(self._cache.lengths[row.slot]), self._prefill_chunk, MAX_STEPS)
        if count > 0:
            native.score(self._argument_tables[0].ctypes.data, row.slot, count, num_alternatives)
            chunk = self._logprobs(0, count, num_alternatives)
            row.prompt_logprobs.chosen.extend(chunk.chosen)
            row.prompt_logprobs.alternatives.extend(chunk.alternatives)
        if int(self._cache.lengths[row.slot]) == row.num_tokens - 1:
            row.request.sink.prompt(row.prompt_logprobs)
            row.prompt_logprobs = None


def _common_prefix(a: NDArray[np.integer], b: NDArray[np.integer]) -> int:
    """Length of the longest common prefix."""
    length = min(len(a), len(b))
    differing = a[:length] != b[:length]
    return int(differing.argmax()) if differing.any() else length


class _ListSink(list[int]):
    """A sink that collects the tokens."""

    def prompt(self, logprobs: Logprobs) -> None:
        pass

    def tokens(self, ids: list[int], logprobs: Logprobs | None) -> None:
        self.extend(ids)

    def end(self, error: Exception | None) -> None:
        if error is not None:
            raise error


def generate(
    model: GPT, prompts: Sequence[NDArray[np.integer]], params: Sequence[SamplingParams], pool: WorkerPool | None = None
) -> Iterator[list[list[int]]]:
    """Continue each prompt (tokens,), in the calling thread; yields the new tokens of all, as they are generated."""
    batch, sinks = Batch(model, len(prompts), pool), [_ListSink() for _ in prompts]
    for prompt, each, sink in zip(prompts, params, sinks, strict=True):
        batch.add(Request(model=model, prompt=prompt, params=each, sink=sink))
    batch.remove_finished()
    while batch.rows:
        batch.step()
        batch.remove_finished()
        yield [list(sink) for sink in sinks]
        for sink in sinks:
            sink.clear()
