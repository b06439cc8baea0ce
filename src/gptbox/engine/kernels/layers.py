"""What a block is made of beside its matrix products, compiled; each works on one token, or one head of one.

C is the width, D a head's, M the hidden layer's. A vector may be longer than what is used of it: rows of
activations are filled up to whole panels of `gptbox.engine.panels`.
"""

from typing import Any

import numpy as np

from gptbox.kernel_cache import kernel
from gptbox.kernel_math import exp
from gptbox.kernel_memory import address, floats

_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)


@kernel(counted=False, finite=True)
def layer_norm(x: Any, weight: Any, bias: Any, eps: float, y: Any) -> None:
    """Ba et al., Layer Normalization, arXiv 1607.06450. `bias` may be empty."""
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


@kernel(counted=False, finite=True)
def rms_norm(x: Any, weight: Any, eps: float, y: Any) -> None:
    """Zhang and Sennrich, Root Mean Square Layer Normalization, arXiv 1910.07467."""
    width = weight.size
    squares = np.float32(0)
    for i in range(width):
        squares += x[i] * x[i]
    scale = _ONE / np.sqrt(squares / np.float32(width) + np.float32(eps))
    for i in range(width):
        y[i] = x[i] * scale * weight[i]


@kernel(counted=False, finite=True)
def gelu(x: Any, y: Any) -> None:
    """Hendrycks and Gimpel, Gaussian Error Linear Units, arXiv 1606.08415.

    The error function to 5e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
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


@kernel(counted=False, finite=True)
def gelu_new(x: Any, y: Any) -> None:
    """GELU by its tanh approximation, as OpenAI's GPT-2 computes it."""
    for i in range(x.size):
        inner = np.float32((2 / np.pi) ** 0.5) * (x[i] + np.float32(0.044715) * x[i] * x[i] * x[i])
        # x (1 + tanh(inner)) / 2
        y[i] = x[i] / (_ONE + exp(-_TWO * inner))


@kernel(counted=False, finite=True)
def swiglu(up: Any, hidden: Any) -> None:
    """silu(gate) times value: Shazeer, GLU Variants Improve Transformer, arXiv 2002.05202.

    In `up` (2 M,) 16 gates stand before their 16 values, and so on: panels hold what belongs together.
    """
    for block in range(hidden.size // 16):
        gate = floats(address(up) + 128 * block, 16)
        value = floats(address(up) + 128 * block + 64, 16)
        out = floats(address(hidden) + 64 * block, 16)
        for i in range(16):
            out[i] = gate[i] / (_ONE + exp(-gate[i])) * value[i]


@kernel(counted=False, finite=True)
def rotate(heads: int, count: int, weight: Any, eps: float, cos: Any, sin: Any) -> None:
    """The norm of each of `count` heads at an address, and its turn by one position's angles, in place.

    The first half of a head is paired with the second, as Qwen does; cos and sin (D / 2,) are the position's.
    Su et al., RoFormer, arXiv 2104.09864.
    """
    half = cos.size
    width = 2 * half
    w0, w1 = floats(address(weight), half), floats(address(weight) + 4 * half, half)
    for h in range(count):
        x0, x1 = floats(heads + 4 * h * width, half), floats(heads + 4 * (h * width + half), half)
        squares = np.float32(0)
        for i in range(half):
            squares += x0[i] * x0[i] + x1[i] * x1[i]
        scale = _ONE / np.sqrt(squares / np.float32(width) + np.float32(eps))
        for i in range(half):
            u, v = x0[i] * scale * w0[i], x1[i] * scale * w1[i]
            x0[i] = u * cos[i] - v * sin[i]
            x1[i] = v * cos[i] + u * sin[i]
