"""Decoding steps of a batch: run each row's new tokens through the model and sample its next token.

One call runs many steps without the GIL: a step of a small model takes less time than Python needs to visit each row.
"""

import numpy as np

from gptbox.engine.abi import DecodeArguments
from gptbox.engine.buffers import IntArray, Pages, SampledTokens, Scratch, Sequences
from gptbox.engine.kernels.barrier import barrier
from gptbox.engine.kernels.forward import blocks, head
from gptbox.engine.kernels.sampling import advance_state, count_token, log_probabilities, sample
from gptbox.engine.packed_model import PackedModel
from gptbox.jit.cache import kernel
from gptbox.jit.pointers import address, atomic_load

# np.intp, because Numba specialises on literal Python ints.
_ZERO, _ONE = np.intp(0), np.intp(1)


@kernel(nrt=False)
def _sample_row(
    model: PackedModel, scratch: Scratch, sequences: Sequences, sampled: SampledTokens, i: int, slot: int,
    position: int, step: int, r: int, rank: int,
) -> int:  # fmt: skip
    """Sample batch row r's next token from row i of the logits; record it at `position` of the slot and at `step`."""
    logits, probs, raw_logits = scratch.logits[i, : model.vocab_size], scratch.probs[rank, 0], scratch.probs[rank, 1]
    num_alternatives = sequences.params[slot].num_alternatives
    if num_alternatives >= 0:
        for j in range(model.vocab_size):
            raw_logits[j] = logits[j]  # log-probabilities are those before penalties, temperature and truncation
    token = sample(logits, sequences, slot, probs)
    count_token(sequences, slot, token)
    if num_alternatives >= 0:
        sampled.logprobs[step, r] = log_probabilities(
            raw_logits, probs, token, sampled.top_tokens[step, r, :num_alternatives],
            sampled.top_logprobs[step, r, :num_alternatives],
        )  # fmt: skip
    sampled.tokens[step, r] = token
    sequences.tokens[slot, position] = token
    return token


@kernel(nrt=False)
def _draft_tokens(
    draft: PackedModel, cache: Pages, scratch: Scratch, sequences: Sequences, slot: int, num_tokens: int, rank: int,
    size: int,
) -> None:  # fmt: skip
    """Let `draft` propose `num_tokens` tokens after the slot's one token that is not in the cache yet.

    It attends to the model's own keys and values, and writes its own for the drafted tokens; verification overwrites
    them. Each token is sampled with the random number that will sample the model's own, so that a good draft agrees
    with it at any temperature.
    """
    ids, slots, positions = (
        scratch.step_inputs[rank, 0, :1], scratch.step_inputs[rank, 1, :1], scratch.step_inputs[rank, 2, :1],
    )  # fmt: skip
    length, random, state = sequences.lengths[slot], sequences.random[slot], sequences.states[slot]
    for t in range(num_tokens):
        ids[0], slots[0], positions[0] = sequences.tokens[slot, length + t], slot, length + t
        blocks(draft, cache, ids, slots, positions, scratch, rank, size)
        head(draft, address(scratch.x), scratch.x.shape[1], _ONE, scratch, rank, size)
        if rank == 0:
            token = sample(scratch.logits[0, : draft.vocab_size], sequences, slot, scratch.probs[0, 0])
            sequences.tokens[slot, length + t + 1] = token
            advance_state(sequences, slot, token)
            if t == num_tokens - 1:
                sequences.random[slot], sequences.states[slot] = random, state
        barrier(scratch.sync, size)


@kernel(nrt=False)
def decode_steps(
    arguments: DecodeArguments, slots: IntArray, num_new_tokens: IntArray, do_sample: IntArray, begin: int, end: int,
    num_steps: int, num_draft_tokens: int, rank: int, size: int,
) -> int:  # fmt: skip
    """Run up to `num_steps` steps of the batch rows from begin to end; returns how many were run.

    `slots`, `num_new_tokens` and `do_sample` are (rows,). In the first step row r computes its next num_new_tokens[r]
    tokens, and samples one if do_sample[r]. In every further step each row decodes one token, so for more than one step
    all rows must sample. Ends early, after a whole step, once interrupt[0] is not 0. Run by `size` threads at
    once, each with its `rank`.

    A row that is alone in this range is decoded speculatively (Leviathan et al., arXiv 2211.17192): `draft`, the same
    weights in 8 bits (Zhang et al., Draft & Verify, arXiv 2309.08168), proposes up to `num_draft_tokens` tokens, and
    one pass of the model verifies them. Decoding one sequence is memory-bound: verifying five tokens reads the weights
    once, like decoding one. Each token is sampled from the model's own logits with its own random number, so that the
    output is bit-identical to decoding without a draft.
    """
    model, cache, scratch, sequences = arguments.model, arguments.pages, arguments.scratch, arguments.sequences
    ids, token_slots, positions, logits_indices = (
        scratch.step_inputs[rank, 0], scratch.step_inputs[rank, 1], scratch.step_inputs[rank, 2],
        scratch.step_inputs[rank, 3],
    )  # fmt: skip
    speculative = end - begin == 1 and do_sample[begin] != 0
    step = 0
    while step < num_steps:
        n, num_logits, num_drafted = 0, 0, 0
        if speculative and (step > 0 or num_new_tokens[begin] == 1):
            num_drafted = min(num_draft_tokens, num_steps - step - 1)
            _draft_tokens(arguments.draft, cache, scratch, sequences, slots[begin], num_drafted, rank, size)
        for r in range(begin, end):
            slot = slots[r]
            length = sequences.lengths[slot]
            for t in range((num_new_tokens[r] if step == 0 else 1) + num_drafted):
                ids[n], token_slots[n], positions[n] = sequences.tokens[slot, length + t], slot, length + t
                n += 1
            if do_sample[r]:
                for t in range(n - 1 - num_drafted, n):
                    logits_indices[num_logits] = t
                    num_logits += 1
        blocks(model, cache, ids[:n], token_slots[:n], positions[:n], scratch, rank, size)
        if rank == 0:
            for i in range(num_logits):
                for j in range(model.n_embd):
                    scratch.last_hidden[i, j] = scratch.x[logits_indices[i], j]
        barrier(scratch.sync, size)
        if num_logits:
            head(model, address(scratch.last_hidden), scratch.last_hidden.shape[1], num_logits, scratch, rank, size)
        num_generated = 1
        if speculative and rank == 0:
            tokens = sequences.tokens[slots[begin]]
            position = sequences.lengths[slots[begin]] + (num_new_tokens[begin] if step == 0 else 1)
            num_generated = 0
            accepted = True
            while accepted:
                drafted = tokens[position + num_generated]
                token = _sample_row(model, scratch, sequences, arguments.sampled, num_generated, slots[begin],
                                    position + num_generated, step + num_generated, begin, rank)  # fmt: skip
                accepted = num_generated < num_drafted and token == drafted
                num_generated += 1
        elif not speculative:
            i = 0
            for r in range(begin, end):
                if do_sample[r]:
                    if i % size == rank:
                        position = sequences.lengths[slots[r]] + (num_new_tokens[r] if step == 0 else 1)
                        _sample_row(model, scratch, sequences, arguments.sampled, i, slots[r], position, step, r, rank)
                    i += 1
        barrier(scratch.sync, size)
        if rank == 0:
            for r in range(begin, end):
                sequences.lengths[slots[r]] += (num_new_tokens[r] if step == 0 else 1) + num_generated - 1
            scratch.sync[2], scratch.sync[3] = atomic_load(address(arguments.interrupt)), num_generated
        barrier(scratch.sync, size)
        step += scratch.sync[3]
        if scratch.sync[2]:
            break
    return step


@kernel(nrt=False)
def score(arguments: DecodeArguments, slot: int, num_tokens: int, num_alternatives: int) -> None:
    """Compute a slot's next `num_tokens` tokens, and the log-probability of the token that follows each of them.

    Writes log-probabilities and the `num_alternatives` most probable tokens to row 0 of `sampled`, one token per step.
    """
    model, scratch, sequences, sampled = arguments.model, arguments.scratch, arguments.sequences, arguments.sampled
    ids, slots, positions = (
        scratch.step_inputs[0, 0, :num_tokens], scratch.step_inputs[0, 1, :num_tokens],
        scratch.step_inputs[0, 2, :num_tokens],
    )  # fmt: skip
    length = sequences.lengths[slot]
    for t in range(num_tokens):
        ids[t], slots[t], positions[t] = sequences.tokens[slot, length + t], slot, length + t
    blocks(model, arguments.pages, ids, slots, positions, scratch, _ZERO, _ONE)
    # In chunks of as many rows as scratch.logits has.
    for first in range(0, num_tokens, scratch.logits.shape[0]):
        rows = min(num_tokens - first, scratch.logits.shape[0])
        head(model, address(scratch.x) + 4 * first * scratch.x.shape[1], scratch.x.shape[1], rows, scratch, _ZERO,
             _ONE)  # fmt: skip
        for i in range(rows):
            sampled.logprobs[first + i, 0] = log_probabilities(
                scratch.logits[i, : model.vocab_size], scratch.probs[0, 0],
                sequences.tokens[slot, length + first + i + 1], sampled.top_tokens[first + i, 0, :num_alternatives],
                sampled.top_logprobs[first + i, 0, :num_alternatives],
            )  # fmt: skip
    sequences.lengths[slot] += num_tokens


@kernel(nrt=False)
def forward(model: PackedModel, cache: Pages, scratch: Scratch, num_tokens: int) -> None:
    """Fill scratch.logits for `num_tokens` tokens, whose ids, slots and positions scratch.step_inputs[0] holds."""
    blocks(
        model, cache, scratch.step_inputs[0, 0, :num_tokens], scratch.step_inputs[0, 1, :num_tokens],
        scratch.step_inputs[0, 2, :num_tokens], scratch, _ZERO, _ONE,
    )  # fmt: skip
    head(model, address(scratch.x), scratch.x.shape[1], num_tokens, scratch, _ZERO, _ONE)
