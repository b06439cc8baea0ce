"""The windows of a split on which losses are measured. Training and the engine share them, so that losses agree."""

from collections.abc import Iterator

MAX_EVAL_TOKENS = 2**17
"""Maximum number of tokens that training evaluates; a longer split is sampled in evenly spaced windows."""

MAX_ESTIMATE_TOKENS = 20_000
"""Maximum number of tokens for an estimate of the validation loss; every estimate of a split uses the same ones."""

EVAL_BATCH_TOKENS = 2048
"""Approximate number of tokens per evaluation batch."""


def evaluation_windows(num_tokens: int, window: int, max_tokens: int | None = None) -> Iterator[tuple[range, int]]:
    """Cut a split of `num_tokens` ids into non-overlapping windows; yield batches as (starts, length of each window).

    A window that starts at i has the inputs ids[i : i + length] and the targets ids[i + 1 : i + length + 1].

    If the split has at most `max_tokens`, or if that is None, the windows are contiguous: each token but the first is
    predicted once, from the tokens before it in its window. The last window may be shorter and is then a batch of its
    own. A longer split is sampled in `max_tokens // window` whole windows, spaced evenly from its beginning to its end.
    The result depends on the three arguments alone, so that every val_loss of a split is measured on the same tokens.
    """
    inputs = num_tokens - 1
    if max_tokens is None or num_tokens <= max_tokens or inputs < window:
        count, stride, rest = inputs // window, window, inputs % window
    else:
        count = min(max(1, max_tokens // window), inputs // window)
        stride, rest = inputs // count, 0
    batch_size = max(1, EVAL_BATCH_TOKENS // window)
    for first in range(0, count, batch_size):
        yield range(first * stride, min(first + batch_size, count) * stride, stride), window
    if rest:
        yield range(inputs - rest, inputs, rest), rest
