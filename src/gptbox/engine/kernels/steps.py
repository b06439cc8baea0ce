"""Steps of a batch: each row's new tokens go through the model, and the next one is drawn.

Several steps at a stretch where nothing changes in between, without Python's lock: what a step of a small model takes
is less than what Python takes to look at every row.
"""

from typing import Any

import numpy as np

from gptbox.engine.kernels.forward import blocks, head
from gptbox.engine.kernels.meeting import barrier
from gptbox.engine.kernels.rules import (
    apply_logit_bias,
    apply_min_p,
    apply_presence_and_frequency,
    apply_repetition_penalty,
    apply_temperature,
    apply_top_k,
    apply_top_p,
    argmax,
    draw,
    log_probabilities,
    uniform,
)
from gptbox.kernel_cache import kernel
from gptbox.kernel_memory import address, atomic_load

# Not Python's integers: for each value of those code would be compiled apart.
_FIRST, _ALONE = np.intp(0), np.intp(1)
# Columns of Sequences.rules.
_TEMPERATURE, _TOP_K, _TOP_P, _MIN_P, _REPETITION, _PRESENCE, _FREQUENCY, _BIASES, _LOGPROBS = range(9)


@kernel(counted=False)
def sample(logits: Any, sequences: Any, slot: int, weights: Any) -> int:
    """The next token of a slot's sequence, by its rules; one random number is taken, or none at temperature 0.

    What the rules know of the sequence is left as it is: see `note`.
    """
    rules = sequences.rules[slot]
    if rules[_REPETITION] != 1:
        apply_repetition_penalty(logits, sequences.seen[slot], rules[_REPETITION])
    if rules[_PRESENCE] != 0 or rules[_FREQUENCY] != 0:
        apply_presence_and_frequency(logits, sequences.counts[slot], rules[_PRESENCE], rules[_FREQUENCY])
    biases = int(rules[_BIASES])
    if biases:
        apply_logit_bias(logits, sequences.bias_tokens[slot, :biases], sequences.bias_values[slot, :biases])
    if rules[_TEMPERATURE] == 0:
        return argmax(logits)
    apply_temperature(logits, rules[_TEMPERATURE])
    apply_top_k(logits, int(rules[_TOP_K]))
    apply_top_p(logits, rules[_TOP_P], weights)
    apply_min_p(logits, rules[_MIN_P])
    return draw(logits, weights, uniform(sequences.random, slot))


@kernel(counted=False)
def note(sequences: Any, slot: int, token: int) -> None:
    """Let a slot's rules know of a token that its sequence goes on with."""
    rules = sequences.rules[slot]
    if rules[_REPETITION] != 1:
        sequences.seen[slot, token] = 1
    if rules[_PRESENCE] != 0 or rules[_FREQUENCY] != 0:
        sequences.counts[slot, token] += 1


@kernel(counted=False)
def _draw(net: Any, s: Any, sequences: Any, drawn: Any, i: int, slot: int, at: int, step: int, r: int,
          rank: int) -> int:  # fmt: skip
    """The next token of row r, from row i of the logits: it becomes the text's at place `at`, and the one of `step`."""
    logits, weights, before = s.logits[i, : net.vocab_size], s.weights[rank, 0], s.weights[rank, 1]
    alternatives = int(sequences.rules[slot, _LOGPROBS])
    if alternatives >= 0:
        for j in range(net.vocab_size):
            before[j] = logits[j]  # what the model itself says, before any rule
    token = sample(logits, sequences, slot, weights)
    note(sequences, slot, token)
    if alternatives >= 0:
        drawn.logprobs[step, r] = log_probabilities(
            before, weights, token, drawn.top_tokens[step, r, :alternatives],
            drawn.top_logprobs[step, r, :alternatives],
        )  # fmt: skip
    drawn.tokens[step, r] = token
    sequences.tokens[slot, at] = token
    return token


@kernel(counted=False)
def _write_ahead(draft: Any, cache: Any, s: Any, sequences: Any, slot: int, count: int, rank: int, size: int) -> None:
    """Let `draft` write what it expects after the one token of a slot that has not gone through the model yet.

    It reads the model's own keys and values, and leaves its own for these tokens, until the model's replace them. Each
    token is drawn with the random number that will draw the model's own.
    """
    ids, places, positions = s.plan[rank, 0, :1], s.plan[rank, 1, :1], s.plan[rank, 2, :1]
    length, random = sequences.lengths[slot], sequences.random[slot]
    for t in range(count):
        ids[0], places[0], positions[0] = sequences.tokens[slot, length + t], slot, length + t
        blocks(draft, cache, ids, places, positions, s, rank, size)
        head(draft, address(s.x), s.x.shape[1], _ALONE, s, rank, size)
        if rank == 0:
            token = sample(s.logits[0, : draft.vocab_size], sequences, slot, s.weights[0, 0])
            sequences.tokens[slot, length + t + 1] = token
            if t == count - 1:
                sequences.random[slot] = random
        barrier(s.meeting, size)


@kernel(counted=False)
def burst(
    net: Any, draft: Any, cache: Any, s: Any, sequences: Any, drawn: Any, interrupt: Any, slots: Any,
    fresh: Any, drawing: Any, begin: int, end: int, steps: int, ahead: int, rank: int, size: int,
) -> int:  # fmt: skip
    """Up to `steps` steps of the rows from begin to end, of which `slots` has the slots; how many were made.

    In the first step row r takes its fresh[r] next tokens, and draws one where drawing[r]; after it all rows decode, so
    that for more than one step all must draw. Ends early, after a whole step, once interrupt[0] is not 0. Run by `size`
    threads at once.

    A row that is alone makes several steps in one, with up to `ahead` tokens that `draft` has written: speculative
    decoding (Leviathan et al., arXiv 2211.17192) by the model's own weights in fewer bits (Zhang et al., Draft &
    Verify, arXiv 2309.08168). One token has to read all weights, and so have four: what a lone text waits for is
    memory. Each token is drawn from the model's own logits, by its rules and its random number, as if nothing had been
    written ahead; as long as it is what the draft has, the next one's logits are there already. The text is the same,
    to the bit.
    """
    ids, places, positions, last = s.plan[rank, 0], s.plan[rank, 1], s.plan[rank, 2], s.plan[rank, 3]
    alone = end - begin == 1 and drawing[begin] != 0
    step = 0
    while step < steps:
        n, wanted, written = 0, 0, 0
        if alone and (step > 0 or fresh[begin] == 1):
            written = min(ahead, steps - step - 1)
            _write_ahead(draft, cache, s, sequences, slots[begin], written, rank, size)
        for r in range(begin, end):
            slot = slots[r]
            length = sequences.lengths[slot]
            for t in range((fresh[r] if step == 0 else 1) + written):
                ids[n], places[n], positions[n] = sequences.tokens[slot, length + t], slot, length + t
                n += 1
            if drawing[r]:
                for t in range(n - 1 - written, n):
                    last[wanted] = t
                    wanted += 1
        blocks(net, cache, ids[:n], places[:n], positions[:n], s, rank, size)
        if rank == 0:
            for i in range(wanted):
                for j in range(net.n_embd):
                    s.last[i, j] = s.x[last[i], j]
        barrier(s.meeting, size)
        if wanted:
            head(net, address(s.last), s.last.shape[1], wanted, s, rank, size)
        made = 1
        if alone and rank == 0:
            tokens = sequences.tokens[slots[begin]]
            at = sequences.lengths[slots[begin]] + (fresh[begin] if step == 0 else 1)
            made = 0
            right = True
            while right:
                expected = tokens[at + made]
                token = _draw(net, s, sequences, drawn, made, slots[begin], at + made, step + made, begin, rank)
                right = made < written and token == expected
                made += 1
        elif not alone:
            i = 0
            for r in range(begin, end):
                if drawing[r]:
                    if i % size == rank:
                        at = sequences.lengths[slots[r]] + (fresh[r] if step == 0 else 1)
                        _draw(net, s, sequences, drawn, i, slots[r], at, step, r, rank)
                    i += 1
        barrier(s.meeting, size)
        if rank == 0:
            for r in range(begin, end):
                sequences.lengths[slots[r]] += (fresh[r] if step == 0 else 1) + made - 1
            s.meeting[2], s.meeting[3] = atomic_load(address(interrupt)), made
        barrier(s.meeting, size)
        step += s.meeting[3]
        if s.meeting[2]:
            break
    return step


@kernel(counted=False)
def score(net: Any, cache: Any, s: Any, sequences: Any, drawn: Any, slot: int, count: int,
          alternatives: int) -> None:  # fmt: skip
    """Let the next `count` tokens of a slot through the model, and tell of each how probable the token after it was.

    Row 0 of `drawn` gets the log-probabilities, a token a step.
    """
    ids, places, positions = s.plan[0, 0, :count], s.plan[0, 1, :count], s.plan[0, 2, :count]
    length = sequences.lengths[slot]
    for t in range(count):
        ids[t], places[t], positions[t] = sequences.tokens[slot, length + t], slot, length + t
    blocks(net, cache, ids, places, positions, s, _FIRST, _ALONE)
    # As many rows of logits at a time as there is room for.
    for first in range(0, count, s.logits.shape[0]):
        rows = min(count - first, s.logits.shape[0])
        head(net, address(s.x) + 4 * first * s.x.shape[1], s.x.shape[1], rows, s, _FIRST, _ALONE)
        for i in range(rows):
            drawn.logprobs[first + i, 0] = log_probabilities(
                s.logits[i, : net.vocab_size], s.weights[0, 0], sequences.tokens[slot, length + first + i + 1],
                drawn.top_tokens[first + i, 0, :alternatives], drawn.top_logprobs[first + i, 0, :alternatives],
            )  # fmt: skip
    sequences.lengths[slot] += count


@kernel(counted=False)
def forward(net: Any, cache: Any, s: Any, count: int) -> None:
    """s.logits of the `count` tokens of which s.plan has the ids, slots and positions."""
    blocks(net, cache, s.plan[0, 0, :count], s.plan[0, 1, :count], s.plan[0, 2, :count], s, _FIRST, _ALONE)
    head(net, address(s.x), s.x.shape[1], count, s, _FIRST, _ALONE)
