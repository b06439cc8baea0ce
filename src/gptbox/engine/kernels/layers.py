"""A block's layers other than matrix products; each works on one token, or on one token's heads.

C = n_embd, D = head_dim, M the MLP's width. A vector may be longer than its used part: activation rows are padded to
whole panels of `gptbox.engine.packing`.
"""

import numpy as np

from gptbox.jit.cache import kernel
from gptbox.jit.math import exp
from gptbox.jit.pointers import address, float32s
from gptbox.models.weights import Array

_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)


@kernel(nrt=False, fastmath=True)
def layer_norm(x: Array, weight: Array, bias: Array, eps: float, y: Array) -> None:
    """y (C,) of x (C,): Ba et al., Layer Normalization, arXiv 1607.06450. `bias` may be empty."""
    width = weight.size
    mean = np.float32(0)
    for i in range(width):
        mean += x[i]
    mean /= np.float32(width)
    squares = np.float32(0)
    for i in range(width):
        squares += (x[i] - mean) * (x[i] - mean)
    scale = _ONE / np.sqrt(squares / np.float32(width) + np.float32(eps))
    for i in range(width):
        y[i] = (x[i] - mean) * scale * weight[i]
    for i in range(bias.size):
        y[i] += bias[i]


@kernel(nrt=False, fastmath=True)
def rms_norm(x: Array, weight: Array, eps: float, y: Array) -> None:
    """y (C,) of x (C,): Zhang and Sennrich, Root Mean Square Layer Normalization, arXiv 1910.07467."""
    width = weight.size
    squares = np.float32(0)
    for i in range(width):
        squares += x[i] * x[i]
    scale = _ONE / np.sqrt(squares / np.float32(width) + np.float32(eps))
    for i in range(width):
        y[i] = x[i] * scale * weight[i]


@kernel(nrt=False, fastmath=True)
def gelu(x: Array, y: Array) -> None:
    """y (M,) of x (M,): Hendrycks and Gimpel, Gaussian Error Linear Units, arXiv 1606.08415.

    The error function is accurate to 5e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
    """
    for i in range(x.size):
        a = abs(x[i]) * np.float32(0.5**0.5)
        t = _ONE / (_ONE + np.float32(0.3275911) * a)
        series = t * np.float32(1.061405429) - np.float32(1.453152027)
        series = series * t + np.float32(1.421413741)
        series = series * t - np.float32(0.284496736)
        series = series * t + np.float32(0.254829592)
        half = _HALF * x[i]
        # 1 - erf(a) is series * t * e^(-a^2)
        y[i] = half + abs(half) * (_ONE - series * t * exp(-a * a))


@kernel(nrt=False, fastmath=True)
def gelu_new(x: Array, y: Array) -> None:
    """y (M,) of x (M,): GELU by its tanh approximation, as OpenAI's GPT-2 computes it."""
    for i in range(x.size):
        inner = np.float32((2 / np.pi) ** 0.5) * (x[i] + np.float32(0.044715) * x[i] * x[i] * x[i])
        # x (1 + tanh(inner)) / 2
        y[i] = x[i] / (_ONE + exp(-_TWO * inner))


@kernel(nrt=False, fastmath=True)
def swiglu(up: Array, hidden: Array) -> None:
    """hidden (M,) = silu(gate) * value: Shazeer, GLU Variants Improve Transformer, arXiv 2002.05202.

    `up` (2 M,) alternates 16 gates and their 16 values, so that a panel holds both.
    """
    for block in range(hidden.size // 16):
        gate = float32s(address(up) + 128 * block, 16)
        value = float32s(address(up) + 128 * block + 64, 16)
        out = float32s(address(hidden) + 64 * block, 16)
        for i in range(16):
            out[i] = gate[i] / (_ONE + exp(-gate[i])) * value[i]


@kernel(nrt=False, fastmath=True)
def rotate(heads: int, num_heads: int, weight: Array, eps: float, cos: Array, sin: Array) -> None:
    """Apply QK-norm and rotary embedding, in place, to `num_heads` heads (D,) at address `heads`.

    As in Qwen3, a head's first half is paired with its second; cos and sin (D / 2,) are those of the token's position.
    Su et al., RoFormer, arXiv 2104.09864.
    """
    half = cos.size
    width = 2 * half
    w0, w1 = float32s(address(weight), half), float32s(address(weight) + 4 * half, half)
    for h in range(num_heads):
        x0, x1 = float32s(heads + 4 * h * width, half), float32s(heads + 4 * (h * width + half), half)
        squares = np.float32(0)
        for i in range(half):
            squares += x0[i] * x0[i] + x1[i] * x1[i]
        scale = _ONE / np.sqrt(squares / np.float32(width) + np.float32(eps))
        for i in range(half):
            u, v = x0[i] * scale * w0[i], x1[i] * scale * w1[i]
            x0[i] = u * cos[i] - v * sin[i]
            x1[i] = v * cos[i] + u * sin[i]
