from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.engine.helpers import alone, generate_all, ids, request, run, sink

from gptbox.engine.autotune import Strategy, StrategyTuner
from gptbox.engine.batch import Batch
from gptbox.engine.gpt import GPT
from gptbox.engine.model_runner import _partition
from gptbox.engine.sampling_params import SamplingParams
from gptbox.engine.worker_pool import WorkerPool
from gptbox.models.config import ModelConfig
from gptbox.models.weights import Weights


@pytest.mark.parametrize("tensor_parallel", [False, True])
def test_threads_and_other_rows_change_no_token(
    model: GPT, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch, tensor_parallel: bool
) -> None:
    """Data parallel and tensor parallel."""
    monkeypatch.setattr(StrategyTuner, "choose", lambda self, rows: (Strategy(tensor_parallel, 0), 1.0))
    prompts = [ids(1 + 5 * i, i) for i in range(7)]
    params = [
        SamplingParams(max_tokens=20 + 17 * i, seed=i, top_k=30, top_p=0.95, repetition_penalty=1.1, min_p=0.01)
        for i in range(7)
    ]
    expected = [alone(model, prompt, each) for prompt, each in zip(prompts, params, strict=True)]
    assert generate_all(model, prompts, params, pool) == expected


STRATEGIES = [Strategy(False, 5), Strategy(True, 5), Strategy(False, 1)]


@pytest.mark.parametrize("draft", ["int8", "wrong"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_speculative_decoding_changes_no_output(
    config: ModelConfig, make_weights: Callable[..., Weights], pool: WorkerPool, monkeypatch: pytest.MonkeyPatch,
    temperature: float, strategy: Strategy, draft: str,
) -> None:  # fmt: skip
    """Tokens, log-probabilities and alternatives, over several times the context length."""
    model, prompt = GPT(config, make_weights(config)), ids(5)
    params: list[dict[str, Any]] = [
        {
            "max_tokens": 190, "seed": i, "temperature": temperature, "logprobs": 2, "repetition_penalty": 1 + i,
            "frequency_penalty": i / 2, "logit_bias": {7: i},
        }
        for i in range(3)
    ]  # fmt: skip
    expected = [request(model, prompt, **each) for each in params]
    run(Batch(model, 3), *expected)  # three rows on one thread are decoded without a draft
    if draft == "wrong":
        model.draft = GPT(config, make_weights(config, seed=1)).draft
    monkeypatch.setattr(StrategyTuner, "choose", lambda self, rows: (strategy, 1.0))
    for each, other in zip(params, expected, strict=True):
        single = request(model, prompt, **each)
        run(Batch(model, 1, pool if strategy.tensor_parallel else None), single)
        assert sink(single).ids == sink(other).ids
        assert sink(single).logprobs == sink(other).logprobs
        assert sink(single).alternatives == sink(other).alternatives


def test_most_drafted_tokens_are_accepted(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any temperature, a step yields several tokens."""
    monkeypatch.setattr(StrategyTuner, "choose", lambda self, rows: (Strategy(False, 5), 1.0))
    accepted = []
    for temperature in (0, 0.8):
        batch = Batch(model, 1, interrupt=np.ones(1, np.int64))  # one verification at a time
        batch.add(request(model, ids(5), max_tokens=200, temperature=temperature, seed=1))
        while batch.rows:
            tokens, _ = batch.step()
            accepted.append(tokens)
            batch.remove_finished()
    assert np.mean(accepted) > 3


@pytest.mark.parametrize(
    ("num_new_tokens", "parts", "bounds"),
    [
        ([1, 1, 1, 1], 1, [0, 4]),
        ([1, 1, 1, 1], 2, [0, 2, 4]),
        ([1, 1, 1], 2, [0, 1, 3]),
        ([100, 1, 1, 1], 2, [0, 1, 4]),
        ([1, 1, 1, 100], 2, [0, 4, 4]),
    ],
)
def test_threads_share_the_rows_by_their_tokens(num_new_tokens: list[int], parts: int, bounds: list[int]) -> None:
    assert _partition(np.array(num_new_tokens), parts) == bounds
