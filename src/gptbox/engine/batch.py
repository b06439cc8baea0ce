"""Sequences that are generated together, one token each a step."""

import logging
from collections import deque
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.gpt import GPT, slide
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.sampling import SamplingParams, sample
from gptbox.errors import EngineError

log = logging.getLogger(__name__)


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
    """A request that has its place in a batch."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.random = request.params.random()
        # The newest ids, as many as a window may need; the last one is not in the cache yet.
        context = request.model.config.context_length
        self.history: deque[int] = deque((int(i) for i in request.prompt[-context:]), maxlen=context)
        self.left = request.params.max_tokens
        self.error: Exception | None = None

    @property
    def ended(self) -> bool:
        return self.left <= 0 or self.request.cancelled or self.error is not None


class Batch:
    """The running rows of one model; row i of the cache belongs to rows[i]. For one thread."""

    def __init__(self, model: GPT, rows: int) -> None:
        """Room for up to `rows` requests at once."""
        self.model = model
        self.cache = KVCache(model.config, rows)
        self.rows: list[_Row] = []

    def add(self, request: Request) -> None:
        """Give a request a row; its prompt is read in the next step."""
        self.cache.lengths[len(self.rows)] = 0
        self.rows.append(_Row(request))

    def remove_ended(self) -> None:
        """Free the rows that need no further token, and tell their sinks. A last row moves into each gap."""
        for i in reversed(range(len(self.rows))):
            row = self.rows[i]
            if row.ended:
                last = self.rows.pop()
                if last is not row:
                    self.cache.move(len(self.rows), i)
                    self.rows[i] = last
                row.request.sink.end(row.error)

    def step(self) -> int:
        """One token for every row, none of which may have ended; returns how many."""
        context, count = self.cache.context_length, len(self.rows)
        decoded = []
        for i, row in enumerate(self.rows):
            length = self.cache.lengths[i]
            if length == 0:
                self._prefill(i, np.fromiter(row.history, np.int64))
            elif length == context:
                self._prefill(i, slide(np.fromiter(row.history, np.int64), context))
            else:
                decoded.append(i)
        # One pass for the others where they are side by side: always, but for steps in which a row in between slid.
        runs = [slice(0, len(decoded))] if decoded == list(range(len(decoded))) else [slice(i, i + 1) for i in decoded]
        for run in runs if decoded else ():
            ids = np.array([[row.history[-1]] for row in self.rows[run]])
            for i, logits in enumerate(self.model.forward(ids, self.cache, run, last_only=True), run.start):
                self._take(i, logits)
        return count

    def _prefill(self, i: int, ids: NDArray[np.integer]) -> None:
        """Fill row i from position 0 and sample the token after it. What fails is this row's own fault."""
        self.cache.lengths[i] = 0
        try:
            logits = self.model.forward(ids[None], self.cache, slice(i, i + 1), last_only=True)
        except Exception as error:
            log.exception("the engine could not read a prompt")
            self.rows[i].error = error
        else:
            self._take(i, logits[0])

    def _take(self, i: int, logits: NDArray[np.float32]) -> None:
        row = self.rows[i]
        token = sample(logits, row.request.params, row.random)
        row.history.append(token)
        row.left -= 1
        row.request.sink.token(token)


class _List(list[int]):
    """A sink that keeps the tokens."""

    def token(self, token: int) -> None:
        self.append(token)

    def end(self, error: Exception | None) -> None:
        if error is not None:
            raise error


def generate(model: GPT, prompt: NDArray[np.integer], params: SamplingParams) -> Iterator[int]:
    """The tokens after `prompt` (tokens,), as they come, in the calling thread."""
    batch, tokens = Batch(model, rows=1), _List()
    batch.add(Request(model, prompt, params, tokens))
    for _ in range(params.max_tokens):
        batch.step()
        batch.remove_ended()
        yield tokens[-1]
