"""The loss of a published model, exactly as training measures it."""

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.windows import windows


def evaluate(model: GPT, ids: NDArray[np.integer], window: int | None = None) -> float:
    """Mean cross-entropy in nats a token over all of `ids` (tokens,), cut as `gptbox.windows` says.

    `window` is the context length unless given, and at most that.
    """
    window = min(window or model.config.context_length, model.config.context_length)
    total = 0.0
    for start, end, length in windows(len(ids), window):
        shape = (end - start) // length, length
        crop = ids[start : end + 1].astype(np.int64)
        logits = model.forward(crop[:-1].reshape(shape), KVCache(model.config, shape[0]))
        logits -= logits.max(-1, keepdims=True)
        chosen = np.take_along_axis(logits, crop[1:].reshape(*shape, 1), axis=-1)[..., 0]
        total += float((np.log(np.exp(logits).sum(-1)) - chosen).sum(dtype=np.float64))
    return total / (len(ids) - 1)
