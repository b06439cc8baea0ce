"""What an evaluation measures of a model: its loss, estimated or exact, and a sample of what it writes."""

import time
from collections.abc import Callable
from typing import Any

from gptbox.datasets.prepared import PreparedDataset
from gptbox.train.budget import Budget
from gptbox.train.evaluate import evaluate
from gptbox.train.evaluation_schedule import Cost
from gptbox.train.gpt import GPT
from gptbox.train.shards import Shards
from gptbox.windows import ESTIMATE_TOKENS, LIMIT

SAMPLE_TOKENS = 300
SAMPLE_PROMPT = "\n"


class Evaluator:
    """Measures models on the validation split of one dataset; losses are in nats a token."""

    def __init__(self, dataset: PreparedDataset, shards: Shards, stop: Callable[[], bool]) -> None:
        """Once `stop()` is true, a measurement in progress raises Interrupted."""
        self._dataset, self._shards, self._stop = dataset, shards, stop
        tokens = len(dataset.val)
        self.estimate_tokens, self.exact_tokens = min(tokens, ESTIMATE_TOKENS), min(tokens, LIMIT)

    def estimate(self, model: GPT) -> float:
        """The loss over a small fixed part of the split."""
        return evaluate(model, self._dataset.val, self._shards, self._stop, ESTIMATE_TOKENS)

    def exact(self, model: GPT) -> float:
        """The loss over the whole split, or over the LIMIT of `gptbox.windows` of a longer one."""
        return evaluate(model, self._dataset.val, self._shards, self._stop, LIMIT)

    @property
    def estimate_is_exact(self) -> bool:
        """Whether the split is so short that an estimate measures all of it."""
        return self.estimate_tokens == len(self._dataset.val)

    def sample(self, model: GPT, seed: int) -> dict[str, Any]:
        """What the model writes after a line break: prompt, seed and text."""
        tokenizer = self._dataset.tokenizer
        prompt = tokenizer.encode(SAMPLE_PROMPT).tolist()
        ids = model.generate(prompt, SAMPLE_TOKENS, temperature=0.8, top_k=200, seed=seed)
        return {"prompt": SAMPLE_PROMPT, "seed": seed, "text": tokenizer.decode(ids)}

    def guess_cost(self, model: GPT, budget: Budget) -> Cost:
        """What an evaluation may cost, before there has been one: by the forward pass over a few tokens."""
        some = self._dataset.val[: 2 * 2048 * self._shards.count]
        evaluate(model, some, self._shards)  # the first call is slower
        began, began_cpu = budget.spent_s, time.process_time()
        evaluate(model, some, self._shards)
        scale = self.estimate_tokens / len(some)
        estimate_s, cpu_s = (budget.spent_s - began) * scale, (time.process_time() - began_cpu) * scale
        return Cost(estimate_s + 0.3, cpu_s + 0.3, estimate_s)
