"""The texts of one HTTP request, on their way from the engine's thread to the event loop."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.request import Logprobs, Request
from gptbox.engine.sampling import SamplingParams
from gptbox.engine.scheduler import Scheduler
from gptbox.errors import QueueFullError
from gptbox.tokenizers import Tokenizer
from gptbox.web.model_cache import LoadedModel
from gptbox.web.stop_strings import StopStrings

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Token:
    """One token of a text whose log-probabilities were asked for."""

    id: int
    offset: int
    """Where in the text it begins, in characters."""
    logprob: float
    alternatives: list[tuple[int, float]]
    """The most probable ids, the best first."""


@dataclass(frozen=True)
class Piece:
    """What is new of one text."""

    index: int
    text: str
    finish: Finish | None
    """Why the text ends here; None while it goes on."""
    tokens: list[Token] = field(default_factory=list)
    """Those that begin in this piece; only where log-probabilities were asked for."""
    first: bool = False
    """Whether it is the text's first."""


class _Text:
    """One text. The engine's thread calls `prompt`, `tokens` and `end`, the event loop everything else."""

    def __init__(
        self,
        index: int,
        tokenizer: Tokenizer,
        max_tokens: int,
        stop: Sequence[str],
        notify: Callable[[], None],
        eager: bool,
    ) -> None:
        self.index = index
        self.count = 0
        self.finish: Finish | None = None
        self.first_at: float | None = None
        self.last_at: float | None = None
        self.prompt_logprobs: Logprobs | None = None
        self.logprob_sum = 0.0
        """Of the tokens so far, where they are told."""
        self._decoder = tokenizer.stream_decoder()
        self._max_tokens = max_tokens
        self._stop = StopStrings(stop)
        self._notify = notify
        self._eager = eager
        # Bounded by the request's max_tokens: a slow reader lets it grow, and never holds the engine.
        self._arrived: deque[tuple[list[int], Logprobs | None]] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._begun = False
        self._decoded = 0
        self._sent = 0
        self._held: deque[Token] = deque()

    def prompt(self, logprobs: Logprobs) -> None:
        self.prompt_logprobs = logprobs

    def tokens(self, ids: list[int], logprobs: Logprobs | None) -> None:
        self.last_at = time.monotonic()
        if self.first_at is None:
            self.first_at = self.last_at
        self._arrived.append((ids, logprobs))
        if self._eager:
            self._notify()

    def end(self, error: Exception | None) -> None:
        self._error = error
        self._ended = True
        self._notify()

    @property
    def error(self) -> Exception | None:
        """How the text ended, where it was not as it should."""
        return self._error

    def take(self) -> Piece | None:
        """All that came since the last call, as one piece.

        Raises the engine's error where that is how the text ended.
        """
        ended = self._ended  # read first: once it is set, every token is in the queue
        parts = []
        while self._arrived and not self._stop.matched:
            parts.append(self._read(*self._arrived.popleft()))
        # The last token ends the text: the engine calls `end` later, perhaps after this call.
        complete = 0 < self._max_tokens <= self.count
        if (complete or ended) and not self._stop.matched:
            if self._error is not None and not complete:
                raise self._error
            parts.append(self._stop.push(self._decoder.flush()))
            self.finish = "length"
        if self._stop.matched:
            self.finish = "stop"
        if self.finish == "length":
            parts.append(self._stop.flush())
        text = "".join(parts)
        self._sent += len(text)
        tokens = []
        while self._held and (self._held[0].offset < self._sent or self.finish == "length"):
            tokens.append(self._held.popleft())
        if not (text or tokens or self.finish):
            return None
        first, self._begun = not self._begun, True
        return Piece(self.index, text, self.finish, tokens, first)

    def _read(self, ids: list[int], logprobs: Logprobs | None) -> str:
        if logprobs is None and not self._stop:
            self.count += len(ids)
            return self._decoder.push(ids)
        parts = []
        for i, token in enumerate(ids):
            self.count += 1
            if logprobs is not None:
                self.logprob_sum += logprobs.chosen[i]
                self._held.append(Token(token, self._decoded, logprobs.chosen[i], logprobs.alternatives[i]))
            text = self._decoder.push((token,))
            self._decoded += len(text)
            parts.append(self._stop.push(text))
            if self._stop.matched:
                break
        return "".join(parts)


@dataclass(frozen=True)
class Prompt:
    """What one text is to go on from, and how."""

    ids: NDArray[np.integer]
    """At least one, shape (tokens,)."""
    params: SamplingParams
    logprobs: bool = False
    """Whether the prompt's own log-probabilities are wanted, too."""


class Generation:
    """Made, read and closed on the event loop. `close` must be called however the reply ends."""

    def __init__(
        self,
        scheduler: Scheduler,
        model: LoadedModel,
        prompts: Sequence[Prompt],
        stop: Sequence[str] = (),
        eager: bool = True,
        client: str = "",
    ) -> None:
        """Hand the texts to the engine.

        `eager` wakes the event loop for every token; without it, when a text ends. Raises QueueFullError or
        EngineError, and then none was taken.
        """
        self.began_at = time.monotonic()
        self._scheduler = scheduler
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._woken = False
        self._aborted: Exception | None = None
        self._texts = [
            _Text(i, model.tokenizer, prompt.params.max_tokens, stop, self._notify, eager)
            for i, prompt in enumerate(prompts)
        ]
        self._requests = [
            Request(
                model=model.gpt, prompt=prompt.ids, params=prompt.params, sink=text, client=client,
                prompt_logprobs=prompt.logprobs,
            )
            for text, prompt in zip(self._texts, prompts, strict=True)
        ]  # fmt: skip
        self.prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
        scheduler.submit(self._requests)

    @property
    def tokens(self) -> int:
        """Tokens that were read so far, of all texts together."""
        return sum(text.count for text in self._texts)

    @property
    def first_token_s(self) -> float | None:
        """From the request to the first token of any text."""
        times = [text.first_at for text in self._texts if text.first_at is not None]
        return min(times) - self.began_at if times else None

    @property
    def per_token_s(self) -> float | None:
        """Between a text's tokens, on average over all texts."""
        spans = [
            (text.last_at - text.first_at, text.count - 1)
            for text in self._texts
            if text.first_at is not None and text.last_at is not None and text.count > 1
        ]
        return sum(span for span, _ in spans) / sum(count for _, count in spans) if spans else None

    @property
    def position(self) -> int:
        """How many texts stand in the queue up to the first of this request's; 0 once one has its place."""
        return self._scheduler.position(self._requests[0])  # which is the first of them to have its place

    def prompt_logprobs(self, index: int) -> Logprobs | None:
        """Of text `index`, once its first token or its end was read; None unless asked for."""
        return self._texts[index].prompt_logprobs

    def mean_logprob(self, index: int) -> float:
        """Of the tokens of text `index` that were read so far."""
        text = self._texts[index]
        return text.logprob_sum / max(1, text.count)

    def close(self) -> None:
        """Free the engine's slots within a step. Harmless when all texts have ended."""
        for request in self._requests:
            request.cancel()

    def abort(self, error: Exception) -> None:
        """End all texts, and let the reader of `pieces` see this error."""
        self.close()
        self._aborted = error
        self._wake.set()

    def _notify(self) -> None:
        """Called on the engine's thread. One wake-up stands for all that comes until the event loop looks."""
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the event loop has been closed: nobody reads any more
                self._loop.call_soon_threadsafe(self._wake.set)

    @property
    def may_give_way(self) -> bool:
        """Whether what waits may still have to make way for others, since its client has more than its share."""
        return self._scheduler.may_give_way(self._client)

    async def waiting(self, every_s: float) -> AsyncIterator[int]:
        """The place in the queue (`position`), again and again, until there is something to read.

        Raises QueueFullError where the request had to make way.
        """
        while position := self.position:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), every_s)
            if self._wake.is_set():
                break
            yield position
        for text in self._texts:
            if isinstance(text.error, QueueFullError):
                raise text.error

    async def pieces(self) -> AsyncIterator[list[Piece]]:
        """What is new, each time there is something: at most one piece a text, everything that waits in it.

        Raises the engine's error, or the one given to `abort`.
        """
        running = list(self._texts)
        while running:
            await self._wake.wait()
            self._wake.clear()
            # Before reading: what comes later than this line wakes the loop again.
            self._woken = False
            if self._aborted is not None:
                raise self._aborted
            pieces = [piece for text in running if (piece := text.take()) is not None]
            for text in running:
                if text.finish == "stop":
                    self._requests[text.index].cancel()
            running = [text for text in running if text.finish is None]
            if pieces:
                yield pieces
