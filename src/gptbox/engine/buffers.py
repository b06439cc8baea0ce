"""The arrays that decoding reads and writes, except weights: activations, per-slot sequence state, sampled tokens.

An array's annotation has its shape, a word per axis, by which `gptbox.engine.abi` passes it to compiled code.
Shapes: C = n_embd, H query heads, K key and value heads, D = head_dim, V = vocab_size, M the MLP's width. The last axis
of a matrix product's output is padded to whole panels (`gptbox.engine.packing`).
"""

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.packing import PANEL, padded
from gptbox.engine.sampling_params import MAX_ALTERNATIVES, SAMPLING_DTYPE, SamplingParams
from gptbox.models.config import ModelConfig
from gptbox.models.weights import Array
from gptbox.tokenizers.utf8 import Utf8Constraint

IntArray = NDArray[np.int64]
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

    x: Annotated[Array, "N C"]
    """The residual stream."""
    normed: Annotated[Array, "threads N C"]
    qkv: Annotated[Array, "N (H+2K)D"]
    """Queries, keys, values."""
    attention_output: Annotated[Array, "N HD"]
    up: Annotated[Array, "N M"]
    """The MLP before its activation; 2 M wide for SwiGLU."""
    mlp_hidden: Annotated[Array, "N M"]
    """The MLP after its activation."""
    scores: Annotated[Array, "threads queries context"]
    """Attention scores of one head, for up to 32 queries."""
    head_output: Annotated[Array, "threads queries 32"]
    """A panel of one head's attention output."""
    last_hidden: Annotated[Array, "N C"]
    """The rows of x that get logits."""
    logits: Annotated[Array, "rows V"]
    probs: Annotated[Array, "threads 2 V"]
    """Scratch memory for sampling; a copy of a row's logits before any processor."""
    step_inputs: Annotated[IntArray, "threads 4 N"]
    """Id, slot and position of each token; indices of the tokens that get logits."""
    sync: Annotated[IntArray, "4"]
    """The barrier's arrived and generation; the current step's interrupt and number of tokens per row."""

    @classmethod
    def of(cls, config: ModelConfig, rows: int, threads: int = 1) -> "Scratch":
        """With room for the logits of up to `rows` tokens per step."""
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

    memory: Annotated[Array, "pages floats"]
    table: Annotated[IntArray, "slots pages_per_context"]
    """The page of a slot's positions 0 to 31, 32 to 63, and so on."""


class Sequences(NamedTuple):
    """State of the sequence in each slot of a cache."""

    tokens: Annotated[IntArray, "slots context+1"]
    """Ids in the window; those beyond `lengths` have not been computed yet."""
    lengths: Annotated[IntArray, "slots"]
    """Tokens in the cache; the same array as KVCache.lengths."""
    params: Annotated[NDArray[np.void], "slots", SAMPLING_DTYPE]
    """Sampling parameters."""
    random: Annotated[NDArray[np.uint64], "slots"]
    """Random states."""
    num_generated: Annotated[IntArray, "slots"]
    """Tokens generated so far."""
    seen: Annotated[NDArray[np.int8], "slots V"]
    """Whether prompt or generated text has the token; maintained only for a repetition penalty."""
    counts: Annotated[Array, "slots V"]
    """How often the generated text has the token; maintained only for a presence or frequency penalty."""
    transitions: Annotated[NDArray[np.int8], "states V"]
    """Utf8Constraint.transitions; empty without a constraint."""
    states: Annotated[IntArray, "slots"]
    """The constraint's state, a row of `transitions`."""

    @classmethod
    def of(cls, config: ModelConfig, lengths: IntArray, constraint: Utf8Constraint | None = None) -> "Sequences":
        slots, vocabulary = len(lengths), config.vocab_size
        transitions = np.zeros((0, 0), np.int8) if constraint is None else constraint.padded(vocabulary)
        return cls(
            np.zeros((slots, config.context_length + 1), np.int64), lengths, np.zeros(slots, SAMPLING_DTYPE),
            np.zeros(slots, np.uint64), np.zeros(slots, np.int64), np.zeros((slots, vocabulary), np.int8),
            np.zeros((slots, vocabulary), np.float32), transitions, np.zeros(slots, np.int64),
        )  # fmt: skip

    def begin(self, slot: int, prompt: NDArray[np.integer], params: SamplingParams, state: int = 0) -> None:
        """Start a sequence in a slot: set its parameters, random state and constraint's state, and reset its counts."""
        self.states[slot] = state
        params.fill(self.params[slot])
        self.random[slot] = params.state()
        self.num_generated[slot] = 0
        if params.repetition_penalty != 1:
            self.seen[slot] = 0
            self.seen[slot, prompt] = 1
        if params.presence_penalty or params.frequency_penalty:
            self.counts[slot] = 0


class SampledTokens(NamedTuple):
    """Output of the steps, by step and batch row; log-probabilities only for rows that request them."""

    tokens: Annotated[IntArray, "steps rows"]
    logprobs: Annotated[Array, "steps rows"]
    top_tokens: Annotated[IntArray, "steps rows MAX_ALTERNATIVES"]
    top_logprobs: Annotated[Array, "steps rows MAX_ALTERNATIVES"]

    @classmethod
    def of(cls, rows: int) -> "SampledTokens":
        shape = (MAX_STEPS, rows)
        return cls(
            np.zeros(shape, np.int64), np.zeros(shape, np.float32), np.zeros((*shape, MAX_ALTERNATIVES), np.int64),
            np.zeros((*shape, MAX_ALTERNATIVES), np.float32),
        )  # fmt: skip
