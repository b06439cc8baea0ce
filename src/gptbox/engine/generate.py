"""Generation without a scheduler: for the command line and for tests."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.batch import Batch
from gptbox.engine.gpt import GPT
from gptbox.engine.request import Logprobs, Request
from gptbox.engine.sampling_params import SamplingParams
from gptbox.engine.worker_pool import WorkerPool


class _ListSink(list[int]):
    """A sink that collects the tokens."""

    def prompt(self, logprobs: Logprobs) -> None:
        pass

    def tokens(self, ids: list[int], logprobs: Logprobs | None) -> None:
        self.extend(ids)

    def end(self, error: Exception | None) -> None:
        if error is not None:
            raise error


def generate(
    model: GPT, prompts: Sequence[NDArray[np.integer]], params: Sequence[SamplingParams], pool: WorkerPool | None = None
) -> Iterator[list[list[int]]]:
    """Continue each prompt (tokens,), in the calling thread; yields each one's new tokens as they are generated.

    A stop token is the last token of its text.
    """
    batch, sinks = Batch(model, len(prompts), pool), [_ListSink() for _ in prompts]
    for prompt, each, sink in zip(prompts, params, sinks, strict=True):
        batch.add(Request(model=model, prompt=prompt, params=each, sink=sink))
    batch.remove_finished()
    while batch.rows:
        batch.step()
        batch.remove_finished()
        yield [list(sink) for sink in sinks]
        for sink in sinks:
            sink.clear()
