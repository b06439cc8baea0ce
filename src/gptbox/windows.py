"""How a text is cut for measuring a loss: the one definition behind every val_loss, in torch and in the engine."""

from collections.abc import Iterator

LIMIT = 2**17
"""Tokens that training measures of a split at most; a longer one is measured at evenly spaced places."""

TOKENS_A_BATCH = 2048
"""About how many are measured at once."""


def windows(tokens: int, length: int, limit: int | None = None) -> Iterator[tuple[range, int]]:
    """Cut a text of `tokens` ids into non-overlapping windows: (where each of a batch of them starts, their length).

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
