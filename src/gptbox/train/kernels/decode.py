"""Forward pass of one token, whose keys and values are added to a KV cache."""

import numpy as np

from gptbox.jit.cache import kernel
from gptbox.jit.math import exp
from gptbox.train.kernels import Floats
from gptbox.train.kernels.blas import linear
from gptbox.train.kernels.block import BlockWeights
from gptbox.train.kernels.head import HeadWeights
from gptbox.train.kernels.layers import add_rms_norm, rms_norm, rotary_heads, swiglu

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
    weights: BlockWeights, keys: Floats, values: Floats,
) -> None:  # fmt: skip
    """One block, as `gptbox.train.gpt.Block`, for the token at `position`: updates x and branch, both (1, C).

    Writes the token's key and value to row `position` of keys and values (context, K, D).
    """
    w = weights
    normed, residual, scale = np.empty_like(x), np.empty_like(x), np.empty(1, np.float32)
    if is_first:
        residual[:] = x
        rms_norm(x, w.attention_norm, eps, normed, scale)
    else:
        add_rms_norm(x, branch, w.attention_norm, eps, residual, normed, scale)
    kv_heads, width = keys.shape[1], keys.shape[2]
    heads = w.qkv.shape[0] // width - 2 * kv_heads
    qkv = np.empty((1, w.qkv.shape[0]), np.float32)
    linear(normed, w.qkv, qkv)
    q, k = np.empty((1, heads, width), np.float32), np.empty((1, kv_heads, width), np.float32)
    row = slice(position, position + 1)
    rotary_heads(qkv, cos[row], sin[row], w.q_norm, w.k_norm, eps, q, k, np.empty((1, heads + kv_heads), np.float32))
    for head in range(kv_heads):
        begin = (heads + kv_heads + head) * width
        for i in range(width):
            keys[position, head, i] = k[0, head, i]
            values[position, head, i] = qkv[0, begin + i]
    y = np.empty((1, heads * width), np.float32)
    decode_attention(q, keys, values, position + 1, y)
    linear(y, w.out, branch)
    add_rms_norm(residual, branch, w.mlp_norm, eps, x, normed, scale)
    up = np.empty((1, w.up.shape[0]), np.float32)
    linear(normed, w.up, up)
    hidden = np.empty((1, w.down.shape[1]), np.float32)
    swiglu(up, hidden)
    linear(hidden, w.down, branch)


@kernel(fastmath=True)
def decode_head(x: Floats, branch: Floats, eps: np.float32, weights: HeadWeights, logits: Floats) -> None:
    """Final norm and logits (1, V) of one token."""
    total, normed, scale = np.empty_like(x), np.empty_like(x), np.empty(1, np.float32)
    add_rms_norm(x, branch, weights.norm, eps, total, normed, scale)
    linear(normed, weights.output, logits)
