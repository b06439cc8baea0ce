"""The sampling parameters of a request; `gptbox.engine.kernels.sampling` applies them."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_type_hints

import numpy as np

from gptbox.errors import EngineError

MAX_BIASES = 300
"""Most tokens that logit_bias may have, as in OpenAI's API."""
MAX_STOP_TOKENS = 64
"""Most ids that stop_token_ids may have."""
MAX_ALTERNATIVES = 20
"""Most alternatives per token that logprobs may request."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """The sampling parameters of one request, named as in vLLM.

    Raises EngineError, which names the field and its value, if one is out of range.
    """

    max_tokens: int = 16
    """Number of tokens to generate, unless a stop token ends the text earlier."""
    min_tokens: int = 0
    """Number of tokens before which no stop token is sampled."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the text: the first of them to be sampled is its last token."""
    eos_token_id: int | None = None
    """The tokenizer's end-of-text token, a stop token like those of stop_token_ids; None if it has none."""
    ignore_eos: bool = False
    """Let the text go on after eos_token_id."""
    temperature: float = 1.0
    """Divides the logits; 0 always takes the most probable token."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of most probable tokens whose probabilities sum to this; 1 keeps all."""
    min_p: float = 0.0
    """Keep tokens with at least this fraction of the most probable token's probability; 0 keeps all."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens of the prompt and of the generated text less probable; 1 is off."""
    presence_penalty: float = 0.0
    """Subtracted from the logit of every token that was generated already."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit once for each time it was generated."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Numbers added to the logits, by token id."""
    logprobs: int | None = None
    """Report each token's log-probability and this many alternatives; None reports none."""
    seed: int | None = None
    """The same seed, prompt and model give the same tokens; None takes a random seed."""

    def __post_init__(self) -> None:
        infinity = float("inf")
        for name, low, high, bounds in (
            ("max_tokens", 0, infinity, "0 or more"),
            ("min_tokens", 0, self.max_tokens, f"between 0 and max_tokens, {self.max_tokens}"),
            ("top_k", 0, 2**63 - 1, "0 (off) or more, and less than 2^63"),
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
        if len(self.logit_bias) > MAX_BIASES:
            raise EngineError(f"logit_bias has {len(self.logit_bias)} tokens; at most {MAX_BIASES} are possible.")
        if len(self.stop_token_ids) > MAX_STOP_TOKENS:
            raise EngineError(
                f"stop_token_ids has {len(self.stop_token_ids)} tokens; at most {MAX_STOP_TOKENS} are possible."
            )
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_ALTERNATIVES:
            raise EngineError(f"logprobs is {self.logprobs}; it must be between 0 and {MAX_ALTERNATIVES}.")

    @property
    def all_stop_token_ids(self) -> frozenset[int]:
        """The tokens that are not sampled before min_tokens: as in vLLM with eos_token_id, even if it is ignored."""
        return frozenset(
            self.stop_token_ids if self.eos_token_id is None else (*self.stop_token_ids, self.eos_token_id)
        )

    @property
    def ending_token_ids(self) -> frozenset[int]:
        """The tokens that end the text."""
        return frozenset(self.stop_token_ids) if self.ignore_eos else self.all_stop_token_ids

    def state(self) -> np.uint64:
        """The initial random state of a sequence."""
        return np.uint64(secrets.randbits(64) if self.seed is None else self.seed % 2**64)

    def fill(self, record: np.void) -> None:
        """Write the parameters into a record of SAMPLING_DTYPE."""
        for name, _ in _NUMBERS:
            record[name] = getattr(self, name)
        record["num_alternatives"] = -1 if self.logprobs is None else self.logprobs
        stop_tokens = sorted(self.all_stop_token_ids)
        record["num_stop_tokens"] = len(stop_tokens)
        record["stop_tokens"][: len(stop_tokens)] = stop_tokens
        record["num_biases"] = count = len(self.logit_bias)
        record["bias_tokens"][:count] = list(self.logit_bias)
        record["bias_values"][:count] = list(self.logit_bias.values())


_NUMBERS = [
    (name, np.float64 if kind is float else np.int64)
    for name, kind in get_type_hints(SamplingParams).items()
    if kind in (int, float) and name != "max_tokens"  # the kernels get num_steps instead
]
SAMPLING_DTYPE = np.dtype(
    [
        *_NUMBERS, ("num_alternatives", np.int64), ("num_biases", np.int64), ("bias_tokens", np.int64, MAX_BIASES),
        ("bias_values", np.float32, MAX_BIASES), ("num_stop_tokens", np.int64),
        ("stop_tokens", np.int64, MAX_STOP_TOKENS + 1),
    ],
    align=True,
)  # fmt: skip
"""SamplingParams as the kernels read them: each number by its name; num_alternatives is logprobs, or -1 for None."""
