"""The forward pass in NumPy, for both architectures; the twin of `gptbox.train.gpt`, name by name.

Shapes: B rows, T new tokens a row, L positions seen so far by the longest row, C = n_embd, H query heads, K key and
value heads, D = head_dim, V = vocab_size.
"""

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.kv_cache import KVCache
from gptbox.model_config import ModelConfig
from gptbox.weights import Array, Weights


def layer_norm(x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
    """Ba et al., Layer Normalization, arXiv 1607.06450."""
    normed: Array = x - x.mean(-1, keepdims=True)
    normed *= weight / np.sqrt(np.square(normed).mean(-1, keepdims=True) + np.float32(eps))
    if bias is not None:
        normed += bias
    return normed


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Zhang and Sennrich, Root Mean Square Layer Normalization, arXiv 1910.07467."""
    scale = np.sqrt(np.einsum("...i,...i->...", x, x) / np.float32(x.shape[-1]) + np.float32(eps))
    normed: Array = x / scale[..., None] * weight
    return normed


def erf(x: Array) -> Array:
    """The error function to 5e-7 in float32: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26."""
    a = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911) * a)
    series = t * np.float32(1.061405429) - np.float32(1.453152027)
    for coefficient in (1.421413741, -0.284496736, 0.254829592):
        series = series * t + np.float32(coefficient)
    result: Array = np.copysign(1 - series * t * np.exp(-a * a), x)
    return result


def gelu(x: Array) -> Array:
    """Hendrycks and Gimpel, Gaussian Error Linear Units, arXiv 1606.08415."""
    result: Array = np.float32(0.5) * x * (1 + erf(x * np.float32(0.5**0.5)))
    return result


def gelu_new(x: Array) -> Array:
    """GELU by its tanh approximation, as OpenAI's GPT-2 computes it."""
    inner = np.float32((2 / np.pi) ** 0.5) * (x + np.float32(0.044715) * x * x * x)
    result: Array = np.float32(0.5) * x * (1 + np.tanh(inner))
    return result


def silu(x: Array) -> Array:
    """x times its logistic function; a very negative x overflows to the right limit, 0."""
    with np.errstate(over="ignore"):
        result: Array = x / (1 + np.exp(-x))
    return result


def softmax(scores: Array) -> Array:
    """Over the last axis, in place."""
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    return scores


def rotary_tables(config: ModelConfig) -> tuple[Array, Array]:
    """Cosines and sines of every position, each (context_length, D / 2): Su et al., RoFormer, arXiv 2104.09864."""
    frequencies = config.rope_theta ** (-np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim)
    angles = np.outer(np.arange(config.context_length), frequencies)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Turn (B, T, heads, D) by tables of (B, T, 1, D / 2), pairing the first half with the second as Qwen does."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    out = np.empty_like(x)
    out[..., :half] = first * cos - second * sin
    out[..., half:] = second * cos + first * sin
    return out


class GPT:
    """A decoder-only transformer. Reading is thread-safe; each KVCache belongs to one caller."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        """`weights` as in `gptbox.weights`, float32."""
        self.config = config
        self.weights = weights
        self.head = weights["embedding.weight"] if config.tie_embeddings else weights["head.weight"]
        self.activation = {"gelu": gelu, "gelu_new": gelu_new, "silu": silu}[config.activation]
        if config.architecture == "qwen3":
            self.cos, self.sin = rotary_tables(config)

    def _linear(self, x: Array, name: str) -> Array:
        """(..., in) -> (..., out), as one matrix product: NumPy would make one a row of (B, 1, in)."""
        weight = self.weights[f"{name}.weight"]
        y: Array = x.reshape(-1, x.shape[-1]) @ weight.T
        bias = self.weights.get(f"{name}.bias")
        if bias is not None:
            y += bias
        return y.reshape(*x.shape[:-1], len(weight))

    def _norm(self, x: Array, name: str) -> Array:
        weight = self.weights[f"{name}.weight"]
        if self.config.architecture == "gpt2":
            return layer_norm(x, weight, self.weights.get(f"{name}.bias"), self.config.norm_eps)
        return rms_norm(x, weight, self.config.norm_eps)

    def _attention(
        self, x: Array, layer: int, cache: KVCache, rows: slice, positions: NDArray[np.int64], hidden: Array | None
    ) -> Array:
        """x (B, T, C) -> (B, T, C), appending T keys and values to each row of the cache.

        `hidden` (B, 1, T, L) is minus infinity where a query must not look, or None where all may be seen.
        """
        c, prefix = self.config, f"blocks.{layer}.attention"
        batch, time = x.shape[:2]
        qkv = self._linear(x, f"{prefix}.qkv").reshape(batch, time, c.n_head + 2 * c.n_kv_head, c.head_dim)
        # Slices: np.split takes longer than some of the products here.
        q, k, v = qkv[:, :, : c.n_head], qkv[:, :, c.n_head : -c.n_kv_head], qkv[:, :, -c.n_kv_head :]
        if c.architecture == "qwen3":
            q = rms_norm(q, self.weights[f"{prefix}.q_norm.weight"], c.norm_eps)
            k = rms_norm(k, self.weights[f"{prefix}.k_norm.weight"], c.norm_eps)
            cos, sin = self.cos[positions][:, :, None], self.sin[positions][:, :, None]
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)

        keys, values = cache.keys[layer, rows], cache.values[layer, rows]  # (B, K, context, D)
        row = np.arange(batch)[:, None]
        keys[row, :, positions] = k  # advanced indices apart put their axes first: (B, T, K, D)
        values[row, :, positions] = v
        length = int(positions[:, -1].max()) + 1
        keys, values = keys[:, :, :length], values[:, :, :length]

        # Query heads that share a key head are stacked along time: (B, K, H/K T, D) x (B, K, D, L).
        groups = c.n_head // c.n_kv_head
        q = q.reshape(batch, time, c.n_kv_head, groups, c.head_dim).transpose(0, 2, 3, 1, 4)
        q = q.reshape(batch, c.n_kv_head, groups * time, c.head_dim)
        scores = q @ keys.transpose(0, 1, 3, 2)
        scores *= np.float32(c.head_dim**-0.5)
        if hidden is not None:
            scores.reshape(batch, c.n_head, time, length)[...] += hidden
        mixed = softmax(scores) @ values
        mixed = mixed.reshape(batch, c.n_head, time, c.head_dim).transpose(0, 2, 1, 3)
        return self._linear(mixed.reshape(batch, time, c.n_head * c.head_dim), f"{prefix}.out")

    def _mlp(self, x: Array, layer: int) -> Array:
        """x (B, T, C) -> (B, T, C)."""
        up = self._linear(x, f"blocks.{layer}.mlp.up")
        if self.config.architecture == "qwen3":
            width = self.config.intermediate_size
            # SwiGLU: Shazeer, GLU Variants Improve Transformer, arXiv 2002.05202
            up = self.activation(up[..., :width]) * up[..., width:]
        else:
            up = self.activation(up)
        return self._linear(up, f"blocks.{layer}.mlp.down")

    def forward(
        self, ids: NDArray[np.integer], cache: KVCache, rows: slice = slice(None), last_only: bool = False
    ) -> Array:
        """Logits after each of the new tokens `ids` (B, T): (B, T, V), or (B, V) after the last.

        They continue what the cache holds in `rows`, and are appended to it. The caller sees to it that they fit:
        lengths[rows] + T <= context_length.
        """
        start = cache.lengths[rows]
        time = ids.shape[1]
        positions = start[:, None] + np.arange(time)
        length = int(positions[:, -1].max()) + 1
        assert length <= cache.context_length, "the caller must slide the window first"
        hidden = None
        if time > 1 or int(start.min()) != int(start.max()):
            ahead = np.arange(length) > positions[:, None, :, None]  # (B, 1, T, L)
            hidden = np.where(ahead, np.float32(-np.inf), np.float32(0))
        x = self.weights["embedding.weight"][ids]
        if self.config.architecture == "gpt2":
            x = x + self.weights["position.weight"][positions]
        for i in range(self.config.n_layer):
            x = x + self._attention(self._norm(x, f"blocks.{i}.attention_norm"), i, cache, rows, positions, hidden)
            x = x + self._mlp(self._norm(x, f"blocks.{i}.mlp_norm"), i)
        cache.lengths[rows] += time
        if last_only:
            x = x[:, -1]
        logits: Array = self._norm(x, "final_norm") @ self.head.T
        return logits


def slide(history: NDArray[np.integer], context_length: int) -> NDArray[np.integer]:
    """What stays in view when the context is full: its newer half.

    Past the context length a model can no longer just append: learned positions end there, and keys were computed
    from tokens that have left the window. nanoGPT recomputes the whole window for every further token. Here the last
    context_length // 2 tokens (at least one) are computed afresh from position 0, and generation appends again until
    the window is full: each token then sees between half a window and a whole one, at the price of half a token of
    extra work a token. Both architectures, the engine and torch do the same.
    """
    return history[-max(1, context_length // 2) :]
