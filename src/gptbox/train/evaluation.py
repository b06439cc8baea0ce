"""Evaluating a model on the validation split: its loss, exact or estimated, and a sample of its text.

`gptbox.engine.evaluate` measures the same loss without torch.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gptbox.datasets.prepared import PreparedDataset
from gptbox.models.evaluation import MAX_ESTIMATE_TOKENS, MAX_EVAL_TOKENS, evaluation_windows
from gptbox.train import cpu_backend
from gptbox.train.budget import Budget
from gptbox.train.data_parallel import DataParallel
from gptbox.train.decoder import CompiledDecoder
from gptbox.train.evaluation_schedule import EvaluationCost
from gptbox.train.gpt import GPT
from gptbox.train.ops import cross_entropy

SAMPLE_TOKENS = 300
SAMPLE_PROMPT = "\n"


class Interrupted(Exception):  # noqa: N818  (not an error)
    """A stop was requested during an evaluation, which therefore has no result."""


def evaluate(
    model: GPT,
    ids: NDArray[np.unsignedinteger],
    data_parallel: DataParallel | None = None,
    stop: Callable[[], bool] = lambda: False,
    limit: int = MAX_EVAL_TOKENS,
) -> float:
    """Mean cross-entropy in nats per token over `ids` (tokens,), or about `limit` of them; see `models.evaluation`.

    Raises Interrupted soon after `stop()` becomes true.
    """
    device = model.embedding.weight.device
    thread = threading.local()  # one workspace per thread

    @torch.inference_mode()
    def total_loss(batch: tuple[range, int]) -> tuple[float, int]:
        if stop():
            raise Interrupted
        starts, length = batch
        crop = ids[np.array(starts)[:, None] + np.arange(length + 1)].astype(np.int64)  # (windows, length + 1)
        inputs, targets = (torch.from_numpy(part).contiguous().to(device) for part in (crop[:, :-1], crop[:, 1:]))
        if cpu_backend.supports(model):
            shape = len(starts), length
            if getattr(thread, "shape", None) != shape:
                thread.shape, thread.workspace = shape, cpu_backend.Workspace(model, *shape, backward=False)
            mean = cpu_backend.loss(model, thread.workspace, inputs, targets)
        else:
            mean = cross_entropy(model(inputs), targets).item()
        return mean * targets.numel(), targets.numel()

    batches = list(evaluation_windows(len(ids), model.config.context_length, limit))
    if data_parallel is not None:
        totals = data_parallel.map(total_loss, batches)
    else:
        totals = [total_loss(batch) for batch in batches]
    return sum(loss for loss, _ in totals) / sum(tokens for _, tokens in totals)


class Evaluator:
    """Evaluates models on the validation split of one dataset; losses are in nats per token."""

    def __init__(self, dataset: PreparedDataset, data_parallel: DataParallel, stop: Callable[[], bool]) -> None:
        """Once `stop()` is true, a running evaluation raises Interrupted."""
        self._dataset, self._data_parallel, self._stop = dataset, data_parallel, stop
        tokens = len(dataset.val)
        self.estimate_tokens, self.exact_tokens = min(tokens, MAX_ESTIMATE_TOKENS), min(tokens, MAX_EVAL_TOKENS)

    def estimate(self, model: GPT) -> float:
        """The loss over a small fixed part of the split."""
        return evaluate(model, self._dataset.val, self._data_parallel, self._stop, MAX_ESTIMATE_TOKENS)

    def exact(self, model: GPT) -> float:
        """The loss over the whole split, or over about MAX_EVAL_TOKENS of a longer one (`gptbox.models.evaluation`)."""
        return evaluate(model, self._dataset.val, self._data_parallel, self._stop, MAX_EVAL_TOKENS)

    @property
    def estimate_is_exact(self) -> bool:
        """Whether an estimate covers the whole split."""
        return self.estimate_tokens == len(self._dataset.val)

    def sample(self, model: GPT, seed: int) -> dict[str, Any]:
        """Text that the model generates after a line break, up to an end of text: prompt, seed and text."""
        tokenizer = self._dataset.tokenizer
        prompt = tokenizer.encode(SAMPLE_PROMPT).tolist()
        decoder = CompiledDecoder(model) if cpu_backend.supports(model) else None
        ids = model.generate(
            prompt, SAMPLE_TOKENS, temperature=0.8, top_k=200, seed=seed, decoder=decoder,
            constraint=tokenizer.utf8_constraint,
        )  # fmt: skip
        if tokenizer.eos_id in ids:
            ids = ids[: ids.index(tokenizer.eos_id)]
        return {"prompt": SAMPLE_PROMPT, "seed": seed, "text": tokenizer.stream_decoder(prompt).push(ids)}

    def predict_cost(self, model: GPT, budget: Budget) -> EvaluationCost:
        """Predict the cost of an evaluation before the first one, from the time of a forward pass over a few tokens."""
        ids = self._dataset.val[: 2 * 2048 * self._data_parallel.num_workers]
        evaluate(model, ids, self._data_parallel)  # warm-up: the first call is slower
        began, began_cpu = budget.spent_s, time.process_time()
        evaluate(model, ids, self._data_parallel)
        scale = self.estimate_tokens / len(ids)
        estimate_s, cpu_s = (budget.spent_s - began) * scale, (time.process_time() - began_cpu) * scale
        return EvaluationCost(estimate_s + 0.3, cpu_s + 0.3, estimate_s)
