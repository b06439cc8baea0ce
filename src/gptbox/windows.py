"""What of a text a model sees at once, in torch and in the engine: for a loss, and where a context is full."""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

History = TypeVar("History", list[int], NDArray[np.integer])

LIMIT = 2**17
"""Tokens that training measures of a split at most; a longer one is measured at evenly spaced places."""

ESTIMATE_TOKENS = 20_000
"""Tokens of the validation split that an estimate of its loss measures: evenly spaced, always the same ones."""

TOKENS_A_BATCH = 2048
"""About how many are measured at once."""


def windows(tokens: int, length: int, limit: int | None = None) -> Iterator[tuple[range, int]]:
    """Cut a text of `tokens` ids into non-overlapping windows: (where each of a batch of them starts, their length).

    The one definition behind every val_loss.

    A window that starts at i has the inputs ids[i : i + length] and the targets ids[i + 1 : i + length + 1].

    Up to `limit` tokens, or without one, the windows lie side by side, so that each token but the first is predicted
    once, from those before it in its window; the last window may be shorter: it comes alone, with its own length.
    Of more than `limit` tokens only whole windows are taken, `limit // length` of them, all the same distance apart
    from the text's beginning to its end. The cut depends on the three numbers alone.
    """
    inputs = tokens - 1
    if limit is None or tokens <= limit or inputs < length:
        count, distance, rest = inputs // length, length, inputs % length
    else:
        count = min(max(1, limit // length), inputs // length)
        distance, rest = inputs // count, 0
    batch = max(1, TOKENS_A_BATCH // length)
    for first in range(0, count, batch):
        yield range(first * distance, min(first + batch, count) * distance, distance), length
    if rest:
        yield range(inputs - rest, inputs, rest), rest


def slide(history: History, context_length: int) -> History:
    """What stays in view when the context is full: its newest quarter.

    Past the context length a model can no longer just append: learned positions end there, and keys were computed
    from tokens that have left the window. nanoGPT recomputes the whole window for every further token. Here the last
    context_length // 4 tokens (at least one) are computed afresh from position 0, and generation appends again until
    the window is full: each token sees between a quarter of a window and a whole one, at the price of a third of a
    token's work more a token. Both architectures, the engine and torch do the same. `benchmarks/LOG.md` has what it
    costs in loss: 0.003 nats for a context of 64, nothing for 256.
    """
    return history[-max(1, context_length // 4) :]
