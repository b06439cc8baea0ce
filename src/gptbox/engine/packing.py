"""Weight packing and int8 quantization for `gptbox.engine.kernels.matmul`.

A panel holds the weights of 32 outputs, (I, 32), input by input. Shapes: I inputs, O outputs.
"""

import numpy as np
from numpy.typing import NDArray

from gptbox.models.weights import Array

PANEL = 32
"""Outputs per panel."""


def padded(outputs: int) -> int:
    """`outputs` rounded up to whole panels."""
    return -(-outputs // PANEL) * PANEL


def pack(weight: Array) -> Array:
    """(O, I) -> (O / 32, I, 32), the last panel padded with zeros."""
    outputs, inputs = weight.shape
    full = np.zeros((padded(outputs), inputs), np.float32)
    full[:outputs] = weight
    return np.ascontiguousarray(full.reshape(-1, PANEL, inputs).transpose(0, 2, 1))


def quantize(panels: Array) -> tuple[NDArray[np.int8], Array]:
    """(O / 32, I, 32) -> symmetric int8 weights and scales (O padded to whole panels,).

    Each output's largest magnitude becomes 127.

    The weight half of vector-wise quantization: Dettmers et al., LLM.int8(), arXiv 2208.07339.
    """
    scales = np.abs(panels).max(axis=1) / np.float32(127)  # (panels, 32)
    quantized = np.rint(panels / np.where(scales == 0, 1, scales)[:, None]).astype(np.int8)
    return quantized, scales.reshape(-1).astype(np.float32)
