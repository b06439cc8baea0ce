"""Sequences that are generated together; each step they all get their next token, and prompts are read in parts."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptbox.engine import native
from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.request import Logprobs, Request
from gptbox.engine.sampling import SamplingParams
from gptbox.engine.state import MOST_STEPS, MOST_TOKENS, Drawn, Scratch, Sequences
from gptbox.engine.team import Team
from gptbox.engine.ways import Way
from gptbox.windows import slide

STRETCH_S = 0.01
"""About how long steps are made without a look at what has changed; joining and leaving interrupt them."""
MANY_ROWS = 8
"""From so many on stretches are twice as long: what is told to each costs time of its own."""
_READ_SHARE = 0.25
"""About what a token of a context that is read again takes of one that is written."""
_FEW_STEPS = 4
"""So many say how fast a way is."""
_TRIAL_SHARE = 0.3
"""Of a stretch, for a way that may be many times as slow: threads that meet at each product wait for one put aside."""
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

    def __init__(self, model: GPT, slots: int, team: Team | None = None, interrupt: NDArray[np.int64] | None = None):
        """Room for up to `slots` requests at once, and memory of as many that have ended.

        `interrupt` (1,) is set by whoever wants steps to end soon.
        """
        self.model = model
        self.rows: list[_Row] = []
        self._team = team or Team(1)
        self._ways = model.ways(self._team.size)
        self._interrupt = np.zeros(1, np.int64) if interrupt is None else interrupt
        self._cache = KVCache(model.config, slots)
        self._sequences = Sequences.of(model.config, self._cache.lengths)
        self._slots = slots
        self._used = 0
        """Slots that have ever been in use, and so cost memory: the first ones; more only when none of them is free."""
        self._free: list[int] = []
        """Of those, which are not in use now, the longest unused first."""
        self._drawn = Drawn.of(slots)
        # One for each thread, and one for all together.
        threads = self._team.size
        self._scratch = [Scratch.of(model.config, slots, each) for each in (*[1] * threads, threads)]
        cache, shared = (self._cache.keys, self._cache.values), (self._interrupt,)
        self._tables = [
            native.table(
                model.network, model.draft or model.network, cache, scratch, self._sequences, self._drawn, shared
            )
            for scratch in self._scratch
        ]
        self._step_s = 1e-5 + model.network.panels.nbytes / 2e10  # as its weights come from memory, until it is known
        # Prompt tokens a step: some milliseconds' worth. A row takes a part at most, so that rows can be shared out.
        budget = threads * int(np.clip(250_000_000 // (model.network.panels.nbytes // 4), 16, 192))
        self._budget = min(budget, MOST_TOKENS - min(slots, 64))
        self._chunk = min(budget, 128)

    @property
    def slot_bytes(self) -> int:
        """What the keys and values of one more sequence may take."""
        return KVCache.slot_bytes(self.model.config)

    @property
    def cache_bytes(self) -> int:
        """What those of the slots take that have ever been in use."""
        return self._used * self.slot_bytes

    @property
    def has_free_slot(self) -> bool:
        """Whether a sequence can join without taking memory."""
        return bool(self._free)

    @property
    def full(self) -> bool:
        return not self._free and self._used == self._slots

    def add(self, request: Request) -> None:
        """Give a request a slot; its prompt is read in the next steps."""
        window = request.prompt[-self.model.config.context_length :]
        if not self._free:
            self._free.append(self._used)
            self._used += 1
        row = _Row(request, self._free.pop(0), window, len(window), request.params.max_tokens)
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
                row.slot = self._best_slot(row.slot, window)
        if request.prompt_logprobs or row.follows is not None:
            self._cache.lengths[row.slot] = 0
        self._sequences.begin(row.slot, request.prompt, request.params)
        self._sequences.tokens[row.slot, : len(window)] = window
        request.interrupt = self._interrupt
        self.rows.append(row)

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

    def _held(self, window: NDArray[np.integer]) -> NDArray[np.int64]:
        """How many tokens of the window's beginning each slot's cache has; never the last, whose logits are wanted."""
        same = self._sequences.tokens[: self._used, : len(window)] == window
        common = np.where(same.all(1), len(window), same.argmin(1))
        return np.minimum(np.minimum(common, self._cache.lengths[: self._used]), len(window) - 1)

    def _best_slot(self, slot: int, window: NDArray[np.integer]) -> int:
        """`slot`, or a better free one, holding what any slot's cache has of the window's beginning."""
        held = self._held(window)
        best = int(held.argmax())
        if held[best] < SHARED_TOKENS:
            self._cache.lengths[slot] = 0
        elif best == slot or best in self._free:
            if best != slot:
                self._free.remove(best)
                self._free.insert(0, slot)
            self._cache.lengths[best] = held[best]
            return best
        else:
            self._cache.copy(best, slot, int(held[best]))
        return slot

    def _copy_from_leader(self, row: _Row) -> None:
        """Take over what a row that was waited for has read, wherever it is now."""
        row.follows = None
        held = self._held(row.window)
        held[row.slot] = 0
        best = int(held.argmax())
        if held[best] >= SHARED_TOKENS:
            self._cache.copy(best, row.slot, int(held[best]))

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
        way, trial = self._ways.choose(len(taking))
        stretch = STRETCH_S * (_TRIAL_SHARE if trial else 2 if len(taking) >= MANY_ROWS else 1)
        steps = min(most, max(_FEW_STEPS if trial else 1, 1 + way.ahead, int(stretch / self._step_s)))
        begun = time.perf_counter()
        done = self._burst(taking, np.array(fresh), np.array(drawing, np.int64), steps, way)
        took = time.perf_counter() - begun
        self._step_s += 0.2 * (took / max(done) - self._step_s)
        # Of mostly a prompt, or of few steps, it says little; but a single step of many rows or a large model will do.
        written, read = sum(done), sum(fresh) - len(fresh)
        if read < written and (max(done) >= _FEW_STEPS or len(taking) >= MANY_ROWS or took > STRETCH_S / 2):
            self._ways.measured(len(taking), way, written + _READ_SHARE * read, took)
        return sum(self._deliver(row, i, done[i]) for i, row in enumerate(taking) if drawing[i]), max(done)

    def _burst(
        self, rows: list[_Row], fresh: NDArray[np.int64], drawing: NDArray[np.int64], steps: int, way: Way
    ) -> list[int]:
        """Let the steps be made; how many were, of each row."""
        threads, count = self._team.size, len(rows)
        burst = native.burst  # the same for all threads, which wait for each other
        slots = np.array([row.slot for row in rows])
        arrays = slots.ctypes.data, fresh.ctypes.data, drawing.ctypes.data, count
        done = [0] * count
        # Parts of about as many tokens each.
        groups = 1 if way.products else min(threads, count)
        ends = np.searchsorted(np.cumsum(fresh), np.arange(1, groups) * (fresh.sum() / groups) - 0.5) + 1
        bounds = [0, *np.minimum(ends, count).tolist(), count]

        def rows_of_its_own(rank: int) -> None:
            begin, end = bounds[rank], bounds[rank + 1]
            if begin < end:
                made = burst(self._tables[rank].ctypes.data, *arrays, begin, end, steps, way.ahead, 0, 1)
                done[begin:end] = [made] * (end - begin)

        def part_of_each_product(rank: int) -> None:
            made = burst(self._tables[threads].ctypes.data, *arrays, 0, count, steps, way.ahead, rank, threads)
            if rank == 0:
                done[:] = [made] * count

        if way.products:
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
