"""Decoding with a model in training: one token at a time, with a KV cache, in compiled code.

Torch takes 2 ms per token of a small model, nearly all of it overhead: the samples of a run would cost more than its
loss estimates.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gptbox.jit.cache import kernel
from gptbox.jit.math import exp
from gptbox.train.cpu_backend import BLOCK_WEIGHTS, head_weight_name, weights_of
from gptbox.train.gpt import GPT
from gptbox.train.kernels import Floats, add_rms_norm, linear, rms_norm, rotary_heads, swiglu

_ONE = np.float32(1)


@kernel(fastmath=True)
def decode_attention(q: Floats, keys: Floats, values: Floats, length: int, y: Floats) -> None:
    """Attention of one token's queries q (1, H, D) over the first `length` cached keys and values: y (1, H * D)."""
    heads, kv_heads, width = q.shape[1], keys.shape[1], q.shape[2]
    scale = _ONE / np.sqrt(np.float32(width))
    scores = np.empty(length, np.float32)
    for head in range(heads):
        kv, query, out = head * kv_heads // heads, q[0, head], y[0, head * width : (head + 1) * width]
        for j in range(length):
            key, score = keys[j, kv], np.float32(0)
            for i in range(width):
                score += query[i] * key[i]
            scores[j] = score * scale
        max_score = scores.max()
        total = np.float32(0)
        out[:] = 0
        for j in range(length):
            value, weight = values[j, kv], exp(scores[j] - max_score)
            total += weight
            for i in range(width):
                out[i] += weight * value[i]
        inverse_total = _ONE / total
        for i in range(width):
            out[i] *= inverse_total


@kernel(fastmath=True)
def decode_block(
    x: Floats, branch: Floats, is_first: bool, position: int, cos: Floats, sin: Floats, eps: np.float32,
    attention_norm: Floats, qkv_weight: Floats, q_norm: Floats, k_norm: Floats, out_weight: Floats,
    mlp_norm: Floats, up_weight: Floats, down_weight: Floats, keys: Floats, values: Floats,
) -> None:  # fmt: skip
    """One block, as `gptbox.train.gpt.Block`, for the token at `position`: updates x and branch, both (1, C).

    The token's key and value are added to keys and values (context, K, D).
    """
    normed, residual, scale = np.empty_like(x), np.empty_like(x), np.empty(1, np.float32)
    if is_first:
        residual[:] = x
        rms_norm(x, attention_norm, eps, normed, scale)
    else:
        add_rms_norm(x, branch, attention_norm, eps, residual, normed, scale)
    kv_heads, width = keys.shape[1], keys.shape[2]
    heads = qkv_weight.shape[0] // width - 2 * kv_heads
    qkv = np.empty((1, qkv_weight.shape[0]), np.float32)
    linear(normed, qkv_weight, qkv)
    q, k = np.empty((1, heads, width), np.float32), np.empty((1, kv_heads, width), np.float32)
    row = slice(position, position + 1)
    rotary_heads(qkv, cos[row], sin[row], q_norm, k_norm, eps, q, k, np.empty((1, heads + kv_heads), np.float32))
    for head in range(kv_heads):
        begin = (heads + kv_heads + head) * width
        for i in range(width):
            keys[position, head, i] = k[0, head, i]
            values[position, head, i] = qkv[0, begin + i]
    y = np.empty((1, heads * width), np.float32)
    decode_attention(q, keys, values, position + 1, y)
    linear(y, out_weight, branch)
    add_rms_norm(residual, branch, mlp_norm, eps, x, normed, scale)
    up = np.empty((1, up_weight.shape[0]), np.float32)
    linear(normed, up_weight, up)
    hidden = np.empty((1, down_weight.shape[1]), np.float32)
    swiglu(up, hidden)
    linear(hidden, down_weight, branch)


@kernel(fastmath=True)
def decode_head(x: Floats, branch: Floats, eps: np.float32, norm: Floats, weight: Floats, logits: Floats) -> None:
    """Final norm and logits (1, V) of one token."""
    total, normed, scale = np.empty_like(x), np.empty_like(x), np.empty(1, np.float32)
    add_rms_norm(x, branch, norm, eps, total, normed, scale)
    linear(normed, weight, logits)


class CompiledDecoder:
    """One sequence's logits, for models that `cpu_backend.supports`; a `gptbox.train.gpt.Decoder`."""

    def __init__(self, model: GPT) -> None:
        c = model.config
        weights = weights_of(model)
        self._blocks = [tuple(weights[f"blocks.{i}.{name}"] for name in BLOCK_WEIGHTS) for i in range(c.n_layer)]
        self._embedding = weights["embedding.weight"]
        self._head = weights["final_norm.weight"], weights[head_weight_name(c)]
        self._rotary_tables = model.cos.numpy(), model.sin.numpy()
        self._eps = np.float32(c.norm_eps)
        shape = (c.n_layer, c.context_length, c.n_kv_head, c.head_dim)
        self._keys, self._values = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._x, self._branch = np.empty((1, c.n_embd), np.float32), np.empty((1, c.n_embd), np.float32)
        self.length = 0

    def reset(self) -> None:
        self.length = 0

    def __call__(self, ids: Sequence[int]) -> Tensor:
        for token in ids:
            self._x[0] = self._embedding[token]
            for i, weights in enumerate(self._blocks):
                decode_block(
                    self._x, self._branch, i == 0, self.length, *self._rotary_tables, self._eps, *weights,
                    self._keys[i], self._values[i],
                )  # fmt: skip
            self.length += 1
        logits = np.empty((1, self._head[1].shape[0]), np.float32)
        decode_head(self._x, self._branch, self._eps, *self._head, logits)
        return torch.from_numpy(logits[0])
