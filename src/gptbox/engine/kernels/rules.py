"""From logits to a token. Each rule is a function of one row of logits (V,), which it changes in place.

A token that a rule removes gets minus infinity. The rules' order is transformers': penalties and biases, temperature,
top-k, top-p, min-p.
"""

from typing import Any

import numpy as np

from gptbox.kernel_cache import kernel
from gptbox.kernel_math import bits_of_float, exp, float_of_bits

_NEVER = np.float32(-np.inf)


@kernel(counted=False, exact=True)
def apply_repetition_penalty(logits: Any, seen: Any, penalty: float) -> None:
    """Keskar et al., CTRL, arXiv 1909.05858; as transformers does it, for tokens whose `seen` (V,) is not 0."""
    factor = np.float32(penalty)
    for i in range(logits.size):
        if seen[i]:
            logits[i] = logits[i] * factor if logits[i] < 0 else logits[i] / factor


@kernel(counted=False, exact=True)
def apply_presence_and_frequency(logits: Any, counts: Any, presence: float, frequency: float) -> None:
    """OpenAI's API reference, presence_penalty and frequency_penalty; counts (V,) of the text so far."""
    for i in range(logits.size):
        if counts[i]:
            logits[i] -= np.float32(presence + frequency * counts[i])


@kernel(counted=False, exact=True)
def apply_logit_bias(logits: Any, tokens: Any, biases: Any) -> None:
    """OpenAI's API reference, logit_bias."""
    for i in range(tokens.size):
        logits[tokens[i]] += biases[i]


@kernel(counted=False, exact=True)
def argmax(logits: Any) -> int:
    """The most probable token; of several the first."""
    best = 0
    for i in range(logits.size):
        if logits[i] > logits[best]:
            best = i
    return best


@kernel(counted=False, exact=True)
def apply_temperature(logits: Any, temperature: float) -> None:
    """Ackley, Hinton and Sejnowski, A Learning Algorithm for Boltzmann Machines, 1985."""
    # Down from the largest, so that the tiniest temperature makes minus infinities of the others and never a NaN.
    largest = logits[argmax(logits)]
    divisor = np.float32(max(temperature, 1e-30))
    for i in range(logits.size):
        logits[i] = (logits[i] - largest) / divisor


@kernel(counted=False, inline=True, exact=True)
def _ordered(x: Any) -> Any:
    """A float32 as an int32 that compares as it does."""
    bits = bits_of_float(x + np.float32(0))  # -0 is 0
    return bits if bits >= 0 else bits ^ np.int32(0x7FFFFFFF)


@kernel(counted=False, exact=True)
def apply_top_k(logits: Any, k: int) -> None:
    """Fan, Lewis and Dauphin, Hierarchical Neural Story Generation, arXiv 1805.04833. Ties with the k-th stay."""
    if k == 0 or k >= logits.size:
        return
    # The k-th largest by bisection of its bits: a look at all a bit, with nothing moved or sorted.
    low, high = -(2**31), 2**31 - 1  # at least k are at or above low, and fewer above high
    while low < high:
        middle = (low + high + 1) >> 1
        above = 0
        for i in range(logits.size):
            above += _ordered(logits[i]) >= middle
        if above >= k:
            low = middle
        else:
            high = middle - 1
    for i in range(logits.size):
        if _ordered(logits[i]) < low:
            logits[i] = _NEVER


@kernel(counted=False, exact=True)
def weigh(logits: Any, weights: Any) -> float:
    """Softmax but for its sum, which is returned: weights (V,), the most probable token's being 1."""
    largest = logits[argmax(logits)]
    total = 0.0
    for i in range(logits.size):
        weights[i] = exp(logits[i] - largest) if logits[i] > _NEVER else np.float32(0)
    for i in range(logits.size):
        total += weights[i]
    return total


@kernel(counted=False, exact=True)
def apply_top_p(logits: Any, p: float, weights: Any) -> None:
    """Holtzman et al., The Curious Case of Neural Text Degeneration, arXiv 1904.09751. At least one token stays.

    `weights` (V,) is room to work in.
    """
    if p >= 1:
        return
    wanted = p * weigh(logits, weights)
    # The smallest weight that stays, by bisection of its bits as in top-k: those at or above it reach p.
    low, high = np.int64(0), np.int64(bits_of_float(np.float32(1)))
    while low < high:
        middle = (low + high + 1) >> 1
        bound = float_of_bits(np.int32(middle))
        reached = 0.0
        for i in range(weights.size):
            if weights[i] >= bound:
                reached += weights[i]
        if reached >= wanted:
            low = middle
        else:
            high = middle - 1
    bound = float_of_bits(np.int32(low))
    reached = 0.0
    for i in range(weights.size):
        if weights[i] > bound:
            reached += weights[i]
    kept = 0
    for i in range(weights.size):
        # Of equally probable ones as many as are needed, the first ones first.
        if weights[i] > bound:
            kept += 1
        elif weights[i] == bound and (reached < wanted or (kept == 0 and reached == 0)):
            reached += weights[i]
            kept += 1
        else:
            logits[i] = _NEVER


@kernel(counted=False, exact=True)
def apply_min_p(logits: Any, p: float) -> None:
    """Nguyen et al., Turning Up the Heat: Min-p Sampling, arXiv 2407.01082."""
    if p <= 0:
        return
    bound = logits[argmax(logits)] + np.float32(np.log(p))
    for i in range(logits.size):
        if logits[i] < bound:
            logits[i] = _NEVER


@kernel(counted=False, exact=True)
def uniform(state: Any, i: int) -> float:
    """The next number in [0, 1) of the generator whose state is state[i].

    SplitMix64: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    state[i] += np.uint64(0x9E3779B97F4A7C15)
    z = state[i]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * 2.0**-53


@kernel(counted=False, exact=True)
def draw(logits: Any, weights: Any, number: float) -> int:
    """The token at `number`, which is in [0, 1), of the row's cumulative probabilities."""
    rest = number * weigh(logits, weights)
    token = 0
    for i in range(logits.size):
        if weights[i] > 0:
            token = i  # rounding may leave a rest after the last that can be drawn
            rest -= weights[i]
            if rest < 0:
                break
    return token


@kernel(counted=False, exact=True)
def log_probabilities(logits: Any, weights: Any, token: int, tokens: Any, values: Any) -> float:
    """That of `token`; the most probable `tokens` (k,) and their `values` (k,), the best first, are filled in.

    `weights` (V,) is room to work in.
    """
    normal = logits[argmax(logits)] + np.log(weigh(logits, weights))
    for j in range(tokens.size):
        best = -1
        for i in range(logits.size):
            # What follows the one before: less probable, or as probable and of a higher id.
            follows = j == 0 or logits[i] < logits[tokens[j - 1]] or (
                logits[i] == logits[tokens[j - 1]] and i > tokens[j - 1]
            )  # fmt: skip
            if follows and (best < 0 or logits[i] > logits[best]):
                best = i
        tokens[j] = best
        values[j] = logits[best] - normal if best >= 0 else _NEVER
        if best < 0:
            tokens[j] = tokens[j - 1]
    return logits[token] - normal
