"""The generated texts of one HTTP request, handed from the engine's thread to the event loop."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.request import Logprobs
from gptbox.engine.request import Request as EngineRequest
from gptbox.engine.sampling_params import SamplingParams
from gptbox.engine.scheduler import Scheduler
from gptbox.errors import QueueFullError
from gptbox.tokenizers import StreamDecoder
from gptbox.web.api.stop_strings import StopStrings
from gptbox.web.model_cache import LoadedModel

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Token:
    """A generated token with its log-probabilities, in nats."""

    id: int
    text_offset: int
    """Index of the character of the text in which the token begins."""
    logprob: float
    alternatives: list[tuple[int, float]]
    """The most probable ids and their log-probabilities, in descending order."""


@dataclass(frozen=True)
class TextDelta:
    """The addition to one text since its last delta."""

    index: int
    text: str
    finish_reason: FinishReason | None
    """None while the text goes on."""
    tokens: list[Token] = field(default_factory=list)
    """The tokens that begin in this delta; empty unless log-probabilities were requested."""
    is_first: bool = False
    stop_reason: int | str | None = None
    """The stop string, or the id in stop_token_ids, that ended the text; None if nothing or the EOS did."""


class _TextSink:
    """One text. `prompt`, `tokens` and `end` are called on the engine's thread, the rest on the event loop."""

    def __init__(
        self,
        index: int,
        decoder: StreamDecoder,
        params: SamplingParams,
        stop: Sequence[str],
        notify: Callable[[], None],
        eager: bool,
    ) -> None:
        self.index = index
        self.num_tokens = 0
        """Tokens decoded so far."""
        self.finish_reason: FinishReason | None = None
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        self.prompt_logprobs: Logprobs | None = None
        self.cumulative_logprob = 0.0
        """Sum over the tokens decoded so far, in nats; 0 unless log-probabilities were requested."""
        self.error: Exception | None = None
        """Why the engine ended the text early."""
        self._decoder = decoder
        self._params = params
        self._stop_tokens = params.ending_token_ids
        self._stop = StopStrings(stop)
        self._stop_token: int | None = None
        """The stop token that ended the text; it has no text itself."""
        self._stop_logprob: tuple[float, list[tuple[int, float]]] | None = None
        """The stop token's log-probability and alternatives, if requested."""
        self._notify = notify
        self._eager = eager
        # Bounded by max_tokens: with a slow client it grows, but the engine never waits.
        self._queue: deque[tuple[list[int], Logprobs | None]] = deque()
        self._ended = False
        self._has_deltas = False
        self._decoded_chars = 0
        self._sent_chars = 0
        self._unsent_tokens: deque[Token] = deque()

    def prompt(self, logprobs: Logprobs) -> None:
        self.prompt_logprobs = logprobs

    def tokens(self, ids: list[int], logprobs: Logprobs | None) -> None:
        self.last_token_at = time.monotonic()
        if self.first_token_at is None:
            self.first_token_at = self.last_token_at
        self._queue.append((ids, logprobs))
        if self._eager:
            self._notify()

    def end(self, error: Exception | None) -> None:
        self.error = error
        self._ended = True
        self._notify()

    def take_delta(self) -> TextDelta | None:
        """Everything since the last call; None if there is nothing new.

        Raises the engine's error if that ended the text.
        """
        ended = self._ended  # read first: once it is set, all tokens are in the queue
        parts = []
        while self._queue and not self._stop.matched:
            parts.append(self._decode(*self._queue.popleft()))
        # The last token ends the text. The engine calls `end` later, perhaps after this call.
        complete = self._stop_token is not None or 0 < self._params.max_tokens <= self.num_tokens
        if (complete or ended) and not self._stop.matched:
            if self.error is not None and not complete:
                raise self.error
            parts.append(self._finish())
        if self._stop.matched:
            self.finish_reason = "stop"
        text = "".join(parts)
        self._sent_chars += len(text)
        tokens = []
        while self._unsent_tokens and (
            self._unsent_tokens[0].text_offset < self._sent_chars or (self.finish_reason and not self._stop.matched)
        ):
            tokens.append(self._unsent_tokens.popleft())
        if not (text or tokens or self.finish_reason):
            return None
        is_first, self._has_deltas = not self._has_deltas, True
        return TextDelta(self.index, text, self.finish_reason, tokens, is_first, self._stop_reason)

    @property
    def stopped_early(self) -> bool:
        """Whether a stop string ended the text, of which the engine does not know."""
        return self._stop.matched is not None

    @property
    def _stop_reason(self) -> int | str | None:
        if self._stop.matched is not None:
            return self._stop.matched
        is_eos = self._stop_token == self._params.eos_token_id and not self._params.ignore_eos
        return None if is_eos else self._stop_token

    def _finish(self) -> str:
        """The rest of a text of which the engine's last token has come. A character that it breaks off is left out."""
        self.finish_reason = "length" if self._stop_token is None else "stop"
        if self._stop_token is not None and self._stop_logprob is not None:
            self._unsent_tokens.append(Token(self._stop_token, self._decoded_chars, *self._stop_logprob))
        return self._stop.flush()

    def _push(self, text: str) -> str:
        """The decoded text that may be sent; stop strings are ignored up to min_tokens, as in vLLM."""
        return self._stop.push(text, may_end=self.num_tokens > self._params.min_tokens)

    def _decode(self, ids: list[int], logprobs: Logprobs | None) -> str:
        """The text of the next tokens that may be sent; a stop token is only noted."""
        stop_token = ids[-1] if ids[-1] in self._stop_tokens else None
        if stop_token is not None:
            ids = ids[:-1]
        text = self._decode_text(ids, logprobs)
        if stop_token is not None and not self._stop.matched:
            self.num_tokens += 1
            self._stop_token = stop_token
            if logprobs is not None:
                self.cumulative_logprob += logprobs.chosen[-1]
                self._stop_logprob = logprobs.chosen[-1], logprobs.alternatives[-1]
        return text

    def _decode_text(self, ids: list[int], logprobs: Logprobs | None) -> str:
        if logprobs is None and not self._stop:
            self.num_tokens += len(ids)
            return self._decoder.push(ids)
        parts = []
        for i, token_id in enumerate(ids):
            self.num_tokens += 1
            text, start = self._decoder.push_token(token_id)
            if logprobs is not None:
                self.cumulative_logprob += logprobs.chosen[i]
                self._unsent_tokens.append(
                    Token(token_id, self._decoded_chars + start, logprobs.chosen[i], logprobs.alternatives[i])
                )
            self._decoded_chars += len(text)
            parts.append(self._push(text))
            if self._stop.matched:
                break
        return "".join(parts)


@dataclass(frozen=True)
class TextJob:
    """One text to generate."""

    prompt_ids: NDArray[np.integer]
    """Shape (tokens,), at least one."""
    params: SamplingParams
    prompt_logprobs: bool = False
    """Whether to return the prompt's log-probabilities, too."""


class Generation:
    """The texts of one request.

    Created, read and closed on the event loop. `close` must be called however the response ends.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        model: LoadedModel,
        jobs: Sequence[TextJob],
        stop: Sequence[str] = (),
        eager: bool = True,
        client: str = "",
    ) -> None:
        """Submit the texts to the engine: all or none.

        `eager` wakes the event loop for every token, not only at the end of each text. The texts count against the
        share of places of `client`. Raises QueueFullError or EngineError.
        """
        self.started_at = time.monotonic()
        self._scheduler = scheduler
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._wake_pending = False
        self._abort_error: Exception | None = None
        self._texts = [
            _TextSink(
                i, model.tokenizer.stream_decoder(job.prompt_ids), job.params, stop,
                self._notify, eager,
            )
            for i, job in enumerate(jobs)
        ]  # fmt: skip
        self._requests = [
            EngineRequest(
                model=model.gpt, prompt=job.prompt_ids, params=job.params, sink=text, client=client,
                prompt_logprobs=job.prompt_logprobs,
            )
            for text, job in zip(self._texts, jobs, strict=True)
        ]  # fmt: skip
        self.prompt_tokens = sum(len(job.prompt_ids) for job in jobs)
        scheduler.submit(self._requests)

    @property
    def completion_tokens(self) -> int:
        """Tokens decoded so far, over all texts."""
        return sum(text.num_tokens for text in self._texts)

    @property
    def time_to_first_token_s(self) -> float | None:
        """From the request to the first token of any text; None before that token."""
        times = [text.first_token_at for text in self._texts if text.first_token_at is not None]
        return min(times) - self.started_at if times else None

    @property
    def time_per_token_s(self) -> float | None:
        """The mean time between consecutive tokens, over all texts; None until a text has two tokens."""
        spans = [
            (text.last_token_at - text.first_token_at, text.num_tokens - 1)
            for text in self._texts
            if text.first_token_at is not None and text.last_token_at is not None and text.num_tokens > 1
        ]
        return sum(span for span, _ in spans) / sum(count for _, count in spans) if spans else None

    @property
    def queue_position(self) -> int:
        """The position in the queue of the first text, counted from 1; 0 once the engine has started it."""
        return self._scheduler.queue_position(self._requests[0])  # the request's texts are started in order

    def prompt_logprobs(self, index: int) -> Logprobs | None:
        """Those of the prompt of text `index`, available with its first token or its end; None unless requested."""
        return self._texts[index].prompt_logprobs

    def mean_logprob(self, index: int) -> float:
        """In nats per token, over the tokens of text `index` decoded so far."""
        text = self._texts[index]
        return text.cumulative_logprob / max(1, text.num_tokens)

    def close(self) -> None:
        """Cancel the texts still running; the engine frees their places within a step."""
        for request in self._requests:
            request.cancel()

    def abort(self, error: Exception) -> None:
        """Cancel all texts and raise this error in `deltas`."""
        self.close()
        self._abort_error = error
        self._wake.set()

    def _notify(self) -> None:
        """Called on the engine's thread. Wakes the event loop at most once until `deltas` reads."""
        if not self._wake_pending:
            self._wake_pending = True
            with suppress(RuntimeError):  # the event loop is closed, and the reader gone
                self._loop.call_soon_threadsafe(self._wake.set)

    @property
    def may_be_evicted(self) -> bool:
        """Whether the client has more than its share of places, so that its queued texts may be evicted."""
        return self._scheduler.may_be_evicted(self._client)

    async def queue_positions(self, interval_s: float) -> AsyncIterator[int]:
        """The queue position every `interval_s` seconds, until a delta can be read.

        Raises QueueFullError if the request was evicted in favour of another client.
        """
        while position := self.queue_position:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), interval_s)
            if self._wake.is_set():
                break
            yield position
        for text in self._texts:
            if isinstance(text.error, QueueFullError):
                raise text.error

    async def deltas(self) -> AsyncIterator[list[TextDelta]]:
        """The new deltas, at most one per text: a slow client gets all that has accumulated in one delta.

        Raises the engine's error, or the one given to `abort`.
        """
        running = list(self._texts)
        while running:
            await self._wake.wait()
            self._wake.clear()
            # Before reading: whatever arrives after this line wakes the loop again.
            self._wake_pending = False
            if self._abort_error is not None:
                raise self._abort_error
            deltas = [delta for text in running if (delta := text.take_delta()) is not None]
            for text in running:
                if text.stopped_early:
                    self._requests[text.index].cancel()
            running = [text for text in running if text.finish_reason is None]
            if deltas:
                yield deltas
