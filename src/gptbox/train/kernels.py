"""Numba kernels of training on a CPU: loops that LLVM vectorises, and BLAS for the matrix products.

A chain of small torch operations reads and writes every activation once per operation, a fused kernel once in all.
Kernels run on the calling thread and release the GIL; they are compiled on first call and cached.

Arrays are float32 and C-contiguous unless noted. Shapes: N tokens (B rows of T), C the width, H query heads, K key and
value heads, D = head_dim, V = vocab_size, M the MLP's width.
"""

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from gptbox.jit.cache import kernel
from gptbox.jit.math import exp

Floats = NDArray[np.float32]

SGEMM = "gptbox_sgemm"

_ONE = np.float32(1)


@intrinsic
def _sgemm(  # type: ignore[no-untyped-def]
    typing_context, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc
):
    """BLAS sgemm, column-major: arrays as addresses, transposition flags as character codes."""
    signature = types.void(
        types.int8, types.int8, types.int32, types.int32, types.int32, types.float32, types.intp, types.int32,
        types.intp, types.int32, types.float32, types.intp, types.int32,
    )  # fmt: skip

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = ir.IntType(8).as_pointer()
        references = []
        for argument, type_ in zip(arguments, signature.args, strict=True):
            if type_ is types.intp:
                references.append(builder.inttoptr(argument, pointer))
            else:  # Fortran passes all arguments by reference
                slot = cgutils.alloca_once_value(builder, argument)
                references.append(builder.bitcast(slot, pointer))
        function_type = ir.FunctionType(ir.VoidType(), [pointer] * len(references))
        function = cgutils.get_or_insert_function(builder.module, function_type, SGEMM)
        builder.call(function, references)
        return context.get_dummy_value()

    return signature, generate


def _load_sgemm() -> bool:
    """Register the sgemm in PyTorch's library under a symbol that compiled code can call; False if there is none."""
    library = Path(torch.__file__).parent / "lib" / f"libtorch_cpu.{'dylib' if sys.platform == 'darwin' else 'so'}"
    try:
        function = ctypes.CDLL(str(library)).sgemm_
    except (OSError, AttributeError):
        return False
    binding.add_symbol(SGEMM, ctypes.cast(function, ctypes.c_void_p).value)
    return True


HAS_SGEMM = _load_sgemm()
"""Whether kernels with matrix products can run: `linear`, `attention`, `block`, `head`, `muon`."""


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
def swiglu(up: Floats, y: Floats) -> None:
    """y (N, M) = silu(gate) * value, where up (N, 2 M) is gate and value concatenated."""
    rows, width = y.shape
    for i in range(rows):
        # Views, because up[i, width + j] is not vectorised: LLVM cannot exclude that a sum as an index is negative.
        gate, value, out = up[i, :width], up[i, width:], y[i]
        for j in range(width):
            out[j] = gate[j] / (_ONE + exp(-gate[j])) * value[j]


@kernel(fastmath=True)
def swiglu_backward(grad_y: Floats, up: Floats, grad_up: Floats) -> None:
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
    """From grad_q and grad_k (B, T, heads, D), of any strides, to the part of queries and keys in grad_qkv."""
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
def cross_entropy(logits: Floats, targets: NDArray[np.int64], grad: Floats) -> float:
    """The mean loss of logits (N, V), and its gradient: (softmax - one-hot targets) / N."""
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


# Blocks and head, forward and backward. sgemm is column-major: it sees a row-major array as its transpose.

_N, _T = np.int8(ord("N")), np.int8(ord("T"))


@kernel(fastmath=True, inline=True)
def _gemm(trans_a: Any, trans_b: Any, m: Any, n: Any, k: Any, alpha: Any, a: Any, lda: Any, b: Any, ldb: Any,
          beta: Any, c: Any, ldc: Any) -> None:  # fmt: skip
    _sgemm(trans_a, trans_b, np.int32(m), np.int32(n), np.int32(k), np.float32(alpha), a, np.int32(lda), b,
           np.int32(ldb), np.float32(beta), c, np.int32(ldc))  # fmt: skip


@kernel(fastmath=True)
def linear(x: Floats, weight: Floats, y: Floats) -> None:
    """y (N, O) = x (N, I) @ weight (O, I).T"""
    (rows, inputs), outputs = x.shape, weight.shape[0]
    _gemm(_T, _N, outputs, rows, inputs, 1, weight.ctypes.data, inputs, x.ctypes.data, inputs, 0, y.ctypes.data,
          outputs)  # fmt: skip


@kernel(fastmath=True)
def linear_backward(grad_y: Floats, x: Floats, weight: Floats, grad_x: Floats, grad_weight: Floats) -> None:
    (rows, inputs), outputs = x.shape, weight.shape[0]
    _gemm(_N, _T, inputs, outputs, rows, 1, x.ctypes.data, inputs, grad_y.ctypes.data, outputs, 0,
          grad_weight.ctypes.data, inputs)  # fmt: skip
    _gemm(_N, _N, inputs, rows, outputs, 1, weight.ctypes.data, inputs, grad_y.ctypes.data, outputs, 0,
          grad_x.ctypes.data, inputs)  # fmt: skip


QUERY_BLOCK_SIZE = 64
"""Queries of a row that `attention` computes at once."""


@kernel(fastmath=True)
def attention(q: Floats, k: Floats, qkv: Floats, time: int, y: Floats, log_sum: Floats, scores: Floats) -> None:
    """Causal attention of q (N, H, D) over k (N, K, D) and the values in qkv: y (N, H, D).

    A row's queries are computed in blocks, each over the keys up to the block's end: most of the upper triangle is
    skipped, and `scores` (QUERY_BLOCK_SIZE, T) stays in cache. log_sum (N, H), the log-sum-exp of the scores, is kept
    for the backward pass. Dao et al., FlashAttention, arXiv 2205.14135.
    """
    heads, width = q.shape[1], q.shape[2]
    kv_heads = k.shape[1]
    scale = 1 / np.sqrt(np.float32(width))
    ldq, ldk, ldv = heads * width, kv_heads * width, qkv.shape[1]
    for start in range(0, q.shape[0], time):
        for head in range(heads):
            kv = head * kv_heads // heads
            keys = k[start, kv].ctypes.data
            values = qkv[start, (heads + kv_heads + kv) * width :].ctypes.data
            for first in range(0, time, QUERY_BLOCK_SIZE):
                last = min(time, first + QUERY_BLOCK_SIZE)
                _gemm(_T, _N, last, last - first, width, scale, keys, ldk, q[start + first, head].ctypes.data, ldq, 0,
                      scores.ctypes.data, time)  # fmt: skip
                for i in range(first, last):
                    row = scores[i - first]
                    max_score = row[0]
                    for j in range(i + 1):
                        max_score = max(max_score, row[j])
                    total = np.float32(0)
                    for j in range(i + 1):
                        e = exp(row[j] - max_score)
                        row[j] = e
                        total += e
                    inverse_total = _ONE / total
                    for j in range(i + 1):
                        row[j] *= inverse_total
                    for j in range(i + 1, last):
                        row[j] = 0
                    log_sum[start + i, head] = max_score + np.log(total)
                _gemm(_N, _N, width, last - first, last, 1, values, ldv, scores.ctypes.data, time, 0,
                      y[start + first, head].ctypes.data, ldq)  # fmt: skip


@kernel(fastmath=True)
def attention_backward(
    grad_y: Floats, q: Floats, k: Floats, qkv: Floats, time: int, y: Floats, log_sum: Floats, grad_q: Floats,
    grad_k: Floats, grad_qkv: Floats, probabilities: Floats, grad_scores: Floats,
) -> None:  # fmt: skip
    """grad_q (N, H, D), grad_k (N, K, D) and the values' part of grad_qkv; probabilities recomputed from log_sum."""
    heads, width = q.shape[1], q.shape[2]
    kv_heads = k.shape[1]
    scale = 1 / np.sqrt(np.float32(width))
    ldq, ldk, ldv = heads * width, kv_heads * width, qkv.shape[1]
    grad_k[:] = 0
    grad_qkv[:, (heads + kv_heads) * width :] = 0
    p, ds = probabilities.ctypes.data, grad_scores.ctypes.data
    for start in range(0, q.shape[0], time):
        for head in range(heads):
            kv = head * kv_heads // heads
            keys, grad_keys = k[start, kv].ctypes.data, grad_k[start, kv].ctypes.data
            values = qkv[start, (heads + kv_heads + kv) * width :].ctypes.data
            grad_values = grad_qkv[start, (heads + kv_heads + kv) * width :].ctypes.data
            for first in range(0, time, QUERY_BLOCK_SIZE):
                last = min(time, first + QUERY_BLOCK_SIZE)
                rows = last - first
                queries, grad = q[start + first, head].ctypes.data, grad_y[start + first, head].ctypes.data
                _gemm(_T, _N, last, rows, width, scale, keys, ldk, queries, ldq, 0, p, time)
                _gemm(_T, _N, last, rows, width, 1, values, ldv, grad, ldq, 0, ds, time)
                for i in range(first, last):
                    row, grad_row, shift = probabilities[i - first], grad_scores[i - first], log_sum[start + i, head]
                    out, grad_out = y[start + i, head], grad_y[start + i, head]
                    inner = np.float32(0)
                    for j in range(width):
                        inner += out[j] * grad_out[j]
                    for j in range(i + 1):
                        e = exp(row[j] - shift)
                        row[j] = e
                        grad_row[j] = e * (grad_row[j] - inner) * scale
                    for j in range(i + 1, last):
                        row[j] = 0
                        grad_row[j] = 0
                _gemm(_N, _T, width, last, rows, 1, grad, ldq, p, time, 1, grad_values, ldv)
                _gemm(_N, _N, width, rows, last, 1, keys, ldk, ds, time, 0, grad_q[start + first, head].ctypes.data,
                      ldq)  # fmt: skip
                _gemm(_N, _T, width, last, rows, 1, queries, ldq, ds, time, 1, grad_keys, ldk)


@kernel(fastmath=True)
def dropout_rows(x: Floats, keys: NDArray[np.uint32], threshold: np.uint32, scale: np.float32, y: Floats) -> None:
    """`dropout` of each row of the batch with its own key; x and y of any shape, rows first."""
    size = x.size // len(keys)
    flat, out = x.reshape(-1), y.reshape(-1)
    for i in range(len(keys)):
        dropout(flat[i * size : (i + 1) * size], keys[i], threshold, scale, out[i * size : (i + 1) * size])


@kernel(fastmath=True)
def block(
    x: Floats, branch: Floats, is_first: bool, cos: Floats, sin: Floats, eps: np.float32,
    attention_norm: Floats, qkv_weight: Floats, q_norm: Floats, k_norm: Floats, out_weight: Floats,
    mlp_norm: Floats, up_weight: Floats, down_weight: Floats,
    x1: Floats, scale1: Floats, a1: Floats, qkv: Floats, q: Floats, k: Floats, scale_qk: Floats, y: Floats,
    log_sum: Floats, x2: Floats, scale2: Floats, a2: Floats, up: Floats, hidden: Floats, scores: Floats,
    keys1: NDArray[np.uint32], keys2: NDArray[np.uint32], threshold: np.uint32, dropout_scale: np.float32,
) -> None:  # fmt: skip
    """Forward pass of one block, as `gptbox.train.gpt.Block`: reads x and branch, writes x1 to scores and branch.

    Suffix 1 is the attention half, 2 the MLP half: x the residual stream, a its norm, scale the norm's 1 / rms.
    """
    if is_first:
        x1[:] = x
        rms_norm(x, attention_norm, eps, a1, scale1)
    else:
        add_rms_norm(x, branch, attention_norm, eps, x1, a1, scale1)
    linear(a1, qkv_weight, qkv)
    rotary_heads(qkv, cos, sin, q_norm, k_norm, eps, q, k, scale_qk)
    attention(q, k, qkv, cos.shape[0], y, log_sum, scores)
    linear(y.reshape(y.shape[0], -1), out_weight, branch)
    if threshold:
        dropout_rows(branch, keys1, threshold, dropout_scale, branch)
    add_rms_norm(x1, branch, mlp_norm, eps, x2, a2, scale2)
    linear(a2, up_weight, up)
    swiglu(up, hidden)
    linear(hidden, down_weight, branch)
    if threshold:
        dropout_rows(branch, keys2, threshold, dropout_scale, branch)


@kernel(fastmath=True)
def block_backward(
    grad_x: Floats, cos: Floats, sin: Floats,
    attention_norm: Floats, qkv_weight: Floats, q_norm: Floats, k_norm: Floats, out_weight: Floats,
    mlp_norm: Floats, up_weight: Floats, down_weight: Floats,
    grad_attention_norm: Floats, grad_qkv_weight: Floats, grad_q_norm: Floats, grad_k_norm: Floats,
    grad_out_weight: Floats, grad_mlp_norm: Floats, grad_up_weight: Floats, grad_down_weight: Floats,
    x1: Floats, scale1: Floats, a1: Floats, qkv: Floats, q: Floats, k: Floats, scale_qk: Floats, y: Floats,
    log_sum: Floats, x2: Floats, scale2: Floats, a2: Floats, up: Floats, hidden: Floats, scores: Floats,
    grad_scores: Floats, grad_branch: Floats, grad_a: Floats, grad_hidden: Floats, grad_up: Floats, grad_y: Floats,
    grad_q: Floats, grad_k: Floats, grad_qkv: Floats,
    keys1: NDArray[np.uint32], keys2: NDArray[np.uint32], threshold: np.uint32, dropout_scale: np.float32,
) -> None:  # fmt: skip
    """Backward pass of one block: grad_x (N, C) is its output's gradient on entry and its input's on return."""
    tokens, time = grad_x.shape[0], cos.shape[0]
    batch, heads, width, kv_heads = tokens // time, q.shape[1], q.shape[2], k.shape[1]
    grad = grad_x
    if threshold:
        dropout_rows(grad_x, keys2, threshold, dropout_scale, grad_branch)
        grad = grad_branch
    linear_backward(grad, hidden, down_weight, grad_hidden, grad_down_weight)
    swiglu_backward(grad_hidden, up, grad_up)
    linear_backward(grad_up, a2, up_weight, grad_a, grad_up_weight)
    rms_norm_backward(grad_a, grad_x, x2, mlp_norm, scale2, grad_x, grad_mlp_norm)
    grad = grad_x
    if threshold:
        dropout_rows(grad_x, keys1, threshold, dropout_scale, grad_branch)
        grad = grad_branch
    linear_backward(grad, y.reshape(tokens, -1), out_weight, grad_y.reshape(tokens, -1), grad_out_weight)
    attention_backward(grad_y, q, k, qkv, time, y, log_sum, grad_q, grad_k, grad_qkv, scores, grad_scores)
    rotary_heads_backward(
        grad_q.reshape(batch, time, heads, width), grad_k.reshape(batch, time, kv_heads, width), qkv, cos, sin,
        q_norm, k_norm, scale_qk, grad_qkv, grad_q_norm, grad_k_norm,
    )  # fmt: skip
    linear_backward(grad_qkv, a1, qkv_weight, grad_a, grad_qkv_weight)
    rms_norm_backward(grad_a, grad_x, x1, attention_norm, scale1, grad_x, grad_attention_norm)


@kernel(fastmath=True)
def embed(ids: NDArray[np.int64], weight: Floats, x: Floats) -> None:
    """x (N, C) = weight[ids] with ids (N,)."""
    for i in range(len(ids)):
        x[i] = weight[ids[i]]


@kernel(fastmath=True)
def embed_backward(grad_x: Floats, ids: NDArray[np.int64], grad_weight: Floats) -> None:
    """Adds to grad_weight, which holds the head's gradient already if embeddings are tied."""
    for i in range(len(ids)):
        row, grad = grad_weight[ids[i]], grad_x[i]
        for j in range(len(grad)):
            row[j] += grad[j]


@kernel(fastmath=True)
def head(
    x: Floats, branch: Floats, eps: np.float32, norm: Floats, weight: Floats, targets: NDArray[np.int64],
    total: Floats, scale: Floats, normed: Floats, logits: Floats, grad_logits: Floats,
) -> float:  # fmt: skip
    """Final norm, logits and mean loss over N tokens; writes the loss's gradient to grad_logits."""
    add_rms_norm(x, branch, norm, eps, total, normed, scale)
    linear(normed, weight, logits)
    return cross_entropy(logits, targets, grad_logits)


@kernel(fastmath=True)
def head_backward(
    norm: Floats, weight: Floats, total: Floats, scale: Floats, normed: Floats, grad_logits: Floats, grad_a: Floats,
    grad_x: Floats, grad_norm: Floats, grad_weight: Floats,
) -> None:  # fmt: skip
    """Backward pass from grad_logits (N, V) to grad_x (N, C), the gradient of the residual stream."""
    linear_backward(grad_logits, normed, weight, grad_a, grad_weight)
    grad_x[:] = 0
    rms_norm_backward(grad_a, grad_x, total, norm, scale, grad_x, grad_norm)


# The optimizer

QUINTIC = (np.float32(3.4445), np.float32(-4.7750), np.float32(2.0315))
"""Coefficients of the polynomial that drives singular values towards 1: Jordan's Muon, see `gptbox.train.optim`."""


@kernel(fastmath=True)
def muon(
    weight: Floats, grad: Floats, momentum: Floats, beta: np.float32, rate: np.float32, decay: np.float32, steps: int,
    x: Floats, next_x: Floats, gram: Floats, next_gram: Floats,
) -> None:  # fmt: skip
    """Muon's step for one matrix (R, C), see `gptbox.train.optim`.

    Buffers: x and next_x (R, C), gram and next_gram (min(R, C), min(R, C)).
    """
    rows, columns = weight.shape
    squares = np.float32(0)
    for i in range(rows):
        for j in range(columns):
            m = momentum[i, j] + (np.float32(1) - beta) * (grad[i, j] - momentum[i, j])
            momentum[i, j] = m
            u = grad[i, j] + beta * (m - grad[i, j])  # Nesterov momentum
            x[i, j] = u
            squares += u * u
    inverse_norm = np.float32(1) / (np.sqrt(squares) + np.float32(1e-7))
    for i in range(rows):
        for j in range(columns):
            x[i, j] *= inverse_norm
    a, b, c = QUINTIC
    size = min(rows, columns)
    gram_data, next_gram_data = gram.ctypes.data, next_gram.ctypes.data
    for _ in range(steps):
        x_data, next_x_data = x.ctypes.data, next_x.ctypes.data
        if rows <= columns:  # x @ x.T
            _gemm(_T, _N, size, size, columns, 1, x_data, columns, x_data, columns, 0, gram_data, size)
        else:  # x.T @ x
            _gemm(_N, _T, size, size, rows, 1, x_data, columns, x_data, columns, 0, gram_data, size)
        for i in range(size):
            for j in range(size):
                next_gram[i, j] = gram[i, j] * b
            next_gram[i, i] += a
        # Symmetric matrices, so that neither needs a transposition.
        _gemm(_N, _N, size, size, size, c, gram_data, size, gram_data, size, 1, next_gram_data, size)
        if rows <= columns:
            _gemm(_N, _N, columns, rows, rows, 1, x_data, columns, next_gram_data, size, 0, next_x_data, columns)
        else:
            _gemm(_N, _N, columns, rows, columns, 1, next_gram_data, size, x_data, columns, 0, next_x_data, columns)
        x, next_x = next_x, x
    for i in range(rows):
        for j in range(columns):
            weight[i, j] = weight[i, j] * decay - rate * x[i, j]
