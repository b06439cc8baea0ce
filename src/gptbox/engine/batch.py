"""Continuous batching for one model: rows join and leave between steps, and long prompts are prefilled in chunks.

`Batch.step` is schedule, run, deliver: choose rows and their numbers of tokens; compute; send the tokens to the sinks.
"""

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.autotune import Strategy
from gptbox.engine.buffers import MAX_STEPS, MAX_TOKENS, Sequences
from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.model_runner import ModelOutput, ModelRunner
from gptbox.engine.prefix_cache import PrefixCache, have_common_prefix
from gptbox.engine.request import Logprobs, Request
from gptbox.engine.worker_pool import WorkerPool
from gptbox.models.context_window import slide_window

TIME_SLICE_S = 0.01
"""Target duration of the decoding steps of one `Batch.step`; a request that joins or leaves cuts them short."""
MANY_ROWS = 8
"""Number of rows from which time slices are twice as long, because delivering tokens takes time per row."""
_PREFILL_COST = 0.25
"""Rough cost of prefilling a token, relative to decoding one."""
_FEW_STEPS = 4
"""Fewest decoding steps that give a usable timing."""


@dataclass(eq=False)
class Row:
    """A running request and its slot."""

    request: Request
    slot: int
    window: NDArray[np.integer]
    """The last ids of the prompt, as many as fit the context; one more where nothing is generated."""
    num_tokens: int
    """Tokens in the slot's window; those beyond the cache's length are computed next."""
    num_remaining: int
    """Tokens still to generate."""
    stop_tokens: frozenset[int]
    """Tokens that end the text."""
    prefix_source: "Row | None" = None
    """A row that is still prefilling a shared prefix: this row waits for it, then copies the prefix."""
    prompt_logprobs: Logprobs | None = None
    """The prompt's log-probabilities so far; None unless requested, and once delivered."""

    @property
    def is_finished(self) -> bool:
        return (self.num_remaining <= 0 and self.prompt_logprobs is None) or self.request.cancelled


class ScheduledBatch(NamedTuple):
    """What the next steps compute; each list has one item per batch row."""

    rows: list[Row]
    """The batch's rows that do not wait."""
    num_new_tokens: list[int]
    """Tokens to compute in the first step; more than one is prefill."""
    do_sample: list[bool]
    """Whether the row samples a token in each step; False while more of its prompt is to be prefilled."""
    num_steps: int
    """Steps to run at most; more than one only if all rows sample."""
    strategy: Strategy
    time_share: float
    """Fraction of a time slice that the tuner gives the strategy."""


class Batch:
    """The running requests of one model. Not thread-safe, although a worker pool may share the computation."""

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
        pool = pool or WorkerPool(1)
        self.model = model
        self.rows: list[Row] = []
        self._interrupt = np.zeros(1, np.int64) if interrupt is None else interrupt
        self._cache = KVCache(
            model.config, slots, slots * KVCache.pages_for(model.config) if total_pages is None else total_pages
        )
        self._sequences = Sequences.of(model.config, self._cache.lengths, model.constraint)
        self._prefixes = PrefixCache(self._cache, self._sequences.tokens)
        self._runner = ModelRunner(model, pool, self._cache, self._sequences, self._interrupt)
        self._tuner = model.tuner(pool.size)
        self._step_s = 1e-5 + model.packed.panels.nbytes / 2e10  # estimated from memory bandwidth until measured
        # Prefill tokens per step, for some milliseconds. A row gets at most a chunk, so that threads can share rows.
        budget = pool.size * int(np.clip(250_000_000 // (model.packed.panels.nbytes // 4), 16, 192))
        self._prefill_budget = min(budget, MAX_TOKENS - min(slots, 64))
        self._prefill_chunk = min(budget, 128)

    @property
    def full(self) -> bool:
        """Whether no slot is free."""
        return self._prefixes.full

    @property
    def cache_bytes(self) -> int:
        """Bytes that the KV cache takes: its pages that have ever been used."""
        return self._cache.num_resident * KVCache.page_bytes(self.model.config)

    def additional_bytes(self, request: Request) -> int:
        """Bytes by which the KV cache grows if this request joins."""
        additional = self._max_pages(request) - self._prefixes.num_reusable_pages
        return max(0, additional) * KVCache.page_bytes(self.model.config)

    def _max_pages(self, request: Request) -> int:
        """Pages that a request needs at most; its last token is never computed, only sampled."""
        return KVCache.pages_for(self.model.config, len(request.prompt) + max(request.params.max_tokens - 1, 0))

    def add(self, request: Request) -> None:
        """Give a request a slot; the batch must not be full. The next steps prefill its prompt."""
        # Where nothing is generated, one more: the last token is scored only, with a full context before it.
        window = request.prompt[-self.model.config.context_length - (request.params.max_tokens == 0) :]
        scores = Logprobs([], []) if request.prompt_logprobs else None
        source = None if request.prompt_logprobs else self._prefix_source(window)
        # A prefix is not reused where each token must be computed for its log-probability, nor before it is complete.
        reusing = scores is None and source is None
        slot = self._prefixes.allocate(self._max_pages(request), window if reusing else None)
        params = request.params
        constraint = self.model.constraint
        state = 0 if constraint is None else constraint.state_after(request.prompt)
        self._sequences.begin(slot, request.prompt, params, state)
        self._sequences.tokens[slot, : len(window)] = window
        request.interrupt = self._interrupt
        self.rows.append(
            Row(request, slot, window, len(window), params.max_tokens, params.ending_token_ids, source, scores)
        )

    def _prefix_source(self, window: NDArray[np.integer]) -> Row | None:
        """A row that is still prefilling and shares a prefix with this window, or None."""
        prefilling = (row for row in self.rows if self._is_prefilling(row))
        return next((row for row in prefilling if have_common_prefix(row.window, window)), None)

    def remove_finished(self) -> None:
        """Free the slots of finished rows, and end their sinks."""
        for row in [row for row in self.rows if row.is_finished]:
            self.rows.remove(row)
            self._prefixes.free(row.slot)
            row.request.sink.end(None)

    def clear(self) -> list[Request]:
        """Free all slots; returns their requests, whose sinks are left for the caller to end."""
        rows, self.rows = self.rows, []
        for row in rows:
            self._prefixes.free(row.slot)
        return [row.request for row in rows]

    def step(self) -> tuple[int, int]:
        """Prefill within the budget, and decode at least one token for every row whose window is then prefilled.

        No row may be finished.

        Returns the number of tokens generated, and of steps run.
        """
        for row in self.rows:
            if row.prompt_logprobs is not None:
                self._score_prompt(row, row.prompt_logprobs)
        batch = self.schedule()
        if batch is None:
            return 0, 0
        output = self.run(batch)
        return self.deliver(batch, output), max(output.steps_run)

    def schedule(self) -> ScheduledBatch | None:
        """Choose what the next steps compute; None if every row waits, for a prefix or for its prompt's scores."""
        lengths, context, budget = self._cache.lengths, self.model.config.context_length, self._prefill_budget
        rows: list[Row] = []
        num_new_tokens: list[int] = []
        do_sample: list[bool] = []
        max_steps = MAX_STEPS
        for row in self.rows:
            if row.prefix_source is not None and not self._copy_prefix(row, row.prefix_source):
                continue
            if row.prompt_logprobs is not None or row.num_remaining <= 0:
                continue  # its prompt is still being scored, or scoring is all that was requested
            length = int(lengths[row.slot])
            if length == context:
                self._slide(row)
                length = 0
            new = row.num_tokens - length
            if new > 1:
                new = min(new, budget, self._prefill_chunk)
                budget -= new
                if new == 0:
                    max_steps = 1  # this row waits, but for no more than one step
                    continue
            samples = length + new == row.num_tokens
            rows.append(row)
            num_new_tokens.append(new)
            do_sample.append(samples)
            if not samples or row.num_remaining == row.request.params.max_tokens:
                max_steps = 1  # more of the prompt comes next; a first token is delivered at once
            max_steps = min(max_steps, row.num_remaining, context - length - new + 1)
        if not rows:
            return None
        strategy, share = self._tuner.choose(len(rows))
        num_steps = min(max_steps, self._steps_per_slice(len(rows), strategy, share))
        return ScheduledBatch(rows, num_new_tokens, do_sample, num_steps, strategy, share)

    def _steps_per_slice(self, num_rows: int, strategy: Strategy, share: float) -> int:
        """Steps that fit a time slice, but at least as many as the strategy's draft and its timing need."""
        time_slice = TIME_SLICE_S * share * (2 if num_rows >= MANY_ROWS else 1)
        min_steps = max(1 if share == 1 else _FEW_STEPS, 1 + strategy.num_draft_tokens)
        return max(min_steps, int(time_slice / self._step_s))

    def run(self, batch: ScheduledBatch) -> ModelOutput:
        """Compute the scheduled steps, and record how long they took."""
        began = time.perf_counter()
        output = self._runner.run(
            np.array([row.slot for row in batch.rows]),
            np.array(batch.num_new_tokens),
            np.array(batch.do_sample, np.int64),
            batch.num_steps,
            batch.strategy,
        )
        self._record_speed(batch, output.steps_run, time.perf_counter() - began)
        return output

    def _record_speed(self, batch: ScheduledBatch, steps_run: list[int], seconds: float) -> None:
        num_rows, steps = len(batch.rows), max(steps_run)
        self._step_s += 0.2 * (seconds / steps - self._step_s)
        # No usable timing: mostly prefill, or few steps, unless these have many rows or take long.
        decoded, prefilled = sum(steps_run), sum(batch.num_new_tokens) - num_rows
        if prefilled < decoded and (steps >= _FEW_STEPS or num_rows >= MANY_ROWS or seconds > TIME_SLICE_S / 2):
            tokens = decoded + _PREFILL_COST * prefilled
            self._tuner.record(num_rows, batch.strategy, tokens, seconds, batch.time_share)

    def deliver(self, batch: ScheduledBatch, output: ModelOutput) -> int:
        """Send each row's sampled tokens to its sink, up to its first stop token; returns the number of tokens."""
        lengths, num_generated = self._cache.lengths, 0
        for i, (row, samples) in enumerate(zip(batch.rows, batch.do_sample, strict=True)):
            if not samples:
                continue
            tokens = output.tokens(i)
            row.num_remaining -= len(tokens)
            if row.stop_tokens and not row.stop_tokens.isdisjoint(tokens):
                # The steps after the stop token were computed in vain: at most the rest of a time slice.
                count = next(i + 1 for i, token in enumerate(tokens) if token in row.stop_tokens)
                lengths[row.slot] -= len(tokens) - count
                row.num_remaining, tokens = 0, tokens[:count]
            # The last sampled token is in the window, but not in the cache yet.
            row.num_tokens = int(lengths[row.slot]) + 1
            num_generated += len(tokens)
            if not row.request.cancelled:
                num_alternatives = row.request.params.logprobs
                logprobs = None if num_alternatives is None else output.logprobs(i, len(tokens), num_alternatives)
                row.request.sink.tokens(tokens, logprobs)
        return num_generated

    def _is_prefilling(self, row: Row) -> bool:
        return row.num_tokens - int(self._cache.lengths[row.slot]) > 1

    def _copy_prefix(self, row: Row, source: Row) -> bool:
        """Copy the prefix that `source` prefills, from whichever slot has it; returns False until it is complete."""
        if source in self.rows and self._is_prefilling(source):
            return False
        row.prefix_source = None
        self._prefixes.copy_prefix(row.window, row.slot)
        return True

    def _slide(self, row: Row) -> None:
        """Slide a full window: its newest quarter is prefilled again from position 0."""
        tokens, context = self._sequences.tokens[row.slot], self.model.config.context_length
        kept = slide_window(tokens[1 : context + 1].copy(), context)
        tokens[: len(kept)] = kept
        row.num_tokens = len(kept)
        self._cache.lengths[row.slot] = 0

    def _score_prompt(self, row: Row, logprobs: Logprobs) -> None:
        """Prefill one chunk of a prompt with its log-probabilities; the last chunk ends before the last token."""
        missing = row.num_tokens - 1 - int(self._cache.lengths[row.slot])
        count = min(missing, self._prefill_chunk, MAX_STEPS)
        if count > 0:
            chunk = self._runner.score(row.slot, count, row.request.params.logprobs or 0)
            logprobs.chosen.extend(chunk.chosen)
            logprobs.alternatives.extend(chunk.alternatives)
        if count == missing:
            row.request.sink.prompt(logprobs)
            row.prompt_logprobs = None
