"""Muon's step for one weight matrix."""

import numpy as np

from gptbox.jit.cache import kernel
from gptbox.train.kernels import Floats
from gptbox.train.kernels.blas import gemm_nn, gemm_nt, gemm_tn

QUINTIC = (np.float32(3.4445), np.float32(-4.7750), np.float32(2.0315))
"""Coefficients of the polynomial that drives singular values towards 1: Jordan's Muon, see `gptbox.train.optim`."""


@kernel(fastmath=True)
def muon(
    weight: Floats, grad: Floats, momentum: Floats, beta: np.float32, rate: np.float32, decay: np.float32, steps: int,
    x: Floats, next_x: Floats, gram: Floats, next_gram: Floats,
) -> None:  # fmt: skip
    """Updates weight and momentum by grad, all (R, C); see `gptbox.train.optim.Muon`.

    `rate` is the learning rate scaled for the matrix's shape, `decay` a factor on the weights, `steps` the number of
    Newton-Schulz iterations. Buffers: x and next_x (R, C), gram and next_gram (min(R, C), min(R, C)).
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
    for _ in range(steps):
        if rows <= columns:
            gemm_nt(1, x, x, 0, gram)
        else:
            gemm_tn(1, x, x, 0, gram)
        for i in range(size):
            for j in range(size):
                next_gram[i, j] = gram[i, j] * b
            next_gram[i, i] += a
        gemm_nn(c, gram, gram, 1, next_gram)
        if rows <= columns:
            gemm_nn(1, next_gram, x, 0, next_x)
        else:
            gemm_nn(1, x, next_gram, 0, next_x)
        x, next_x = next_x, x
    for i in range(rows):
        for j in range(columns):
            weight[i, j] = weight[i, j] * decay - rate * x[i, j]
