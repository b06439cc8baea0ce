"""What the engine is asked for, and where what it makes goes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.gpt import GPT
from gptbox.engine.sampling import SamplingParams
from gptbox.errors import EngineError


@dataclass(frozen=True)
class Logprobs:
    """Of some tokens, in order: what the model gave them, before any rule of sampling."""

    chosen: list[float]
    alternatives: list[list[tuple[int, float]]]
    """Of each token the most probable ids, the best first, and their log-probabilities."""


class Sink(Protocol):
    """Where a request's tokens go. Must return at once and never raise.

    Called on the engine's thread; or on another one that submits, whose requests a queued one has to make way for.
    """

    def prompt(self, logprobs: Logprobs) -> None:
        """Those of the prompt's tokens but the first that the model sees: once, before any token, if asked for."""

    def tokens(self, ids: list[int], logprobs: Logprobs | None) -> None:
        """The next tokens, at least one."""

    def end(self, error: Exception | None) -> None:
        """Exactly once, after the last token: None when all tokens came or the request was cancelled."""


@dataclass(eq=False, kw_only=True)
class Request:
    """One sequence to generate."""

    model: GPT
    prompt: NDArray[np.integer]
    """At least one id, shape (tokens,). Of a longer one than the context only the end is seen."""
    params: SamplingParams
    sink: Sink
    client: str = ""
    """Who asks: places are shared out evenly among clients."""
    prompt_logprobs: bool = False
    """Whether to tell the prompt's own log-probabilities, with as many alternatives as params.logprobs."""
    together: Sequence["Request"] = field(default=(), init=False, repr=False)
    """Those that were submitted together: they all have places, or wait for them, or none does."""
    cancelled: bool = field(default=False, init=False)
    interrupt: NDArray[np.int64] | None = field(default=None, init=False, repr=False)
    """(1,): that of the batch where it has its place, once it has one."""

    def __post_init__(self) -> None:
        if len(self.prompt) == 0:
            raise EngineError("The prompt has no tokens; give at least one.")
        size = self.model.config.vocab_size
        if self.prompt.min() < 0 or self.prompt.max() >= size:
            raise EngineError(f"The prompt has an id that the model lacks; its are 0 to {size - 1}.")
        for token in self.params.logit_bias:
            if not 0 <= token < size:
                raise EngineError(f"logit_bias has the id {token}, which the model lacks; its are 0 to {size - 1}.")

    def cancel(self) -> None:
        """Stop within one step; `end(None)` is still called. Safe from any thread, and more than once."""
        self.cancelled = True
        if self.interrupt is not None:
            self.interrupt[0] = 1
