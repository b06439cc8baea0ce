"""Causal attention in blocks of queries: Dao et al., FlashAttention, arXiv 2205.14135."""

import numpy as np

from gptbox.jit.cache import kernel
from gptbox.jit.math import exp
from gptbox.train.kernels import Floats
from gptbox.train.kernels.blas import gemm_nn, gemm_nt, gemm_tn

QUERY_BLOCK_SIZE = 64
"""Queries of a row that `attention` computes at once."""

_ONE = np.float32(1)


@kernel(fastmath=True)
def attention(q: Floats, k: Floats, qkv: Floats, time: int, y: Floats, log_sum: Floats, scores: Floats) -> None:
    """Causal attention of q (N, H, D) over k (N, K, D) and the values in qkv (N, (H + 2 K) D): y (N, H, D).

    A row's queries are computed in blocks, each over the keys up to the block's end: most of the upper triangle is
    skipped, and `scores` (QUERY_BLOCK_SIZE, T) stays in cache. log_sum (N, H), the log-sum-exp of the scores, is kept
    for the backward pass.
    """
    heads, width, kv_heads = q.shape[1], q.shape[2], k.shape[1]
    scale = 1 / np.sqrt(np.float32(width))
    for start in range(0, q.shape[0], time):
        for head in range(heads):
            kv = head * kv_heads // heads
            columns = slice((heads + kv_heads + kv) * width, (heads + kv_heads + kv + 1) * width)
            for first in range(0, time, QUERY_BLOCK_SIZE):
                last = min(time, first + QUERY_BLOCK_SIZE)
                query_rows, key_rows = slice(start + first, start + last), slice(start, start + last)
                block_scores = scores[: last - first, :last]
                gemm_nt(scale, q[query_rows, head], k[key_rows, kv], 0, block_scores)
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
                gemm_nn(1, block_scores, qkv[key_rows, columns], 0, y[query_rows, head])


@kernel(fastmath=True)
def attention_backward(
    grad_y: Floats, q: Floats, k: Floats, qkv: Floats, time: int, y: Floats, log_sum: Floats, grad_q: Floats,
    grad_k: Floats, grad_qkv: Floats, probabilities: Floats, grad_scores: Floats,
) -> None:  # fmt: skip
    """From grad_y (N, H, D), overwrites grad_q (N, H, D), grad_k (N, K, D) and the values' part of grad_qkv.

    The probabilities are recomputed from log_sum. Buffers: probabilities and grad_scores (QUERY_BLOCK_SIZE, T).
    """
    heads, width, kv_heads = q.shape[1], q.shape[2], k.shape[1]
    scale = 1 / np.sqrt(np.float32(width))
    grad_k[:] = 0
    grad_qkv[:, (heads + kv_heads) * width :] = 0
    for start in range(0, q.shape[0], time):
        for head in range(heads):
            kv = head * kv_heads // heads
            columns = slice((heads + kv_heads + kv) * width, (heads + kv_heads + kv + 1) * width)
            for first in range(0, time, QUERY_BLOCK_SIZE):
                last = min(time, first + QUERY_BLOCK_SIZE)
                query_rows, key_rows = slice(start + first, start + last), slice(start, start + last)
                queries, keys, values = q[query_rows, head], k[key_rows, kv], qkv[key_rows, columns]
                grad, rows = grad_y[query_rows, head], last - first
                p, ds = probabilities[:rows, :last], grad_scores[:rows, :last]
                gemm_nt(scale, queries, keys, 0, p)
                gemm_nt(1, grad, values, 0, ds)
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
                gemm_tn(1, p, grad, 1, grad_qkv[key_rows, columns])
                gemm_nn(1, ds, keys, 0, grad_q[query_rows, head])
                gemm_tn(1, ds, queries, 1, grad_k[key_rows, kv])
