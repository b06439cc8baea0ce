"""The exact loss over a whole split; `gptbox.engine.evaluate` measures the same without torch."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812

from gptbox.train.gpt import GPT

_TOKENS_A_BATCH = 8192


class Interrupted(Exception):  # noqa: N818  (not an error)
    """Evaluation was asked to end early; there is no loss."""


@torch.inference_mode()
def evaluate(model: GPT, ids: NDArray[np.uint16], stop: Callable[[], bool] = lambda: False) -> float:
    """Mean cross-entropy in nats a token over all of `ids` (tokens,), in non-overlapping windows of the context.

    Each token but the first is predicted once, from those before it in its window; the last window may be shorter.
    Raises Interrupted soon after `stop()` becomes true.
    """
    window = model.config.context_length
    device = model.embedding.weight.device
    whole = (len(ids) - 1) // window
    rows = max(1, _TOKENS_A_BATCH // window)
    cuts = [(i * window, min(whole, i + rows) * window, window) for i in range(0, whole, rows)]
    if rest := (len(ids) - 1) % window:
        cuts.append((whole * window, len(ids) - 1, rest))
    model.eval()
    total = 0.0
    try:
        for start, end, length in cuts:
            if stop():
                raise Interrupted
            crop = torch.from_numpy(ids[start : end + 1].astype(np.int64)).to(device)
            logits = model(crop[:-1].view(-1, length)).flatten(0, 1)
            total += F.cross_entropy(logits, crop[1:], reduction="sum").item()
    finally:
        model.train()
    return total / (len(ids) - 1)
