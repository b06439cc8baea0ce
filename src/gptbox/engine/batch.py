"""Sequences that are generated together; each step they all get their next token, and prompts are read in parts."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptbox.engine import native
from gptbox.engine.autotune import Strategy
from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.request import Logprobs, Request
from gptbox.engine.sampling import SamplingParams
from gptbox.engine.state import MOST_STEPS, MOST_TOKENS, Drawn, Scratch, Sequences
from gptbox.engine.team import Team
from gptbox.windows import slide

STRETCH_S = 0.01
"""About how long steps are made without a look at what has changed; joining and leaving interrupt them."""
MANY_ROWS = 8
"""From so many on stretches are twice as long: what is told to each costs time of its own."""
_READ_SHARE = 0.25
"""About what a token of a context that is read again takes of one that is written."""
_FEW_STEPS = 4
"""Fewest decoding steps that give a usable timing."""
SHARED_TOKENS = 16
"""A prompt's beginning that another sequence has in its cache is copied from there, if it is at least this long."""


@dataclass(eq=False)
class _Row:
    """A request that has its place in a batch."""

    request: Request
    slot: int
    window: NDArray[np.integer]
    """The prompt's end that fits the context."""
    known: int
    """Ids of the slot's window; those that are not in the cache yet come next."""
    left: int
    follows: "_Row | None" = None
    """A row that is reading what this one begins with, too: it is waited for, and copied from."""
    scored: Logprobs | None = None

    @property
    def ended(self) -> bool:
        return (self.left <= 0 and self.scored is None) or self.request.cancelled


class Batch:
    """The running rows of one model. For one thread, which others may help."""

    def __init__(
        self,
        model: GPT,
        slots: int,
        team: Team | None = None,
        interrupt: NDArray[np.int64] | None = None,
        pages: int | None = None,
    ):
        """Up to `slots` requests at once, with `pages` of keys and values for all of them; by default enough for each.

        `interrupt` (1,) is set by whoever wants steps to end soon.
        """
        self.model = model
        self.rows: list[_Row] = []
        self._team = team or Team(1)
        self._tuner = model.tuner(self._team.size)
        self._interrupt = np.zeros(1, np.int64) if interrupt is None else interrupt
        self._cache = KVCache(model.config, slots, slots * KVCache.pages_for(model.config) if pages is None else pages)
        self._sequences = Sequences.of(model.config, self._cache.lengths)
        self._slots = slots
        self._used = 0
        """Slots that have ever been in use: the first ones; more only when none of them is free."""
        self._free: list[int] = []
        """Of those, the ones not in use, the longest unused first; they keep their pages until those are needed."""
        self._drawn = Drawn.of(slots)
        # One for each thread, and one for all together.
        threads = self._team.size
        self._scratch = [Scratch.of(model.config, slots, each) for each in (*[1] * threads, threads)]
        self._tables = [
            native.table(
                model.network, model.draft or model.network, self._cache.pages, scratch, self._sequences, self._drawn,
                (self._interrupt,),
            )
            for scratch in self._scratch
        ]  # fmt: skip
        self._step_s = 1e-5 + model.network.panels.nbytes / 2e10  # as its weights come from memory, until it is known
        # Prompt tokens a step: some milliseconds' worth. A row takes a part at most, so that rows can be shared out.
        budget = threads * int(np.clip(250_000_000 // (model.network.panels.nbytes // 4), 16, 192))
        self._budget = min(budget, MOST_TOKENS - min(slots, 64))
        self._chunk = min(budget, 128)

    @property
    def cache_bytes(self) -> int:
        """Memory that keys and values have taken: the pages that have ever been in use."""
        return self._cache.used * KVCache.page_bytes(self.model.config)

    def more_bytes(self, request: Request) -> int:
        """Memory that keys and values will take if this request joins."""
        idle = self._cache.used - sum(self._cache.held[row.slot] for row in self.rows)
        return max(0, self._pages(request) - idle) * KVCache.page_bytes(self.model.config)

    def _pages(self, request: Request) -> int:
        """The most that a request's sequence needs: its last token does not go through the model."""
        return KVCache.pages_for(self.model.config, len(request.prompt) + max(request.params.max_tokens - 1, 0))

    @property
    def full(self) -> bool:
        return not self._free and self._used == self._slots

    def add(self, request: Request) -> None:
        """Give a request a slot, for which there must be room; its prompt is read in the next steps."""
        window = request.prompt[-self.model.config.context_length :]
        if not self._free:
            self._free.append(self._used)
            self._used += 1
        row = _Row(request, self._free[0], window, len(window), request.params.max_tokens)
        shared, source = 0, row.slot
        if request.prompt_logprobs:
            row.scored = Logprobs([], [])  # every token has to go through the model
        else:
            row.follows = next(
                (
                    other
                    for other in self.rows
                    if self._reading(other) and _common(other.window, window) >= SHARED_TOKENS
                ),
                None,
            )
            if row.follows is None:
                shared, source = self._longest_held(window)
                if source in self._free:
                    row.slot = source
        self._free.remove(row.slot)
        self._make_room(row.slot, self._pages(request))
        if shared and source != row.slot:
            self._cache.copy(source, row.slot, shared)
        self._cache.lengths[row.slot] = shared
        self._sequences.begin(row.slot, request.prompt, request.params)
        self._sequences.tokens[row.slot, : len(window)] = window
        request.interrupt = self._interrupt
        self.rows.append(row)

    def _make_room(self, slot: int, pages: int) -> None:
        """Let a slot have `pages`: its own, then idle ones, those of free slots, and last such as were never used."""
        missing = pages - self._cache.held[slot]
        for other in self._free:
            if missing <= self._cache.idle:
                break
            self._cache.hold(other, 0)
        self._cache.hold(slot, pages)

    def remove_ended(self) -> None:
        """Free the slots of those that need no further token, and tell their sinks."""
        for row in [row for row in self.rows if row.ended]:
            self.rows.remove(row)
            self._free.append(row.slot)
            row.request.sink.end(None)

    def clear(self) -> list[Request]:
        """Free all slots; the requests that had them, whose sinks are not told."""
        rows, self.rows = self.rows, []
        self._free.extend(row.slot for row in rows)
        return [row.request for row in rows]

    def _reading(self, row: _Row) -> bool:
        return row.known - int(self._cache.lengths[row.slot]) > 1

    def _longest_held(self, window: NDArray[np.integer]) -> tuple[int, int]:
        """The longest beginning of the window that a slot's cache has, and which slot; 0 where it is not worth it.

        Never the last token, whose logits are wanted.
        """
        same = self._sequences.tokens[: self._used, : len(window)] == window
        common = np.where(same.all(1), len(window), same.argmin(1))
        held = np.minimum(np.minimum(common, self._cache.lengths[: self._used]), len(window) - 1)
        best = int(held.argmax())
        return (int(held[best]), best) if held[best] >= SHARED_TOKENS else (0, -1)

    def _copy_from_leader(self, row: _Row) -> None:
        """Take over what a row that was waited for has read, wherever it is now."""
        row.follows = None
        shared, source = self._longest_held(row.window)
        if shared:
            self._cache.copy(source, row.slot, shared)

    def step(self) -> tuple[int, int]:
        """At least one token for every row that has read its prompt; none may have ended.

        How many tokens in all, and how many steps the rows have made.
        """
        context, budget = self.model.config.context_length, self._budget
        taking: list[_Row] = []
        fresh, drawing = [], []
        most = MOST_STEPS
        for row in self.rows:
            if row.follows is not None:
                if row.follows in self.rows and self._reading(row.follows):
                    continue
                self._copy_from_leader(row)
            if row.scored is not None:
                self._score(row)
                if row.scored is not None or row.left <= 0:
                    continue
            if self._cache.lengths[row.slot] == context:
                self._slide(row)
            length = int(self._cache.lengths[row.slot])
            new = row.known - length
            if new > 1:
                new = min(new, budget, self._chunk)
                budget -= new
                if new == 0:
                    most = 1  # it waits for no more than this step
                    continue
            draws = length + new == row.known
            taking.append(row)
            fresh.append(new)
            drawing.append(draws)
            if not draws or row.left == row.request.params.max_tokens:
                most = 1  # the rest of the prompt comes next; the first token is told at once
            most = min(most, row.left, context - length - new + 1)
        if not taking:
            return 0, 0
        strategy, share = self._tuner.choose(len(taking))
        stretch = STRETCH_S * share * (2 if len(taking) >= MANY_ROWS else 1)
        least = max(1 if share == 1 else _FEW_STEPS, 1 + strategy.num_draft_tokens)
        steps = min(most, max(least, int(stretch / self._step_s)))
        begun = time.perf_counter()
        done = self._burst(taking, np.array(fresh), np.array(drawing, np.int64), steps, strategy)
        took = time.perf_counter() - begun
        self._step_s += 0.2 * (took / max(done) - self._step_s)
        # Of mostly a prompt, or of few steps, it says little; but a single step of many rows or a large model will do.
        written, read = sum(done), sum(fresh) - len(fresh)
        if read < written and (max(done) >= _FEW_STEPS or len(taking) >= MANY_ROWS or took > STRETCH_S / 2):
            self._tuner.record(len(taking), strategy, written + _READ_SHARE * read, took, share)
        return sum(self._deliver(row, i, done[i]) for i, row in enumerate(taking) if drawing[i]), max(done)

    def _burst(
        self, rows: list[_Row], fresh: NDArray[np.int64], drawing: NDArray[np.int64], steps: int, strategy: Strategy
    ) -> list[int]:
        """Let the steps be made; how many were, of each row."""
        threads, count, draft = self._team.size, len(rows), strategy.num_draft_tokens
        burst = native.burst  # the same for all threads, which wait for each other
        slots = np.array([row.slot for row in rows])
        arrays = slots.ctypes.data, fresh.ctypes.data, drawing.ctypes.data, count
        done = [0] * count
        # Parts of about as many tokens each.
        groups = 1 if strategy.tensor_parallel else min(threads, count)
        ends = np.searchsorted(np.cumsum(fresh), np.arange(1, groups) * (fresh.sum() / groups) - 0.5) + 1
        bounds = [0, *np.minimum(ends, count).tolist(), count]

        def rows_of_its_own(rank: int) -> None:
            begin, end = bounds[rank], bounds[rank + 1]
            if begin < end:
                made = burst(self._tables[rank].ctypes.data, *arrays, begin, end, steps, draft, 0, 1)
                done[begin:end] = [made] * (end - begin)

        def part_of_each_product(rank: int) -> None:
            made = burst(self._tables[threads].ctypes.data, *arrays, 0, count, steps, draft, rank, threads)
            if rank == 0:
                done[:] = [made] * count

        if strategy.tensor_parallel:
            self._team.run(part_of_each_product)
        else:
            self._team.run(rows_of_its_own, groups)
        return done

    def _deliver(self, row: _Row, i: int, count: int) -> int:
        ids = self._drawn.tokens[:count, i].tolist()
        # The last one drawn is known and has not gone through the model yet.
        row.known = int(self._cache.lengths[row.slot]) + 1
        row.left -= count
        if not row.request.cancelled:
            wanted = row.request.params.logprobs
            row.request.sink.tokens(ids, None if wanted is None else self._logprobs(i, count, wanted))
        return count

    def _logprobs(self, i: int, count: int, wanted: int) -> Logprobs:
        ids, values = self._drawn.top_tokens[:count, i, :wanted], self._drawn.top_logprobs[:count, i, :wanted]
        pairs = [list(zip(*each, strict=True)) for each in zip(ids.tolist(), values.tolist(), strict=True)]
        return Logprobs(self._drawn.logprobs[:count, i].tolist(), pairs)

    def _slide(self, row: _Row) -> None:
        tokens, context = self._sequences.tokens[row.slot], self.model.config.context_length
        kept = slide(tokens[1 : context + 1].copy(), context)
        tokens[: len(kept)] = kept
        row.known = len(kept)
        self._cache.lengths[row.slot] = 0

    def _score(self, row: _Row) -> None:
        """Read a part of a prompt whose own log-probabilities are asked for; all but its last token, in the end."""
        assert row.scored is not None
        wanted = row.request.params.logprobs or 0
        count = min(row.known - 1 - int(self._cache.lengths[row.slot]), self._chunk, MOST_STEPS)
        if count > 0:
            native.score(self._tables[0].ctypes.data, row.slot, count, wanted)
            some = self._logprobs(0, count, wanted)
            row.scored.chosen.extend(some.chosen)
            row.scored.alternatives.extend(some.alternatives)
        if int(self._cache.lengths[row.slot]) == row.known - 1:
            row.request.sink.prompt(row.scored)
            row.scored = None


def _common(a: NDArray[np.integer], b: NDArray[np.integer]) -> int:
    """How many ids both begin with."""
    length = min(len(a), len(b))
    differing = a[:length] != b[:length]
    return int(differing.argmax()) if differing.any() else length


class _List(list[int]):
    """A sink that keeps the tokens."""

    def prompt(self, logprobs: Logprobs) -> None:
        pass

    def tokens(self, ids: list[int], logprobs: Logprobs | None) -> None:
        self.extend(ids)

    def end(self, error: Exception | None) -> None:
        if error is not None:
            raise error


def generate(
    model: GPT, prompts: Sequence[NDArray[np.integer]], params: Sequence[SamplingParams], team: Team | None = None
) -> Iterator[list[list[int]]]:
    """What is new of the text after each prompt (tokens,), as it comes, in the calling thread."""
    batch, texts = Batch(model, len(prompts), team), [_List() for _ in prompts]
    for prompt, each, text in zip(prompts, params, texts, strict=True):
        batch.add(Request(model=model, prompt=prompt, params=each, sink=text))
    batch.remove_ended()
    while batch.rows:
        batch.step()
        batch.remove_ended()
        yield [list(text) for text in texts]
        for text in texts:
            text.clear()
