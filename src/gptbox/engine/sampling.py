"""How tokens are drawn: the parameters of one request. The rules themselves are in `gptbox.engine.kernels.rules`."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gptbox.errors import EngineError

MOST_BIASES = 300
"""Tokens that one request may bias, as with OpenAI."""
MOST_ALTERNATIVES = 20
"""Alternatives whose probabilities can be asked for beside each token's."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    max_tokens: int = 16
    """How many tokens to generate."""
    temperature: float = 1.0
    """Divides the logits; 0 always takes the most probable token."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the most probable tokens that together reach this probability; 1 keeps all."""
    min_p: float = 0.0
    """Keep the tokens at least this share as probable as the most probable one; 0 keeps all."""
    repetition_penalty: float = 1.0
    """Makes tokens of the prompt and the text so far less probable where above 1; 1 is off."""
    presence_penalty: float = 0.0
    """Taken from the logits of the tokens that the text so far has."""
    frequency_penalty: float = 0.0
    """Taken from a token's logit each time that the text so far has it."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these tokens."""
    logprobs: int | None = None
    """Tell each token's log-probability, and those of so many most probable ones; None tells none."""
    seed: int | None = None
    """The same seed, prompt and model give the same tokens; None takes a fresh random one."""

    def __post_init__(self) -> None:
        infinity = float("inf")
        for name, low, high, bounds in (
            ("max_tokens", 0, infinity, "0 or more"),
            ("top_k", 0, infinity, "0 (off) or more"),
            ("top_p", 0, 1, "between 0 and 1"),
            ("min_p", 0, 1, "between 0 and 1"),
            ("presence_penalty", -infinity, infinity, "a number"),
            ("frequency_penalty", -infinity, infinity, "a number"),
        ):
            if not low <= getattr(self, name) <= high:
                raise EngineError(f"{name} is {getattr(self, name)}; it must be {bounds}.")
        if not 0 <= self.temperature < infinity:
            raise EngineError(f"temperature is {self.temperature}; it must be 0 or more.")
        if not 0 < self.repetition_penalty < infinity:
            raise EngineError(f"repetition_penalty is {self.repetition_penalty}; it must be above 0.")
        if len(self.logit_bias) > MOST_BIASES:
            raise EngineError(f"logit_bias has {len(self.logit_bias)} tokens; at most {MOST_BIASES} are possible.")
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_ALTERNATIVES:
            raise EngineError(f"logprobs is {self.logprobs}; it must be between 0 and {MOST_ALTERNATIVES}.")

    def state(self) -> np.uint64:
        """The random state that one sequence begins with."""
        return np.uint64(secrets.randbits(64) if self.seed is None else self.seed % 2**64)
