"""What steps read and write beside the model: activations, the sequences in the cache's slots, what was drawn.

Shapes: C = n_embd, H query heads, K key and value heads, D = head_dim, V = vocab_size, M the MLP's width.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.panels import PANEL, padded
from gptbox.engine.sampling import MOST_ALTERNATIVES, MOST_BIASES, SamplingParams
from gptbox.model_config import ModelConfig
from gptbox.weights import Array

MOST_TOKENS = 512
"""Tokens that go through together."""
MOST_STEPS = 256
"""At a stretch."""
MOST_AHEAD = 5
"""Tokens of a lone text that a draft writes before the model reads them: `gptbox.engine.kernels.steps.burst`."""


class Scratch(NamedTuple):
    """Activations of up to `MOST_TOKENS` tokens; where first is said, of each thread its own."""

    x: Array
    normed: Array
    """First of each thread."""
    qkv: Array
    mixed: Array
    up: Array
    hidden: Array
    scores: Array
    """Of one head's queries, first of each thread; as many at once as fit."""
    read: Array
    """What they read, first of each thread."""
    last: Array
    """Rows of x from which logits are wanted."""
    logits: Array
    """(rows, V filled up)."""
    weights: Array
    """(threads, 2, V): what sampling takes, and a row's logits before any rule."""
    plan: NDArray[np.int64]
    """(threads, 4, tokens): each token's id, slot and position, and where the rows' last tokens are."""
    meeting: NDArray[np.int64]
    """(4,): where threads wait for each other; whether to end, and the tokens of this step."""

    @classmethod
    def of(cls, config: ModelConfig, rows: int, threads: int = 1) -> "Scratch":
        """With logits of up to `rows` tokens at once."""
        c, width = config, padded(config.n_embd)
        mlp = padded(c.intermediate_size) * (1 if c.architecture == "gpt2" else 2)
        queries, context = 32, padded(c.context_length)

        def room(*shape: int) -> Array:
            return np.zeros(shape, np.float32)

        n = MOST_TOKENS
        return cls(
            x=room(n, width), normed=room(threads, n, width), mixed=room(n, padded(c.n_head * c.head_dim)),
            qkv=room(n, padded((c.n_head + 2 * c.n_kv_head) * c.head_dim)), up=room(n, padded(mlp)),
            hidden=room(n, padded(c.intermediate_size)), scores=room(threads, queries, context),
            read=room(threads, queries, PANEL), last=room(n, width),
            logits=room(max(rows, 1 + MOST_AHEAD), padded(c.vocab_size)),
            weights=room(threads, 2, c.vocab_size), plan=np.zeros((threads, 4, n), np.int64),
            meeting=np.zeros(4, np.int64),
        )  # fmt: skip


class Pages(NamedTuple):
    """A cache's keys and values: see `gptbox.engine.kv_cache`."""

    memory: Array
    """(pages, numbers a page)."""
    table: NDArray[np.int64]
    """(slots, pages a context): the page that has a slot's positions 0 to 31, 32 to 63, and so on."""


class Sequences(NamedTuple):
    """What a step needs to know of the sequence in each slot of a cache."""

    tokens: NDArray[np.int64]
    """(slots, context + 1): the window's ids; those from the cache's length on have not gone through the model yet."""
    lengths: NDArray[np.int64]
    """(slots,): the cache's own."""
    rules: NDArray[np.float64]
    """(slots, 9): the sampling parameters."""
    random: NDArray[np.uint64]
    """(slots,): random states."""
    seen: NDArray[np.int8]
    """(slots, V): whether prompt or text has a token; kept where a repetition penalty needs it."""
    counts: Array
    """(slots, V): how often the text has it; kept where a presence or frequency penalty needs it."""
    bias_tokens: NDArray[np.int64]
    bias_values: Array
    """Both (slots, MOST_BIASES)."""

    @classmethod
    def of(cls, config: ModelConfig, lengths: NDArray[np.int64]) -> "Sequences":
        slots, vocabulary = len(lengths), config.vocab_size
        return cls(
            np.zeros((slots, config.context_length + 1), np.int64), lengths, np.zeros((slots, 9)),
            np.zeros(slots, np.uint64), np.zeros((slots, vocabulary), np.int8),
            np.zeros((slots, vocabulary), np.float32), np.zeros((slots, MOST_BIASES), np.int64),
            np.zeros((slots, MOST_BIASES), np.float32),
        )  # fmt: skip

    def begin(self, slot: int, prompt: NDArray[np.integer], params: SamplingParams) -> None:
        """A new sequence: its rules, its random state, and what of its prompt they look at."""
        p = params
        self.rules[slot] = (
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


class Drawn(NamedTuple):
    """What came of the steps, by step and row; log-probabilities where a row asks for them."""

    tokens: NDArray[np.int64]
    logprobs: Array
    top_tokens: NDArray[np.int64]
    top_logprobs: Array
    """Both (steps, rows, MOST_ALTERNATIVES)."""

    @classmethod
    def of(cls, rows: int) -> "Drawn":
        shape = (MOST_STEPS, rows)
        return cls(
            np.zeros(shape, np.int64), np.zeros(shape, np.float32), np.zeros((*shape, MOST_ALTERNATIVES), np.int64),
            np.zeros((*shape, MOST_ALTERNATIVES), np.float32),
        )  # fmt: skip
