"""The texts of one HTTP request, on their way from the engine's thread to the event loop."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.sampling import SamplingParams
from gptbox.engine.scheduler import Request, Scheduler
from gptbox.tokenizers import Tokenizer
from gptbox.web.model_cache import LoadedModel
from gptbox.web.stop_strings import StopStrings

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Piece:
    """What is new of one text."""

    index: int
    text: str
    finish: Finish | None
    """Why the text ends here; None while it goes on."""


class _Text:
    """One text. The engine's thread calls `token` and `end`, the event loop everything else."""

    def __init__(self, index: int, tokenizer: Tokenizer, stop: Sequence[str], notify: Callable[[], None], eager: bool):
        self.index = index
        self.tokens = 0
        self.finish: Finish | None = None
        self._decoder = tokenizer.stream_decoder()
        self._stop = StopStrings(stop)
        self._notify = notify
        self._eager = eager
        # Bounded by the request's max_tokens: a slow reader lets it grow, and never holds the engine.
        self._arrived: deque[int] = deque()
        self._ended = False
        self._error: Exception | None = None

    def token(self, token: int) -> None:
        self._arrived.append(token)
        if self._eager:
            self._notify()

    def end(self, error: Exception | None) -> None:
        self._error = error
        self._ended = True
        self._notify()

    def take(self) -> Piece | None:
        """All that came since the last call, as one piece.

        Raises the engine's error where that is how the text ended.
        """
        ended = self._ended  # read first: once it is set, every token is in the queue
        text = ""
        while self._arrived and not self._stop.matched:
            self.tokens += 1
            text += self._stop.push(self._decoder.push(self._arrived.popleft()))
        if ended and not self._stop.matched:
            if self._error is not None:
                raise self._error
            text += self._stop.push(self._decoder.flush())
            self.finish = "length"
        if self._stop.matched:
            self.finish = "stop"
        if self.finish == "length":
            text += self._stop.flush()
        return Piece(self.index, text, self.finish) if text or self.finish else None


class Generation:
    """Made, read and closed on the event loop. `close` must be called however the reply ends."""

    def __init__(
        self,
        scheduler: Scheduler,
        model: LoadedModel,
        texts: Sequence[tuple[NDArray[np.integer], SamplingParams]],
        stop: Sequence[str] = (),
        eager: bool = True,
    ) -> None:
        """Hand the texts, each a prompt's ids (tokens,) and how to go on from it, to the engine.

        `eager` wakes the event loop for every token; without it, when a text ends. Raises QueueFullError or
        EngineError, and then none was taken.
        """
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._woken = False
        self._aborted: Exception | None = None
        self._texts = [_Text(i, model.tokenizer, stop, self._notify, eager) for i in range(len(texts))]
        self._requests = [
            Request(model=model.gpt, prompt=prompt, params=params, sink=text)
            for text, (prompt, params) in zip(self._texts, texts, strict=True)
        ]
        scheduler.submit(self._requests)

    @property
    def tokens(self) -> int:
        """Tokens that were read so far, of all texts together."""
        return sum(text.tokens for text in self._texts)

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
