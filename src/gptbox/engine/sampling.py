"""From logits to a token. Each rule is a pure function logits -> logits over one row of shape (V,)."""

from dataclasses import dataclass

import numpy as np

from gptbox.errors import EngineError
from gptbox.weights import Array


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
    seed: int | None = None
    """The same seed, prompt and model give the same tokens; None takes a fresh random one."""

    def __post_init__(self) -> None:
        if self.max_tokens < 0:
            raise EngineError(f"max_tokens is {self.max_tokens}; it must be 0 or more.")
        if not 0 <= self.temperature < float("inf"):
            raise EngineError(f"temperature is {self.temperature}; it must be 0 or more.")
        if self.top_k < 0:
            raise EngineError(f"top_k is {self.top_k}; it must be 0 (off) or more.")
        if not 0 <= self.top_p <= 1:
            raise EngineError(f"top_p is {self.top_p}; it must be between 0 and 1.")

    def random(self) -> np.random.Generator:
        """The random state of one sequence."""
        return np.random.default_rng(None if self.seed is None else self.seed % 2**64)


def apply_temperature(logits: Array, temperature: float) -> Array:
    """Ackley, Hinton and Sejnowski, A Learning Algorithm for Boltzmann Machines, 1985."""
    if temperature == 1:
        return logits
    # Down from the largest, so that the tiniest temperature makes minus infinities of the others and never a NaN.
    with np.errstate(over="ignore"):
        result: Array = (logits - logits.max()) / np.float32(max(temperature, 1e-30))
    return result


def apply_top_k(logits: Array, k: int) -> Array:
    """Fan, Lewis and Dauphin, Hierarchical Neural Story Generation, arXiv 1805.04833. Ties with the k-th stay."""
    if k == 0 or k >= logits.shape[-1]:
        return logits
    threshold = np.partition(logits, -k)[-k]
    return np.where(logits < threshold, np.float32(-np.inf), logits)


def apply_top_p(logits: Array, p: float) -> Array:
    """Holtzman et al., The Curious Case of Neural Text Degeneration, arXiv 1904.09751. At least one token stays."""
    if p >= 1:
        return logits
    order = np.argsort(-logits, kind="stable")
    cumulative = np.cumsum(probabilities(logits)[order])
    # A token goes when those before it already reach p.
    kept = 1 + int(np.searchsorted(cumulative, p))
    result = np.full_like(logits, -np.inf)
    result[order[:kept]] = logits[order[:kept]]
    return result


def probabilities(logits: Array) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Softmax of one row, in double precision: the sum must be 1 to more digits than a random number has."""
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    result: np.ndarray[tuple[int], np.dtype[np.float64]] = shifted / shifted.sum()
    return result


def sample(logits: Array, params: SamplingParams, random: np.random.Generator) -> int:
    """The next token for one row of logits (V,). Takes one random number, or none where temperature is 0."""
    if params.temperature == 0:
        return int(logits.argmax())
    logits = apply_temperature(logits, params.temperature)
    logits = apply_top_k(logits, params.top_k)
    logits = apply_top_p(logits, params.top_p)
    cumulative = np.cumsum(probabilities(logits))
    # Rounding may leave the last sum below the random number; searching below the last kept token cannot overshoot.
    token = int(np.searchsorted(cumulative, random.random() * cumulative[-1], side="right"))
    return min(token, int(np.flatnonzero(np.isfinite(logits))[-1]))
