"""Weights laid out so that a product of a few rows with them streams through the registers.

A panel is the weights of 32 outputs, (I, 32), one input after the other; see `gptbox.engine.kernels.product`.
Shapes: I inputs, O outputs.
"""

import numpy as np
from numpy.typing import NDArray

from gptbox.weights import Array

PANEL = 32
"""Outputs that are computed together."""


def padded(outputs: int) -> int:
    """`outputs`, up to a whole number of panels."""
    return -(-outputs // PANEL) * PANEL


def pack(weight: Array) -> Array:
    """(O, I) -> (O / 32, I, 32), with zeros for the outputs that fill up the last panel."""
    outputs, inputs = weight.shape
    full = np.zeros((padded(outputs), inputs), np.float32)
    full[:outputs] = weight
    return np.ascontiguousarray(full.reshape(-1, PANEL, inputs).transpose(0, 2, 1))


def quantize(panels: Array) -> tuple[NDArray[np.int8], Array]:
    """Packed weights in 8 bits, and the step (O,) of each output's: the largest becomes 127.

    Dettmers et al., LLM.int8(), arXiv 2208.07339, of whose vector-wise scheme this is the weights' side.
    """
    steps = np.abs(panels).max(axis=1) / np.float32(127)  # (panels, 32)
    whole = np.rint(panels / np.where(steps == 0, 1, steps)[:, None]).astype(np.int8)
    return whole, steps.reshape(-1).astype(np.float32)
