"""How a text is cut for measuring a loss: the one definition behind every val_loss, in torch and in the engine."""

from collections.abc import Iterator

_TOKENS_A_BATCH = 8192


def windows(tokens: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Cut a text of `tokens` ids into non-overlapping windows: (start, end, length) of each batch of them.

    ids[start:end] are the inputs, whole windows of `length`, and ids[start + 1 : end + 1] the targets. So each token
    but the first is predicted once, from those before it in its window. The last window may be shorter: it comes
    alone, with its own length.
    """
    inputs = tokens - 1
    whole = inputs - inputs % length
    batch = max(1, _TOKENS_A_BATCH // length) * length
    for start in range(0, whole, batch):
        yield start, min(whole, start + batch), length
    if whole < inputs:
        yield whole, inputs, inputs - whole
