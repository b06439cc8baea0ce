"""The loss of a published model, exactly as training measures it."""

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.windows import windows


def evaluate(model: GPT, ids: NDArray[np.integer], window: int | None = None, limit: int | None = None) -> float:
    """Mean cross-entropy in nats a token over `ids` (tokens,), cut as `gptbox.windows` says.

    `window` is the context length unless given, and at most that. All of `ids` is measured, or about `limit` tokens
    of it, evenly spaced; training's own limit is `gptbox.windows.LIMIT`.
    """
    window = min(window or model.config.context_length, model.config.context_length)
    total, tokens = 0.0, 0
    for starts, length in windows(len(ids), window, limit):
        crop = ids[np.array(starts)[:, None] + np.arange(length + 1)].astype(np.int64)  # (windows, length + 1)
        logits = model.forward(crop[:, :-1], KVCache(model.config, len(starts)))
        logits -= logits.max(-1, keepdims=True)
        chosen = np.take_along_axis(logits, crop[:, 1:, None], axis=-1)[..., 0]
        total += float((np.log(np.exp(logits).sum(-1)) - chosen).sum(dtype=np.float64))
        tokens += len(starts) * length
    return total / tokens
