"""Final norm, logits and loss, as the end of `gptbox.train.gpt.GPT.forward`."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptbox.jit.cache import kernel
from gptbox.train.kernels import Floats
from gptbox.train.kernels.blas import linear, linear_backward
from gptbox.train.kernels.layers import add_rms_norm, cross_entropy, rms_norm_backward


class HeadWeights(NamedTuple):
    """The head's weights, or their gradients."""

    norm: Floats
    """(C,)."""
    output: Floats
    """(V, C): the embedding, if embeddings are tied."""


class HeadActivations(NamedTuple):
    """Activations that the head keeps for its backward pass."""

    x: Floats
    """(N, C): the residual stream."""
    scale: Floats
    """(N,): 1 / rms(x)."""
    normed: Floats
    """(N, C)."""
    logits: Floats
    """(N, V)."""
    grad_logits: Floats
    """(N, V): the gradient of the mean loss."""


@kernel(fastmath=True)
def head_forward(
    x: Floats, branch: Floats, eps: np.float32, weights: HeadWeights, targets: NDArray[np.int64],
    activations: HeadActivations,
) -> float:  # fmt: skip
    """The mean loss of targets (N,) in nats, from the last block's x and branch (N, C); writes `activations`."""
    a = activations
    add_rms_norm(x, branch, weights.norm, eps, a.x, a.normed, a.scale)
    linear(a.normed, weights.output, a.logits)
    return cross_entropy(a.logits, targets, a.grad_logits)


@kernel(fastmath=True)
def head_backward(
    weights: HeadWeights, grads: HeadWeights, activations: HeadActivations, grad_normed: Floats, grad_x: Floats
) -> None:
    """Overwrites grad_x (N, C), the residual stream's gradient, and `grads`; grad_normed (N, C) is a buffer."""
    a = activations
    linear_backward(a.grad_logits, a.normed, weights.output, grad_normed, grads.output)
    grad_x[:] = 0
    rms_norm_backward(grad_normed, grad_x, a.x, weights.norm, a.scale, grad_x, grads.norm)
