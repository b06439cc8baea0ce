"""The loss of a published model, exactly as training measures it."""

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache

_TOKENS_A_BATCH = 8192


def evaluate(model: GPT, ids: NDArray[np.integer], window: int | None = None) -> float:
    """Mean cross-entropy in nats a token over all of `ids` (tokens,), in non-overlapping windows.

    Each token but the first is predicted once, from those before it in its window of `window` tokens (the context
    length unless given, and at most that). The last window may be shorter.
    """
    window = min(window or model.config.context_length, model.config.context_length)
    inputs, targets = ids[:-1].astype(np.int64), ids[1:].astype(np.int64)
    whole = len(inputs) // window
    rows = max(1, _TOKENS_A_BATCH // window)
    cuts = [(i * window, min(whole, i + rows) * window, window) for i in range(0, whole, rows)]
    if rest := len(inputs) % window:
        cuts.append((whole * window, len(inputs), rest))
    total = 0.0
    for start, end, length in cuts:
        shape = (end - start) // length, length
        logits = model.forward(inputs[start:end].reshape(shape), KVCache(model.config, shape[0]))
        logits -= logits.max(-1, keepdims=True)
        chosen = np.take_along_axis(logits, targets[start:end].reshape(*shape, 1), axis=-1)[..., 0]
        total += float((np.log(np.exp(logits).sum(-1)) - chosen).sum(dtype=np.float64))
    return total / len(inputs)
