"""The validation loss of a published model, exactly as training measures it."""

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.models.evaluation import evaluation_windows


def evaluate(model: GPT, ids: NDArray[np.integer], window: int | None = None, limit: int | None = None) -> float:
    """Mean cross-entropy, in nats per token, over `ids` (tokens,) in the windows of `gptbox.models.evaluation`.

    `window` defaults to the context length, its maximum. With `limit`, only about that many tokens are measured, evenly
    spaced; training's own limit is `gptbox.models.evaluation.MAX_EVAL_TOKENS`.
    """
    window = min(window or model.config.context_length, model.config.context_length)
    total, tokens = 0.0, 0
    for starts, length in evaluation_windows(len(ids), window, limit):
        crop = ids[np.array(starts)[:, None] + np.arange(length + 1)].astype(np.int64)  # (windows, length + 1)
        logits = model.forward(crop[:, :-1], KVCache(model.config, len(starts)))
        logits -= logits.max(-1, keepdims=True)
        chosen = np.take_along_axis(logits, crop[:, 1:, None], axis=-1)[..., 0]
        total += float((np.log(np.exp(logits).sum(-1)) - chosen).sum(dtype=np.float64))
        tokens += len(starts) * length
    return total / tokens
