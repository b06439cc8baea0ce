"""Evaluating a model: its loss on the validation split, exact or estimated, a sample of its text, what it has learned.

`gptbox.engine.evaluate` measures the same loss without torch.
"""

import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gptbox.datasets.prepared import PreparedDataset
from gptbox.datasets.words import TrainingWords
from gptbox.models.evaluation import MAX_ESTIMATE_TOKENS, MAX_EVAL_TOKENS, evaluation_windows
from gptbox.train import cpu_backend
from gptbox.train.budget import Budget
from gptbox.train.data_parallel import DataParallel
from gptbox.train.decoder import CompiledDecoder
from gptbox.train.evaluation_schedule import EvaluationCost
from gptbox.train.fresh_line import MAX_TOKENS, LineReader
from gptbox.train.gpt import GPT
from gptbox.train.ops import cross_entropy
from gptbox.train.predictions import Predictions

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
    predictions: list[Predictions] | None = None,
) -> float:
    """Mean cross-entropy in nats per token over `ids` (tokens,), or about `limit` of them; see `models.evaluation`.

    `predictions` gets the model's, batch by batch. Raises Interrupted soon after `stop()` becomes true.
    """
    device = model.embedding.weight.device
    thread = threading.local()  # one workspace per thread

    @torch.inference_mode()
    def total_loss(batch: tuple[range, int]) -> tuple[float, Predictions]:
        if stop():
            raise Interrupted
        starts, length = batch
        crop = ids[np.array(starts)[:, None] + np.arange(length + 1)].astype(np.int64)  # (windows, length + 1)
        inputs, targets = (torch.from_numpy(part).contiguous().to(device) for part in (crop[:, :-1], crop[:, 1:]))
        likeliest = np.empty(0, np.int64)
        if cpu_backend.supports(model):
            shape = len(starts), length
            if getattr(thread, "shape", None) != shape:
                thread.shape, thread.workspace = shape, cpu_backend.Workspace(model, *shape, backward=False)
            mean = cpu_backend.loss(model, thread.workspace, inputs, targets)
            if predictions is not None:
                likeliest = cpu_backend.likeliest(thread.workspace)
        else:
            logits = model(inputs)
            mean = cross_entropy(logits, targets).item()
            if predictions is not None:
                likeliest = logits.argmax(-1).flatten().cpu().numpy()
        return mean * targets.numel(), Predictions(crop[:, 1:].reshape(-1), likeliest)

    batches = list(evaluation_windows(len(ids), model.config.context_length, limit))
    if data_parallel is not None:
        totals = data_parallel.map(total_loss, batches)
    else:
        totals = [total_loss(batch) for batch in batches]
    if predictions is not None:
        predictions += [batch for _, batch in totals]
    return sum(loss for loss, _ in totals) / sum(len(batch.expected) for _, batch in totals)


class Estimate(NamedTuple):
    """An estimate of the validation loss."""

    loss: float
    """In nats per token."""
    predictions: Predictions
    """The model's at the tokens that the loss is the mean of."""


class Evaluator:
    """Evaluates models on the validation split of one dataset; losses are in nats per token."""

    def __init__(self, dataset: PreparedDataset, data_parallel: DataParallel, stop: Callable[[], bool]) -> None:
        """Once `stop()` is true, a running evaluation raises Interrupted."""
        self._dataset, self._data_parallel, self._stop = dataset, data_parallel, stop
        tokens = len(dataset.val)
        self.estimate_tokens, self.exact_tokens = min(tokens, MAX_ESTIMATE_TOKENS), min(tokens, MAX_EVAL_TOKENS)

    def estimate(self, model: GPT) -> Estimate:
        """The loss over a small fixed part of the split."""
        predictions: list[Predictions] = []
        val = self._dataset.val
        loss = evaluate(model, val, self._data_parallel, self._stop, MAX_ESTIMATE_TOKENS, predictions)
        return Estimate(loss, Predictions.concatenate(predictions))

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
        ids = self._generate(model, prompt, SAMPLE_TOKENS, seed)
        if tokenizer.eos_id in ids:
            ids = ids[: ids.index(tokenizer.eos_id)]
        return {"prompt": SAMPLE_PROMPT, "seed": seed, "text": tokenizer.stream_decoder(prompt).push(ids)}

    def learned(self, model: GPT, text: str, predictions: Predictions, seed: int, step: int) -> dict[str, Any]:
        """What the model has learned by this step, to be stored with the sample `text`. Shares are from 0 to 1.

            real_words   share of the sample's words that occur in the training text; None if it cannot be said
            accuracy     share of right predictions; None without any
            confusion    the commonest wrong one, with its share of all wrong ones; None if none is wrong
            line         a line that the model writes, another one at each step; None if it writes white space

        The run's `seed` and `step` determine the line.
        """
        line_seed = np.random.Philox(key=np.array([seed, step], np.uint64)).random_raw()
        learned: dict[str, Any] = {
            "real_words": _rounded(self._words.share(text)),
            "accuracy": _rounded(predictions.accuracy),
            "confusion": None,
            "line": self._fresh_line(model, int(line_seed)),
        }
        if confusion := predictions.confusion:
            token_text = self._dataset.tokenizer.token_text
            learned["confusion"] = {
                "expected": token_text(confusion.expected),
                "predicted": token_text(confusion.predicted),
                "share": _rounded(confusion.share),
            }
        return learned

    def collect_words(self) -> None:
        """Collect the training text's words now, not in the first evaluation, which stands for the cost of others."""
        _ = self._words

    @cached_property
    def _words(self) -> TrainingWords:
        return TrainingWords.of(self._dataset)

    def _fresh_line(self, model: GPT, seed: int) -> str | None:
        """See LineReader."""
        prompt = self._dataset.tokenizer.encode(SAMPLE_PROMPT).tolist()
        reader = LineReader(self._dataset.tokenizer, prompt)
        self._generate(model, prompt, MAX_TOKENS, seed, reader.push)
        return reader.line

    def _generate(
        self, model: GPT, prompt: list[int], max_tokens: int, seed: int, until: Callable[[int], bool] | None = None
    ) -> list[int]:
        decoder = CompiledDecoder(model) if cpu_backend.supports(model) else None
        return model.generate(
            prompt, max_tokens, temperature=0.8, top_k=200, seed=seed, decoder=decoder,
            constraint=self._dataset.tokenizer.utf8_constraint, until=until,
        )  # fmt: skip

    def predict_cost(self, model: GPT, budget: Budget) -> EvaluationCost:
        """Predict the cost of an evaluation before the first one, from the time of a forward pass over a few tokens."""
        ids = self._dataset.val[: 2 * 2048 * self._data_parallel.num_workers]
        evaluate(model, ids, self._data_parallel)  # warm-up: the first call is slower
        began, began_cpu = budget.spent_s, time.process_time()
        evaluate(model, ids, self._data_parallel)
        scale = self.estimate_tokens / len(ids)
        estimate_s, cpu_s = (budget.spent_s - began) * scale, (time.process_time() - began_cpu) * scale
        return EvaluationCost(estimate_s + 0.3, cpu_s + 0.3, estimate_s)


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
