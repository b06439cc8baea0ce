"""Which tokens are kept when a text outgrows the context. Training and the engine share this rule."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

History = TypeVar("History", list[int], NDArray[np.integer])


def slide_window(history: History, context_length: int) -> History:
    """The tokens kept when the context is full: the newest quarter. `history` has the shape (tokens,).

    A full context cannot be extended: learned positions end there, and cached keys and values depend on tokens that
    would leave the window. nanoGPT recomputes the whole window for every further token. Here the last
    context_length // 4 tokens (at least one) are recomputed from position 0, and generation appends until the window
    is full again. Each token is predicted from between a quarter and the whole of a window, and recomputation adds a
    third to the work per token. Both architectures do the same, in the engine and in torch.
    `benchmarks/LOG.md` has its cost in loss: 0.003 nats for a context of 64, nothing for 256.
    """
    return history[-max(1, context_length // 4) :]
