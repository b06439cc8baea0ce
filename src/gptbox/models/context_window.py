"""Which tokens are kept when a text outgrows the context. Training and the engine share this rule."""

from collections.abc import Iterator
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


def prediction_windows(num_prompt: int, num_tokens: int, context_length: int) -> Iterator[tuple[int, int, int]]:
    """The windows in which generation from the first `num_prompt` (at least one) of `num_tokens` tokens sees the rest.

    Yields (start, first, stop): each of the tokens first to stop - 1 is predicted from those between `start` and it, at
    most context_length.
    """
    start, first = max(0, num_prompt - context_length), num_prompt
    while first < num_tokens:
        stop = min(num_tokens, start + context_length + 1)
        yield start, first, stop
        start, first = stop - len(slide_window([0] * context_length, context_length)), stop
