"""Forward and backward pass of one block, as `gptbox.train.gpt.Block`."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptbox.jit.cache import kernel
from gptbox.train.kernels import Floats
from gptbox.train.kernels.attention import attention, attention_backward
from gptbox.train.kernels.blas import linear, linear_backward
from gptbox.train.kernels.layers import (
    add_rms_norm,
    dropout_rows,
    rms_norm,
    rms_norm_backward,
    rotary_heads,
    rotary_heads_backward,
    swiglu,
    swiglu_backward,
)


class BlockWeights(NamedTuple):
    """A block's weights, or their gradients."""

    attention_norm: Floats
    """(C,)."""
    qkv: Floats
    """((H + 2 K) D, C)."""
    q_norm: Floats
    """(D,)."""
    k_norm: Floats
    """(D,)."""
    out: Floats
    """(C, H D)."""
    mlp_norm: Floats
    """(C,)."""
    up: Floats
    """(2 M, C): gate and value concatenated."""
    down: Floats
    """(C, M)."""


class BlockActivations(NamedTuple):
    """Activations that a block keeps for its backward pass."""

    attention_x: Floats
    """(N, C): the residual stream before the attention."""
    attention_scale: Floats
    """(N,): 1 / rms(attention_x)."""
    attention_normed: Floats
    """(N, C)."""
    qkv: Floats
    """(N, (H + 2 K) D): the projection's output; `attention` reads the values from it."""
    q: Floats
    """(N, H, D): queries, normalized and rotated."""
    k: Floats
    """(N, K, D): keys, normalized and rotated."""
    qk_scale: Floats
    """(N, H + K): 1 / rms of each head of queries and keys."""
    attention_output: Floats
    """(N, H, D)."""
    log_sum: Floats
    """(N, H): log-sum-exp of the attention scores."""
    mlp_x: Floats
    """(N, C): the residual stream before the MLP."""
    mlp_scale: Floats
    """(N,): 1 / rms(mlp_x)."""
    mlp_normed: Floats
    """(N, C)."""
    up: Floats
    """(N, 2 M)."""
    hidden: Floats
    """(N, M)."""


class BackwardBuffers(NamedTuple):
    """Scratch memory of the backward pass, which all blocks share."""

    grad_scores: Floats
    """(QUERY_BLOCK_SIZE, T)."""
    grad_branch: Floats
    """(N, C): used with dropout only."""
    grad_normed: Floats
    """(N, C): the gradient of a norm's output."""
    grad_hidden: Floats
    """(N, M)."""
    grad_up: Floats
    """(N, 2 M)."""
    grad_attention_output: Floats
    """(N, H, D)."""
    grad_q: Floats
    """(N, H, D)."""
    grad_k: Floats
    """(N, K, D)."""
    grad_qkv: Floats
    """(N, (H + 2 K) D)."""


class BranchDropout(NamedTuple):
    """Dropout of a block's two branches: see `gptbox.train.ops.Dropout`."""

    attention_keys: NDArray[np.uint32]
    """(B,)."""
    mlp_keys: NDArray[np.uint32]
    """(B,)."""
    threshold: np.uint32
    """0 without dropout."""
    scale: np.float32


@kernel(fastmath=True)
def block_forward(
    x: Floats, branch: Floats, is_first: bool, cos: Floats, sin: Floats, eps: np.float32, weights: BlockWeights,
    activations: BlockActivations, scores: Floats, dropout: BranchDropout,
) -> None:  # fmt: skip
    """Reads the residual stream x and the branch not yet added to it, both (N, C); writes `activations` and branch.

    The block's output is activations.mlp_x and branch. The first block has no branch yet. cos and sin (T, D / 2) are
    the rotary tables; scores (QUERY_BLOCK_SIZE, T) is a buffer.
    """
    w, a = weights, activations
    if is_first:
        a.attention_x[:] = x
        rms_norm(x, w.attention_norm, eps, a.attention_normed, a.attention_scale)
    else:
        add_rms_norm(x, branch, w.attention_norm, eps, a.attention_x, a.attention_normed, a.attention_scale)
    linear(a.attention_normed, w.qkv, a.qkv)
    rotary_heads(a.qkv, cos, sin, w.q_norm, w.k_norm, eps, a.q, a.k, a.qk_scale)
    attention(a.q, a.k, a.qkv, cos.shape[0], a.attention_output, a.log_sum, scores)
    linear(a.attention_output.reshape(x.shape[0], -1), w.out, branch)
    if dropout.threshold:
        dropout_rows(branch, dropout.attention_keys, dropout.threshold, dropout.scale, branch)
    add_rms_norm(a.attention_x, branch, w.mlp_norm, eps, a.mlp_x, a.mlp_normed, a.mlp_scale)
    linear(a.mlp_normed, w.up, a.up)
    swiglu(a.up, a.hidden)
    linear(a.hidden, w.down, branch)
    if dropout.threshold:
        dropout_rows(branch, dropout.mlp_keys, dropout.threshold, dropout.scale, branch)


@kernel(fastmath=True)
def block_backward(
    grad_x: Floats, cos: Floats, sin: Floats, weights: BlockWeights, grads: BlockWeights,
    activations: BlockActivations, probabilities: Floats, buffers: BackwardBuffers, dropout: BranchDropout,
) -> None:  # fmt: skip
    """grad_x (N, C) is the gradient of the block's output on entry and of its input on return; overwrites `grads`.

    probabilities (QUERY_BLOCK_SIZE, T) is a buffer.
    """
    w, a, b = weights, activations, buffers
    tokens, time = grad_x.shape[0], cos.shape[0]
    batch, heads, width, kv_heads = tokens // time, a.q.shape[1], a.q.shape[2], a.k.shape[1]
    grad = grad_x
    if dropout.threshold:
        dropout_rows(grad_x, dropout.mlp_keys, dropout.threshold, dropout.scale, b.grad_branch)
        grad = b.grad_branch
    linear_backward(grad, a.hidden, w.down, b.grad_hidden, grads.down)
    swiglu_backward(b.grad_hidden, a.up, b.grad_up)
    linear_backward(b.grad_up, a.mlp_normed, w.up, b.grad_normed, grads.up)
    rms_norm_backward(b.grad_normed, grad_x, a.mlp_x, w.mlp_norm, a.mlp_scale, grad_x, grads.mlp_norm)
    grad = grad_x
    if dropout.threshold:
        dropout_rows(grad_x, dropout.attention_keys, dropout.threshold, dropout.scale, b.grad_branch)
        grad = b.grad_branch
    linear_backward(
        grad, a.attention_output.reshape(tokens, -1), w.out, b.grad_attention_output.reshape(tokens, -1), grads.out
    )
    attention_backward(
        b.grad_attention_output, a.q, a.k, a.qkv, time, a.attention_output, a.log_sum, b.grad_q, b.grad_k, b.grad_qkv,
        probabilities, b.grad_scores,
    )  # fmt: skip
    rotary_heads_backward(
        b.grad_q.reshape(batch, time, heads, width), b.grad_k.reshape(batch, time, kv_heads, width), a.qkv, cos, sin,
        w.q_norm, w.k_norm, a.qk_scale, b.grad_qkv, grads.q_norm, grads.k_norm,
    )  # fmt: skip
    linear_backward(b.grad_qkv, a.attention_normed, w.qkv, b.grad_normed, grads.qkv)
    rms_norm_backward(
        b.grad_normed, grad_x, a.attention_x, w.attention_norm, a.attention_scale, grad_x, grads.attention_norm
    )
