"""The exact loss over a whole split; `gptbox.engine.evaluate` measures the same without torch."""

import threading
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from gptbox.train import compiled
from gptbox.train.fused import cross_entropy
from gptbox.train.gpt import GPT
from gptbox.train.shards import Shards
from gptbox.windows import LIMIT, windows


class Interrupted(Exception):  # noqa: N818  (not an error)
    """Evaluation was asked to end early; there is no loss."""


def evaluate(
    model: GPT,
    ids: NDArray[np.uint16],
    shards: Shards | None = None,
    stop: Callable[[], bool] = lambda: False,
    limit: int = LIMIT,
) -> float:
    """Mean cross-entropy in nats a token over `ids` (tokens,), or over about `limit` of them: see `gptbox.windows`.

    Raises Interrupted soon after `stop()` becomes true.
    """
    device = model.embedding.weight.device
    thread = threading.local()  # each its own workspace

    @torch.inference_mode()
    def total(batch: tuple[range, int]) -> tuple[float, int]:
        if stop():
            raise Interrupted
        starts, length = batch
        crop = ids[np.array(starts)[:, None] + np.arange(length + 1)].astype(np.int64)  # (windows, length + 1)
        inputs, targets = (torch.from_numpy(part).contiguous().to(device) for part in (crop[:, :-1], crop[:, 1:]))
        if compiled.supports(model):
            shape = len(starts), length
            if getattr(thread, "shape", None) != shape:
                thread.shape, thread.space = shape, compiled.Workspace(model, *shape, backward=False)
            mean = compiled.loss(model, thread.space, inputs, targets)
        else:
            mean = cross_entropy(model(inputs), targets).item()
        return mean * targets.numel(), targets.numel()

    batches = list(windows(len(ids), model.config.context_length, limit))
    totals = shards.map(total, batches) if shards is not None else [total(batch) for batch in batches]
    return sum(loss for loss, _ in totals) / sum(tokens for _, tokens in totals)
