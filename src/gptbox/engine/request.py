"""A generation request, and the sink that receives its tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.gpt import GPT
from gptbox.engine.sampling_params import SamplingParams
from gptbox.errors import EngineError


@dataclass(frozen=True)
class Logprobs:
    """The model's own log-probabilities of consecutive tokens, before penalties, temperature and truncation."""

    chosen: list[float]
    """The log-probability of each token."""
    alternatives: list[list[tuple[int, float]]]
    """Per token, the most probable ids and their log-probabilities, best first."""


class Sink(Protocol):
    """Receives a request's tokens. Its methods must return at once and never raise.

    Called on the engine's thread; `end` also on a thread whose `Scheduler.submit` evicts the request.
    """

    def prompt(self, logprobs: Logprobs) -> None:
        """Log-probabilities of the prompt's tokens within the context, except the first.

        With max_tokens 0 the prompt's last token may have a full context before it.

        Called once, before `tokens`, if requested.
        """

    def tokens(self, ids: list[int], logprobs: Logprobs | None) -> None:
        """The next tokens, at least one. If a stop token ended the text, it is the last of them."""

    def end(self, error: Exception | None) -> None:
        """Called exactly once, after the last token; `error` is None if the request was completed or cancelled."""


@dataclass(eq=False, kw_only=True)
class Request:
    """One sequence to generate.

    Raises EngineError for an empty prompt, for an id outside of the vocabulary, and if min_tokens would leave no token.
    """

    model: GPT
    prompt: NDArray[np.integer]
    """Ids (tokens,), at least one. The model sees only the last context_length of them."""
    params: SamplingParams
    sink: Sink
    client: str = ""
    """Who sent the request, such as an address: clients share the capacity fairly."""
    prompt_logprobs: bool = False
    """Whether to report the prompt's log-probabilities, with params.logprobs alternatives."""
    group: Sequence["Request"] = field(default=(), init=False, repr=False)
    """The requests submitted together, this one included: they are accepted, and evicted, all or none."""
    cancelled: bool = field(default=False, init=False)
    """Set by `cancel`."""
    interrupt: NDArray[np.int64] | None = field(default=None, init=False, repr=False)
    """The interrupt flag (1,) of the batch that runs this request; None while the request waits."""

    def __post_init__(self) -> None:
        if len(self.prompt) == 0:
            raise EngineError("The prompt has no tokens; give at least one.")
        size = self.model.config.vocab_size
        if self.prompt.min() < 0 or self.prompt.max() >= size:
            raise EngineError(f"The prompt has an id that the model lacks; its ids are 0 to {size - 1}.")
        stop_tokens = self.params.all_stop_token_ids
        for name, tokens in (("logit_bias", self.params.logit_bias), ("stop_token_ids", stop_tokens)):
            for token in tokens:
                if not 0 <= token < size:
                    raise EngineError(f"{name} has the id {token}, which the model lacks; its ids are 0 to {size - 1}.")
        if self.params.min_tokens > 0 and len(stop_tokens) == size:
            raise EngineError("Every token is a stop token, so that min_tokens leaves none; give fewer stop_token_ids.")

    def cancel(self) -> None:
        """Stop within one step; `end(None)` is still called. Thread-safe and idempotent."""
        self.cancelled = True
        if self.interrupt is not None:
            self.interrupt[0] = 1
