"""The exact loss over a whole split; `gptbox.engine.evaluate` measures the same without torch."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812

from gptbox.train.gpt import GPT
from gptbox.windows import windows


class Interrupted(Exception):  # noqa: N818  (not an error)
    """Evaluation was asked to end early; there is no loss."""


@torch.inference_mode()
def evaluate(model: GPT, ids: NDArray[np.uint16], stop: Callable[[], bool] = lambda: False) -> float:
    """Mean cross-entropy in nats a token over all of `ids` (tokens,), cut as `gptbox.windows` says.

    Raises Interrupted soon after `stop()` becomes true.
    """
    device = model.embedding.weight.device
    model.eval()
    total = 0.0
    try:
        for start, end, length in windows(len(ids), model.config.context_length):
            if stop():
                raise Interrupted
            crop = torch.from_numpy(ids[start : end + 1].astype(np.int64)).to(device)
            logits = model(crop[:-1].view(-1, length)).flatten(0, 1)
            total += F.cross_entropy(logits, crop[1:], reduction="sum").item()
    finally:
        model.train()
    return total / (len(ids) - 1)
