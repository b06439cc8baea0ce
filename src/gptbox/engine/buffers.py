"""The arrays that decoding reads and writes beside the model: activations, per-slot sequence state, sampled tokens.

Shapes: C = n_embd, H query heads, K key and value heads, D = head_dim, V = vocab_size, M the MLP's width. A width that
a matrix product writes is padded to whole panels (`gptbox.engine.packing`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.packing import PANEL, padded
from gptbox.engine.sampling_params import MAX_ALTERNATIVES, MAX_BIASES, SamplingParams
from gptbox.models.config import ModelConfig
from gptbox.models.weights import Array

MAX_TOKENS = 512
"""Tokens per forward pass."""
MAX_STEPS = 256
"""Decoding steps per native call."""
MAX_DRAFT_TOKENS = 5
"""Tokens that the draft proposes per verification: `gptbox.engine.kernels.decode.decode_steps`."""


class Scratch(NamedTuple):
    """Activations of one forward pass over up to N = MAX_TOKENS tokens.

    Leading axis `threads`: one buffer per thread.
    """

    x: Array
    """(N, C): the residual stream."""
    normed: Array
    """(threads, N, C)."""
    qkv: Array
    """(N, (H + 2 K) D): queries, keys, values."""
    attention_output: Array
    """(N, H D)."""
    up: Array
    """(N, M), or (N, 2 M) for SwiGLU: the MLP before its activation."""
    mlp_hidden: Array
    """(N, M): the MLP after its activation."""
    scores: Array
    """(threads, 32 queries, context): attention scores of one head."""
    head_output: Array
    """(threads, 32 queries, 32): a panel of one head's attention output."""
    last_hidden: Array
    """(N, C): the rows of x that get logits."""
    logits: Array
    """(rows, V)."""
    probs: Array
    """(threads, 2, V): scratch memory of sampling; a row's logits before any processor."""
    step_inputs: NDArray[np.int64]
    """(threads, 4, N): id, slot and position of each token; indices of the tokens that get logits."""
    sync: NDArray[np.int64]
    """(4,): arrived and generation of the barrier; the interrupt; tokens per row of the step."""

    @classmethod
    def of(cls, config: ModelConfig, rows: int, threads: int = 1) -> "Scratch":
        """With logits of up to `rows` tokens per step."""
        c, width = config, padded(config.n_embd)
        mlp = padded(c.intermediate_size) * (1 if c.architecture == "gpt2" else 2)
        queries, context = 32, padded(c.context_length)

        def zeros(*shape: int) -> Array:
            return np.zeros(shape, np.float32)

        n = MAX_TOKENS
        return cls(
            x=zeros(n, width), normed=zeros(threads, n, width),
            attention_output=zeros(n, padded(c.n_head * c.head_dim)),
            qkv=zeros(n, padded((c.n_head + 2 * c.n_kv_head) * c.head_dim)), up=zeros(n, padded(mlp)),
            mlp_hidden=zeros(n, padded(c.intermediate_size)), scores=zeros(threads, queries, context),
            head_output=zeros(threads, queries, PANEL), last_hidden=zeros(n, width),
            logits=zeros(max(rows, 1 + MAX_DRAFT_TOKENS), padded(c.vocab_size)),
            probs=zeros(threads, 2, c.vocab_size), step_inputs=np.zeros((threads, 4, n), np.int64),
            sync=np.zeros(4, np.int64),
        )  # fmt: skip


class Pages(NamedTuple):
    """A cache's keys and values: see `gptbox.engine.kv_cache`."""

    memory: Array
    """(pages, float32s per page)."""
    table: NDArray[np.int64]
    """(slots, pages per context): the page of a slot's positions 0 to 31, 32 to 63, and so on."""


class Sequences(NamedTuple):
    """State of the sequence in each slot of a cache."""

    tokens: NDArray[np.int64]
    """(slots, context + 1): ids in the window; those beyond `lengths` have not been computed yet."""
    lengths: NDArray[np.int64]
    """(slots,): tokens in the cache; the same array as KVCache.lengths."""
    params: NDArray[np.float64]
    """(slots, 9): sampling parameters."""
    random: NDArray[np.uint64]
    """(slots,): random states."""
    seen: NDArray[np.int8]
    """(slots, V): whether prompt or generated text has the token; maintained only for a repetition penalty."""
    counts: Array
    """(slots, V): how often the generated text has the token; only for a presence or frequency penalty."""
    bias_tokens: NDArray[np.int64]
    """(slots, MAX_BIASES)."""
    bias_values: Array
    """(slots, MAX_BIASES)."""

    @classmethod
    def of(cls, config: ModelConfig, lengths: NDArray[np.int64]) -> "Sequences":
        slots, vocabulary = len(lengths), config.vocab_size
        return cls(
            np.zeros((slots, config.context_length + 1), np.int64), lengths, np.zeros((slots, 9)),
            np.zeros(slots, np.uint64), np.zeros((slots, vocabulary), np.int8),
            np.zeros((slots, vocabulary), np.float32), np.zeros((slots, MAX_BIASES), np.int64),
            np.zeros((slots, MAX_BIASES), np.float32),
        )  # fmt: skip

    def begin(self, slot: int, prompt: NDArray[np.integer], params: SamplingParams) -> None:
        """Start a sequence in a slot: set its parameters and random state, and reset what its penalties count."""
        p = params
        self.params[slot] = (
            p.temperature, p.top_k, p.top_p, p.min_p, p.repetition_penalty, p.presence_penalty, p.frequency_penalty,
            len(p.logit_bias), -1 if p.logprobs is None else p.logprobs,
        )  # fmt: skip
        self.random[slot] = p.state()
        if p.repetition_penalty != 1:
            self.seen[slot] = 0
            self.seen[slot, prompt] = 1
        if p.presence_penalty or p.frequency_penalty:
            self.counts[slot] = 0
        if p.logit_bias:
            self.bias_tokens[slot, : len(p.logit_bias)] = list(p.logit_bias)
            self.bias_values[slot, : len(p.logit_bias)] = list(p.logit_bias.values())


class SampledTokens(NamedTuple):
    """Output of the steps, by step and batch row; log-probabilities only for rows that request them."""

    tokens: NDArray[np.int64]
    """(steps, rows)."""
    logprobs: Array
    """(steps, rows)."""
    top_tokens: NDArray[np.int64]
    """(steps, rows, MAX_ALTERNATIVES)."""
    top_logprobs: Array
    """(steps, rows, MAX_ALTERNATIVES)."""

    @classmethod
    def of(cls, rows: int) -> "SampledTokens":
        shape = (MAX_STEPS, rows)
        return cls(
            np.zeros(shape, np.int64), np.zeros(shape, np.float32), np.zeros((*shape, MAX_ALTERNATIVES), np.int64),
            np.zeros((*shape, MAX_ALTERNATIVES), np.float32),
        )  # fmt: skip
