"""Sequences that are generated together, one token each a step."""

from collections import deque
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.gpt import GPT, slide
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.sampling import SamplingParams, sample
from gptbox.errors import EngineError


class Sink(Protocol):
    """Where a request's tokens go. Called on the engine's thread: must return at once and never raise."""

    def token(self, token: int) -> None:
        """The next token."""

    def end(self, error: Exception | None) -> None:
        """Exactly once, after the last token: None when all tokens came or the request was cancelled."""


class Request:
    """One sequence to generate."""

    def __init__(self, model: GPT, prompt: NDArray[np.integer], params: SamplingParams, sink: Sink) -> None:
        """`prompt`: at least one id, shape (tokens,). Of a longer one than the context only the end is seen."""
        if len(prompt) == 0:
            raise EngineError("The prompt has no tokens; give at least one.")
        self.model = model
        self.prompt = prompt
        self.params = params
        self.sink = sink
        self.cancelled = False

    def cancel(self) -> None:
        """Stop within one step; `end(None)` is still called. Safe from any thread, and more than once."""
        self.cancelled = True


class _Row:
    """A request that is being generated."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.random = request.params.random()
        # The newest ids, as many as a window may need; the last one is not in the cache yet.
        context = request.model.config.context_length
        self.history: deque[int] = deque((int(i) for i in request.prompt[-context:]), maxlen=context)
        self.left = request.params.max_tokens


class Batch:
    """The running rows of one model; row i of the cache belongs to rows[i]. For one thread."""

    def __init__(self, model: GPT, rows: int) -> None:
        """Room for up to `rows` requests at once."""
        self.model = model
        self.cache = KVCache(model.config, rows)
        self.rows: list[_Row] = []

    def remove(self, i: int) -> None:
        """Free row i; the last row moves into its place."""
        last = len(self.rows) - 1
        if i != last:
            self.cache.move(last, i)
            self.rows[i] = self.rows[last]
        self.rows.pop()

    def _prefill(self, i: int, ids: NDArray[np.integer]) -> None:
        """Fill row i from position 0 and sample the token after it."""
        self.cache.lengths[i] = 0
        logits = self.model.forward(ids[None], self.cache, slice(i, i + 1), last_only=True)
        self._take(i, logits[0])

    def _take(self, i: int, logits: NDArray[np.float32]) -> None:
        row = self.rows[i]
        token = sample(logits, row.request.params, row.random)
        row.history.append(token)
        row.left -= 1
        row.request.sink.token(token)

    def admit(self, request: Request) -> None:
        """Give a request a row, read its prompt (prefill) and make its first token."""
        row = _Row(request)
        self.rows.append(row)
        if row.left > 0:
            self._prefill(len(self.rows) - 1, np.fromiter(row.history, np.int64))

    def step(self) -> int:
        """One token for every row; returns how many."""
        context = self.cache.context_length
        count = len(self.rows)
        full = [i for i in range(count) if self.cache.lengths[i] == context]
        for i in full:
            self._prefill(i, slide(np.fromiter(self.rows[i].history, np.int64), context))
        if len(full) == count:
            return count
        # The rows that slid have their token; the others are decoded together, as one contiguous run of rows where
        # nothing slid, which is nearly always.
        runs = [slice(0, count)] if not full else [slice(i, i + 1) for i in range(count) if i not in full]
        for run in runs:
            ids = np.array([[row.history[-1]] for row in self.rows[run]])
            for i, logits in enumerate(self.model.forward(ids, self.cache, run, last_only=True), run.start):
                self._take(i, logits)
        return count


class _List(list[int]):
    """A sink that keeps the tokens."""

    def token(self, token: int) -> None:
        self.append(token)

    def end(self, error: Exception | None) -> None:
        assert error is None


def generate(model: GPT, prompt: NDArray[np.integer], params: SamplingParams) -> Iterator[int]:
    """The tokens after `prompt` (tokens,), as they come, in the calling thread."""
    batch, tokens = Batch(model, rows=1), _List()
    batch.admit(Request(model, prompt, params, tokens))
    for i in range(params.max_tokens):
        if i == len(tokens):
            batch.step()
        yield tokens[i]
