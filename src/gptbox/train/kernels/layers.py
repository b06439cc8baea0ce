"""Layers without matrix products: embedding, norms, rotary embedding, SwiGLU, dropout and loss."""

import numpy as np
from numpy.typing import NDArray

from gptbox.jit.cache import kernel
from gptbox.jit.math import exp
from gptbox.train.kernels import Floats

_ONE = np.float32(1)


@kernel(fastmath=True)
def embed(ids: NDArray[np.int64], weight: Floats, x: Floats) -> None:
    """x (N, C) = weight[ids] with ids (N,)."""
    for i in range(len(ids)):
        x[i] = weight[ids[i]]


@kernel(fastmath=True)
def embed_backward(grad_x: Floats, ids: NDArray[np.int64], grad_weight: Floats) -> None:
    """Adds grad_x (N, C) to rows ids (N,) of grad_weight (V, C), which already holds a tied head's gradient."""
    for i in range(len(ids)):
        row, grad = grad_weight[ids[i]], grad_x[i]
        for j in range(len(grad)):
            row[j] += grad[j]


@kernel(fastmath=True)
def rms_norm(x: Floats, weight: Floats, eps: np.float32, y: Floats, scale: Floats) -> None:
    """y = x * scale * weight with x (N, C) and scale (N,) = 1 / rms(x), which the backward pass needs."""
    rows, width = x.shape
    for i in range(rows):
        squares = np.float32(0)
        for j in range(width):
            squares += x[i, j] * x[i, j]
        inverse_rms = _ONE / np.sqrt(squares / np.float32(width) + eps)
        scale[i] = inverse_rms
        for j in range(width):
            y[i, j] = x[i, j] * inverse_rms * weight[j]


@kernel(fastmath=True)
def add_rms_norm(
    x: Floats, branch: Floats, weight: Floats, eps: np.float32, total: Floats, y: Floats, scale: Floats
) -> None:
    """Residual addition and RMSNorm in one pass over memory: total = x + branch, y = rms_norm(total); all (N, C)."""
    rows, width = x.shape
    for i in range(rows):
        squares = np.float32(0)
        for j in range(width):
            t = x[i, j] + branch[i, j]
            total[i, j] = t
            squares += t * t
        inverse_rms = _ONE / np.sqrt(squares / np.float32(width) + eps)
        scale[i] = inverse_rms
        for j in range(width):
            y[i, j] = total[i, j] * inverse_rms * weight[j]


@kernel(fastmath=True)
def rms_norm_backward(
    grad_y: Floats, grad_x: Floats, x: Floats, weight: Floats, scale: Floats, result: Floats, grad_weight: Floats
) -> None:
    """result = grad_x + the gradient through the norm of x (N, C); overwrites grad_weight (C,)."""
    rows, width = x.shape
    grad_weight[:] = 0
    for i in range(rows):
        inverse_rms = scale[i]
        inner = np.float32(0)
        for j in range(width):
            inner += grad_y[i, j] * weight[j] * x[i, j]
        inner *= inverse_rms * inverse_rms * inverse_rms / np.float32(width)
        for j in range(width):
            grad_weight[j] += grad_y[i, j] * x[i, j] * inverse_rms
            result[i, j] = grad_x[i, j] + inverse_rms * grad_y[i, j] * weight[j] - inner * x[i, j]


@kernel(fastmath=True)
def rotary_heads(
    qkv: Floats, cos: Floats, sin: Floats, q_weight: Floats, k_weight: Floats, eps: np.float32,
    q: Floats, k: Floats, scale: Floats,
) -> None:  # fmt: skip
    """RMSNorm per head and rotary embedding of queries q (N, H, D) and keys k (N, K, D).

    qkv (N, (H + 2 K) D) is the projection's output, cos and sin (T, D / 2) the tables of a row's T positions;
    scale (N, H + K) is kept for the backward pass.
    """
    rows, queries, half = qkv.shape[0], q.shape[1], cos.shape[1]
    width = 2 * half
    for i in range(rows):
        c, s = cos[i % cos.shape[0]], sin[i % cos.shape[0]]
        for head in range(scale.shape[1]):
            begin = head * width
            x0, x1 = qkv[i, begin : begin + half], qkv[i, begin + half : begin + width]
            weight = q_weight if head < queries else k_weight
            y = q[i, head] if head < queries else k[i, head - queries]
            w0, w1, y0, y1 = weight[:half], weight[half:], y[:half], y[half:]
            squares = np.float32(0)
            for j in range(half):
                squares += x0[j] * x0[j] + x1[j] * x1[j]
            inverse_rms = _ONE / np.sqrt(squares / np.float32(width) + eps)
            scale[i, head] = inverse_rms
            for j in range(half):
                u, v = x0[j] * inverse_rms * w0[j], x1[j] * inverse_rms * w1[j]
                y0[j] = u * c[j] - v * s[j]
                y1[j] = v * c[j] + u * s[j]


@kernel(fastmath=True)
def rotary_heads_backward(
    grad_q: Floats, grad_k: Floats, qkv: Floats, cos: Floats, sin: Floats, q_weight: Floats, k_weight: Floats,
    scale: Floats, grad_qkv: Floats, grad_q_weight: Floats, grad_k_weight: Floats,
) -> None:  # fmt: skip
    """Overwrites the queries' and keys' part of grad_qkv (N, (H + 2 K) D), and the gradients of both weights (D,).

    grad_q (B, T, H, D) and grad_k (B, T, K, D) may have any strides.
    """
    batch, time, queries, width = grad_q.shape
    keys, half = grad_k.shape[2], width // 2
    grad_q_weight[:] = 0
    grad_k_weight[:] = 0
    for b in range(batch):
        for t in range(time):
            i = b * time + t
            c, s = cos[t], sin[t]
            for head in range(queries + keys):
                begin = head * width
                grad = grad_q[b, t, head] if head < queries else grad_k[b, t, head - queries]
                weight = q_weight if head < queries else k_weight
                grad_weight = grad_q_weight if head < queries else grad_k_weight
                x0, x1 = qkv[i, begin : begin + half], qkv[i, begin + half : begin + width]
                grad_x0, grad_x1 = grad_qkv[i, begin : begin + half], grad_qkv[i, begin + half : begin + width]
                grad_y0, grad_y1, w0, w1 = grad[:half], grad[half:], weight[:half], weight[half:]
                grad_w0, grad_w1 = grad_weight[:half], grad_weight[half:]
                inverse_rms = scale[i, head]
                inner = np.float32(0)
                for j in range(half):
                    u = grad_y0[j] * c[j] + grad_y1[j] * s[j]
                    v = grad_y1[j] * c[j] - grad_y0[j] * s[j]
                    grad_w0[j] += u * x0[j] * inverse_rms
                    grad_w1[j] += v * x1[j] * inverse_rms
                    grad_x0[j] = u * w0[j]
                    grad_x1[j] = v * w1[j]
                    inner += grad_x0[j] * x0[j] + grad_x1[j] * x1[j]
                inner *= inverse_rms * inverse_rms * inverse_rms / np.float32(width)
                for j in range(half):
                    grad_x0[j] = inverse_rms * grad_x0[j] - inner * x0[j]
                    grad_x1[j] = inverse_rms * grad_x1[j] - inner * x1[j]


@kernel(fastmath=True)
def swiglu(up: Floats, y: Floats) -> None:
    """y (N, M) = silu(gate) * value, where up (N, 2 M) is gate and value concatenated."""
    rows, width = y.shape
    for i in range(rows):
        # Views: LLVM does not vectorise up[i, width + j], because it cannot prove that the index is not negative.
        gate, value, out = up[i, :width], up[i, width:], y[i]
        for j in range(width):
            out[j] = gate[j] / (_ONE + exp(-gate[j])) * value[j]


@kernel(fastmath=True)
def swiglu_backward(grad_y: Floats, up: Floats, grad_up: Floats) -> None:
    """From grad_y (N, M), overwrites grad_up (N, 2 M), the gradients of gate and value."""
    rows, width = grad_y.shape
    for i in range(rows):
        gate, value, grad = up[i, :width], up[i, width:], grad_y[i]
        grad_gate, grad_value = grad_up[i, :width], grad_up[i, width:]
        for j in range(width):
            g, d = gate[j], grad[j]
            sigmoid = _ONE / (_ONE + exp(-g))
            grad_gate[j] = d * value[j] * sigmoid * (_ONE + g * (_ONE - sigmoid))
            grad_value[j] = d * g * sigmoid


@kernel(fastmath=True)
def dropout(x: Floats, key: np.uint32, threshold: np.uint32, scale: np.float32, y: Floats) -> None:
    """y = x * scale where the hash of an element's index is at least `threshold`, else 0; x and y (elements,).

    The hash is murmur3's finalizer (Appleby, public domain), counter-based: the backward pass recomputes it and
    needs no mask.
    """
    for i in range(x.size):
        # Cast each result: Numba promotes uint32 operations to 64 bits.
        h = np.uint32(np.uint32(i) * np.uint32(0x9E3779B1) + key)
        h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
        h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
        h = np.uint32(h ^ (h >> np.uint32(16)))
        y[i] = x[i] * scale if h >= threshold else np.float32(0)


@kernel(fastmath=True)
def dropout_rows(x: Floats, keys: NDArray[np.uint32], threshold: np.uint32, scale: np.float32, y: Floats) -> None:
    """`dropout` of each row of the batch with its own key; x and y of any shape, rows first."""
    size = x.size // len(keys)
    flat, out = x.reshape(-1), y.reshape(-1)
    for i in range(len(keys)):
        dropout(flat[i * size : (i + 1) * size], keys[i], threshold, scale, out[i * size : (i + 1) * size])


@kernel(fastmath=True)
def cross_entropy(logits: Floats, targets: NDArray[np.int64], grad: Floats) -> float:
    """The mean loss of logits (N, V) in nats; writes its gradient (softmax - one-hot targets) / N to grad (N, V)."""
    rows, width = logits.shape
    inverse_rows = _ONE / np.float32(rows)
    loss = 0.0
    for i in range(rows):
        row, out = logits[i], grad[i]
        max_logit = row[0]
        for j in range(width):
            max_logit = max(max_logit, row[j])
        total = np.float32(0)
        for j in range(width):
            e = exp(row[j] - max_logit)
            out[j] = e
            total += e
        target = targets[i]
        loss += np.log(total) - (row[target] - max_logit)
        factor = inverse_rows / total
        for j in range(width):
            out[j] *= factor
        out[target] -= inverse_rows
    return loss / rows
