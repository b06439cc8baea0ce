"""Make requests to the engine, and collect their tokens."""

import ctypes
from typing import Any

import numpy as np
import pytest

from gptbox.engine import native
from gptbox.engine.batch import Batch
from gptbox.engine.generate import generate
from gptbox.engine.gpt import GPT
from gptbox.engine.request import Logprobs, Request
from gptbox.engine.sampling_params import SamplingParams
from gptbox.engine.worker_pool import WorkerPool


def ids(count: int, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65, count)


def generate_all(
    model: GPT, prompts: list[Any], params: list[SamplingParams], pool: WorkerPool | None = None
) -> list[list[int]]:
    texts: list[list[int]] = [[] for _ in prompts]
    for outputs in generate(model, [np.array(prompt) for prompt in prompts], params, pool):
        for text, new in zip(texts, outputs, strict=True):
            text += new
    return texts


def alone(model: GPT, prompt: Any, params: SamplingParams) -> list[int]:
    return generate_all(model, [prompt], [params])[0]


class Collected:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.alternatives: list[list[tuple[int, float]]] = []
        self.of_prompt: Logprobs | None = None

    def prompt(self, logprobs: Logprobs) -> None:
        assert not self.ids
        self.of_prompt = logprobs

    def tokens(self, ids: list[int], logprobs: Logprobs | None) -> None:
        self.ids += ids
        if logprobs is not None:
            assert len(ids) == len(logprobs.chosen) == len(logprobs.alternatives)
            self.logprobs += logprobs.chosen
            self.alternatives += logprobs.alternatives

    def end(self, error: Exception | None) -> None:
        assert error is None


def run(batch: Batch, *requests: Request) -> None:
    for request in requests:
        batch.add(request)
    batch.remove_finished()
    while batch.rows:
        batch.step()
        batch.remove_finished()


def request(model: GPT, prompt: Any, prompt_logprobs: bool = False, **params: Any) -> Request:
    return Request(
        model=model, prompt=np.array(prompt), params=SamplingParams(**params), sink=Collected(),
        prompt_logprobs=prompt_logprobs,
    )  # fmt: skip


def sink(request: Request) -> Collected:
    assert isinstance(request.sink, Collected)
    return request.sink


def count_new_tokens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of new tokens of each call of decode_steps from now on."""
    counts: list[int] = []
    original = native.decode_steps

    def counting(*arguments: int) -> int:
        num_new_tokens, rows = ctypes.cast(arguments[2], ctypes.POINTER(ctypes.c_int64)), arguments[4]
        counts.append(sum(num_new_tokens[:rows]))
        return original(*arguments)

    monkeypatch.setattr(native, "decode_steps", counting)
    return counts
