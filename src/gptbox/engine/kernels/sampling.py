"""Sampling: logits processors, and the choice of a token. Each processor changes one row of logits (V,) in place.

A removed token gets minus infinity. `sample` applies the constraint, then the processors in transformers' order:
penalties and biases, min_tokens, temperature, top-k, top-p, min-p.
"""

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.buffers import IntArray, Sequences
from gptbox.jit.cache import kernel
from gptbox.jit.math import bits_of_float, exp, float_of_bits
from gptbox.models.weights import Array

_NEG_INF = np.float32(-np.inf)


@kernel(nrt=False, fastmath=False)
def apply_constraint(logits: Array, transitions: NDArray[np.int8]) -> None:
    """Remove the tokens after which a text has no state: their `transitions` (V,) are -1."""
    for i in range(logits.size):
        logits[i] = _NEG_INF if transitions[i] < 0 else logits[i]


@kernel(nrt=False, fastmath=False)
def apply_repetition_penalty(logits: Array, seen: NDArray[np.int8], penalty: float) -> None:
    """Keskar et al., CTRL, arXiv 1909.05858; as in transformers, for tokens whose `seen` (V,) is not 0."""
    factor = np.float32(penalty)
    for i in range(logits.size):
        if seen[i]:
            logits[i] = logits[i] * factor if logits[i] < 0 else logits[i] / factor


@kernel(nrt=False, fastmath=False)
def apply_presence_and_frequency(logits: Array, counts: Array, presence: float, frequency: float) -> None:
    """OpenAI's API reference, presence_penalty and frequency_penalty.

    `counts` (V,) says how often each token was generated.
    """
    for i in range(logits.size):
        if counts[i]:
            logits[i] -= np.float32(presence + frequency * counts[i])


@kernel(nrt=False, fastmath=False)
def apply_logit_bias(logits: Array, tokens: IntArray, biases: Array) -> None:
    """OpenAI's API reference, logit_bias; `biases` (k,) are those of `tokens` (k,)."""
    for i in range(tokens.size):
        logits[tokens[i]] += biases[i]


@kernel(nrt=False, fastmath=False)
def apply_min_tokens(logits: Array, stop_tokens: IntArray) -> None:
    """Remove the `stop_tokens` (k,), as vLLM does while a text has fewer tokens than min_tokens."""
    for i in range(stop_tokens.size):
        logits[stop_tokens[i]] = _NEG_INF


@kernel(nrt=False, fastmath=False)
def argmax(logits: Array) -> int:
    """The most probable token; of several, the one with the lowest id."""
    best = 0
    for i in range(logits.size):
        if logits[i] > logits[best]:
            best = i
    return best


@kernel(nrt=False, fastmath=False)
def apply_temperature(logits: Array, temperature: float) -> None:
    """Ackley, Hinton and Sejnowski, A Learning Algorithm for Boltzmann Machines, 1985."""
    # Relative to the largest logit, so that a tiny temperature gives minus infinities and never NaN.
    largest = logits[argmax(logits)]
    divisor = np.float32(max(temperature, 1e-30))
    for i in range(logits.size):
        logits[i] = (logits[i] - largest) / divisor


@kernel(nrt=False, inline=True, fastmath=False)
def _sortable_bits(x: np.float32) -> np.int32:
    """Map a float32 to an int32 of the same order."""
    bits = bits_of_float(x + np.float32(0))  # -0 is 0
    return bits if bits >= 0 else bits ^ np.int32(0x7FFFFFFF)


@kernel(nrt=False, fastmath=False)
def apply_top_k(logits: Array, k: int) -> None:
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
def unnormalized_softmax(logits: Array, probs: Array) -> float:
    """Fill `probs` (V,) with exp(logits - max), and return their sum."""
    largest = logits[argmax(logits)]
    total = 0.0
    for i in range(logits.size):
        probs[i] = exp(logits[i] - largest) if logits[i] > _NEG_INF else np.float32(0)
    for i in range(logits.size):
        total += probs[i]
    return total


@kernel(nrt=False, fastmath=False)
def apply_top_p(logits: Array, p: float, probs: Array) -> None:
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
def apply_min_p(logits: Array, p: float) -> None:
    """Nguyen et al., Turning Up the Heat: Min-p Sampling, arXiv 2407.01082."""
    if p <= 0:
        return
    bound = logits[argmax(logits)] + np.float32(np.log(p))
    for i in range(logits.size):
        if logits[i] < bound:
            logits[i] = _NEG_INF


@kernel(nrt=False, fastmath=False)
def uniform(state: NDArray[np.uint64], i: int) -> float:
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
def multinomial(logits: Array, probs: Array, number: float) -> int:
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
def log_probabilities(logits: Array, probs: Array, token: int, tokens: IntArray, values: Array) -> float:
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


@kernel(nrt=False)
def sample(logits: Array, sequences: Sequences, slot: int, probs: Array) -> int:
    """The next token of a slot's sequence, by its sampling parameters; changes `logits` (V,) in place.

    Advances the slot's random state by one number, except at temperature 0. The counts are not updated: see
    `count_token`. `probs` (V,) is scratch memory.
    """
    params = sequences.params[slot]
    if sequences.transitions.shape[0]:
        apply_constraint(logits, sequences.transitions[sequences.states[slot]])
    if params.repetition_penalty != 1:
        apply_repetition_penalty(logits, sequences.seen[slot], params.repetition_penalty)
    if params.presence_penalty != 0 or params.frequency_penalty != 0:
        apply_presence_and_frequency(logits, sequences.counts[slot], params.presence_penalty, params.frequency_penalty)
    if params.num_biases:
        apply_logit_bias(logits, params.bias_tokens[: params.num_biases], params.bias_values[: params.num_biases])
    if sequences.num_generated[slot] < params.min_tokens:
        apply_min_tokens(logits, params.stop_tokens[: params.num_stop_tokens])
    if params.temperature == 0:
        return argmax(logits)
    apply_temperature(logits, params.temperature)
    apply_top_k(logits, params.top_k)
    apply_top_p(logits, params.top_p, probs)
    apply_min_p(logits, params.min_p)
    return multinomial(logits, probs, uniform(sequences.random, slot))


@kernel(nrt=False)
def advance_state(sequences: Sequences, slot: int, token: int) -> None:
    """Update the state of the slot's constraint for a generated token."""
    if sequences.transitions.shape[0]:
        # Below 0 if nothing that the constraint allows was left to sample.
        sequences.states[slot] = max(0, sequences.transitions[sequences.states[slot], token])


@kernel(nrt=False)
def count_token(sequences: Sequences, slot: int, token: int) -> None:
    """Count a generated token for the slot's constraint, penalties and min_tokens."""
    params = sequences.params[slot]
    advance_state(sequences, slot, token)
    sequences.num_generated[slot] += 1
    if params.repetition_penalty != 1:
        sequences.seen[slot, token] = 1
    if params.presence_penalty != 0 or params.frequency_penalty != 0:
        sequences.counts[slot, token] += 1
