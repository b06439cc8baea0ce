"""Sampling: logits processors, and the choice of a token. Each processor changes one row of logits (V,) in place.

A removed token gets minus infinity. Processors are applied in transformers' order: penalties and biases, temperature,
top-k, top-p, min-p.
"""

from typing import Any

import numpy as np

from gptbox.jit.cache import kernel
from gptbox.jit.math import bits_of_float, exp, float_of_bits

_NEG_INF = np.float32(-np.inf)


@kernel(nrt=False, fastmath=False)
def apply_repetition_penalty(logits: Any, seen: Any, penalty: float) -> None:
    """Keskar et al., CTRL, arXiv 1909.05858; as in transformers, for tokens whose `seen` (V,) is not 0."""
    factor = np.float32(penalty)
    for i in range(logits.size):
        if seen[i]:
            logits[i] = logits[i] * factor if logits[i] < 0 else logits[i] / factor


@kernel(nrt=False, fastmath=False)
def apply_presence_and_frequency(logits: Any, counts: Any, presence: float, frequency: float) -> None:
    """OpenAI's API reference, presence_penalty and frequency_penalty; `counts` (V,) are of the generated tokens."""
    for i in range(logits.size):
        if counts[i]:
            logits[i] -= np.float32(presence + frequency * counts[i])


@kernel(nrt=False, fastmath=False)
def apply_logit_bias(logits: Any, tokens: Any, biases: Any) -> None:
    """OpenAI's API reference, logit_bias."""
    for i in range(tokens.size):
        logits[tokens[i]] += biases[i]


@kernel(nrt=False, fastmath=False)
def argmax(logits: Any) -> int:
    """The most probable token; the first of several."""
    best = 0
    for i in range(logits.size):
        if logits[i] > logits[best]:
            best = i
    return best


@kernel(nrt=False, fastmath=False)
def apply_temperature(logits: Any, temperature: float) -> None:
    """Ackley, Hinton and Sejnowski, A Learning Algorithm for Boltzmann Machines, 1985."""
    # Relative to the largest logit, so that a tiny temperature gives minus infinities and never NaN.
    largest = logits[argmax(logits)]
    divisor = np.float32(max(temperature, 1e-30))
    for i in range(logits.size):
        logits[i] = (logits[i] - largest) / divisor


@kernel(nrt=False, inline=True, fastmath=False)
def _sortable_bits(x: Any) -> Any:
    """Map a float32 to an int32 of the same order."""
    bits = bits_of_float(x + np.float32(0))  # -0 is 0
    return bits if bits >= 0 else bits ^ np.int32(0x7FFFFFFF)


@kernel(nrt=False, fastmath=False)
def apply_top_k(logits: Any, k: int) -> None:
    """Fan, Lewis and Dauphin, Hierarchical Neural Story Generation, arXiv 1805.04833. Ties with the k-th token stay."""
    if k == 0 or k >= logits.size:
        return
    # Find the k-th largest by bisection over its bits: one pass per bit, without sorting.
    low, high = -(2**31), 2**31 - 1  # at least k logits are >= low, and fewer than k are > high
    while low < high:
        middle = (low + high + 1) >> 1
        count = 0
        for i in range(logits.size):
            count += _sortable_bits(logits[i]) >= middle
        if count >= k:
            low = middle
        else:
            high = middle - 1
    for i in range(logits.size):
        if _sortable_bits(logits[i]) < low:
            logits[i] = _NEG_INF


@kernel(nrt=False, fastmath=False)
def unnormalized_softmax(logits: Any, probs: Any) -> float:
    """Fill `probs` (V,) with exp(logits - max), and return their sum."""
    largest = logits[argmax(logits)]
    total = 0.0
    for i in range(logits.size):
        probs[i] = exp(logits[i] - largest) if logits[i] > _NEG_INF else np.float32(0)
    for i in range(logits.size):
        total += probs[i]
    return total


@kernel(nrt=False, fastmath=False)
def apply_top_p(logits: Any, p: float, probs: Any) -> None:
    """Holtzman et al., The Curious Case of Neural Text Degeneration, arXiv 1904.09751. At least one token stays.

    `probs` (V,) is scratch memory.
    """
    if p >= 1:
        return
    target = p * unnormalized_softmax(logits, probs)
    # Find the smallest probability that stays, by bisection over its bits as in top-k: those >= it sum to p or more.
    low, high = np.int64(0), np.int64(bits_of_float(np.float32(1)))
    while low < high:
        middle = (low + high + 1) >> 1
        bound = float_of_bits(np.int32(middle))
        reached = 0.0
        for i in range(probs.size):
            if probs[i] >= bound:
                reached += probs[i]
        if reached >= target:
            low = middle
        else:
            high = middle - 1
    bound = float_of_bits(np.int32(low))
    reached = 0.0
    for i in range(probs.size):
        if probs[i] > bound:
            reached += probs[i]
    kept = 0
    for i in range(probs.size):
        # Of equally probable tokens as many as needed, lowest ids first.
        if probs[i] > bound:
            kept += 1
        elif probs[i] == bound and (reached < target or (kept == 0 and reached == 0)):
            reached += probs[i]
            kept += 1
        else:
            logits[i] = _NEG_INF


@kernel(nrt=False, fastmath=False)
def apply_min_p(logits: Any, p: float) -> None:
    """Nguyen et al., Turning Up the Heat: Min-p Sampling, arXiv 2407.01082."""
    if p <= 0:
        return
    bound = logits[argmax(logits)] + np.float32(np.log(p))
    for i in range(logits.size):
        if logits[i] < bound:
            logits[i] = _NEG_INF


@kernel(nrt=False, fastmath=False)
def uniform(state: Any, i: int) -> float:
    """The next number in [0, 1) from generator state[i].

    SplitMix64: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    state[i] += np.uint64(0x9E3779B97F4A7C15)
    z = state[i]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * 2.0**-53


@kernel(nrt=False, fastmath=False)
def multinomial(logits: Any, probs: Any, number: float) -> int:
    """Sample by inverse transform: the token whose cumulative probability first exceeds `number`, in [0, 1).

    `probs` (V,) is scratch memory.
    """
    rest = number * unnormalized_softmax(logits, probs)
    token = 0
    for i in range(logits.size):
        if probs[i] > 0:
            token = i  # rounding may leave a rest after the last possible token
            rest -= probs[i]
            if rest < 0:
                break
    return token


@kernel(nrt=False, fastmath=False)
def log_probabilities(logits: Any, probs: Any, token: int, tokens: Any, values: Any) -> float:
    """The log-probability of `token`; also fills the k most probable `tokens` (k,) and their `values` (k,), best first.

    `probs` (V,) is scratch memory.
    """
    log_sum = logits[argmax(logits)] + np.log(unnormalized_softmax(logits, probs))
    for j in range(tokens.size):
        best = -1
        for i in range(logits.size):
            # After the previous one in rank: less probable, or equally probable with a higher id.
            ranks_after = j == 0 or logits[i] < logits[tokens[j - 1]] or (
                logits[i] == logits[tokens[j - 1]] and i > tokens[j - 1]
            )  # fmt: skip
            if ranks_after and (best < 0 or logits[i] > logits[best]):
                best = i
        tokens[j] = best
        values[j] = logits[best] - log_sum if best >= 0 else _NEG_INF
        if best < 0:
            tokens[j] = tokens[j - 1]
    return logits[token] - log_sum
