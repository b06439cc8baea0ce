"""Stop tokens and min_tokens in a batch: whichever rows, threads and drafts, the text is that of one without them."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.engine.helpers import Collected, alone, generate_all, ids, request, run, sink

from gptbox.engine.autotune import Strategy, StrategyTuner
from gptbox.engine.batch import Batch
from gptbox.engine.gpt import GPT
from gptbox.engine.request import Request
from gptbox.engine.sampling_params import SamplingParams
from gptbox.engine.scheduler import Scheduler
from gptbox.engine.worker_pool import WorkerPool
from gptbox.errors import EngineError
from gptbox.models.config import ModelConfig

PROMPTS = [ids(1 + 5 * i, i) for i in range(6)]
LENGTHS = [90, 3, 200, 41, 64, 17]
"""Some several times the context of 32 tokens."""


def plain(i: int, **more: Any) -> SamplingParams:
    """The parameters of text i without stop tokens."""
    return SamplingParams(**{"max_tokens": LENGTHS[i], "temperature": 0.8, "seed": i, "logprobs": 1, **more})


def up_to_stop(tokens: list[int], stop_tokens: tuple[int, ...], min_tokens: int = 0) -> list[int]:
    """The tokens up to the first stop token, included."""
    end = next((i + 1 for i in range(min_tokens, len(tokens)) if tokens[i] in stop_tokens), len(tokens))
    return tokens[:end]


@pytest.fixture
def unstopped(model: GPT) -> list[list[int]]:
    return [alone(model, prompt, plain(i)) for i, prompt in enumerate(PROMPTS)]


def stops_of(unstopped: list[list[int]]) -> list[tuple[int, ...]]:
    """For each text stop tokens that end it at the first token, in the middle, at the last one, or not at all."""
    unused = sorted(set(range(65)) - set(unstopped[3]))
    return [
        (unstopped[0][30], 64), (), (unstopped[2][150], unstopped[2][151]), tuple(unused[:3]), (unstopped[4][-1],),
        (unstopped[5][0],),
    ]  # fmt: skip


@pytest.mark.parametrize("tensor_parallel", [False, True])
@pytest.mark.parametrize("slice_s", [0.0, 0.002, 0.1])
def test_a_text_is_the_same_up_to_its_stop_token(
    model: GPT, pool: WorkerPool, unstopped: list[list[int]], monkeypatch: pytest.MonkeyPatch,
    tensor_parallel: bool, slice_s: float,
) -> None:  # fmt: skip
    """Whatever the number of steps after it."""
    monkeypatch.setattr(StrategyTuner, "choose", lambda self, rows: (Strategy(tensor_parallel, 0), 1.0))
    monkeypatch.setattr("gptbox.engine.batch.TIME_SLICE_S", slice_s)
    stops = stops_of(unstopped)
    params = [plain(i, stop_token_ids=stop) for i, stop in enumerate(stops)]
    expected = [up_to_stop(text, stop) for text, stop in zip(unstopped, stops, strict=True)]
    assert [len(text) for text in expected][1::2] == [3, 41, 1]
    assert len(expected[0]) <= 31
    assert generate_all(model, PROMPTS, params, pool) == expected


@pytest.mark.parametrize("strategy", [Strategy(False, 5), Strategy(True, 5), Strategy(False, 0)])
def test_a_draft_changes_neither_text_nor_log_probabilities(
    model: GPT, pool: WorkerPool, unstopped: list[list[int]], monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    requests = [request(model, prompt, **vars(plain(i))) for i, prompt in enumerate(PROMPTS)]
    run(Batch(model, 6), *requests)
    monkeypatch.setattr(StrategyTuner, "choose", lambda self, rows: (strategy, 1.0))
    for i, stop in enumerate(stops_of(unstopped)):
        stopped = request(model, PROMPTS[i], **vars(plain(i, stop_token_ids=stop)))
        run(Batch(model, 1, pool if strategy.tensor_parallel else None), stopped)
        count = len(up_to_stop(unstopped[i], stop))
        assert sink(stopped).ids == unstopped[i][:count]
        assert sink(stopped).logprobs == sink(requests[i]).logprobs[:count]
        assert sink(stopped).alternatives == sink(requests[i]).alternatives[:count]


@pytest.mark.parametrize("draft", [0, 5])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_stop_tokens_are_not_sampled_before_min_tokens(
    model: GPT, monkeypatch: pytest.MonkeyPatch, draft: int, temperature: float
) -> None:
    """Until then the text is that of a model that gives them no probability."""
    monkeypatch.setattr(StrategyTuner, "choose", lambda self, rows: (Strategy(False, draft), 1.0))
    random = np.random.default_rng(3)
    for i, minimum in enumerate((1, 2, 9, 40, 64, 5)):
        common: dict[str, Any] = {"temperature": temperature, "max_tokens": 64}
        stop = tuple(random.choice(65, 20, replace=False).tolist())
        forbidden = dict.fromkeys(stop, -np.inf)
        text = alone(model, PROMPTS[i], plain(i, **common, stop_token_ids=stop, min_tokens=minimum))
        assert text[:minimum] == alone(
            model, PROMPTS[i], plain(i, **common | {"max_tokens": minimum}, logit_bias=forbidden)
        )
        assert text == up_to_stop(text, stop)
        assert len(text) == 64 or text[-1] in stop
        # A text's min_tokens and stop tokens concern no other row, and none of the others' concern it.
        others = [plain(j, stop_token_ids=(j,), min_tokens=min(3, LENGTHS[j])) for j in range(6)]
        others[i] = plain(i, **common, stop_token_ids=stop, min_tokens=minimum)
        assert generate_all(model, PROMPTS, others)[i] == text


def test_the_eos_ends_a_text_unless_it_is_ignored(model: GPT, unstopped: list[list[int]]) -> None:
    eos = unstopped[0][20]
    assert alone(model, PROMPTS[0], plain(0, eos_token_id=eos)) == up_to_stop(unstopped[0], (eos,))
    assert alone(model, PROMPTS[0], plain(0, eos_token_id=eos, ignore_eos=True)) == unstopped[0]
    stopped = alone(model, PROMPTS[0], plain(0, eos_token_id=eos, ignore_eos=True, stop_token_ids=(eos,)))
    assert stopped == up_to_stop(unstopped[0], (eos,))
    # As in vLLM, it is not sampled before min_tokens even if it is ignored.
    kept = alone(model, PROMPTS[0], plain(0, eos_token_id=eos, ignore_eos=True, min_tokens=60))
    assert eos not in kept[:60]
    assert len(kept) == 90


def test_what_was_computed_after_the_stop_token_is_discarded(
    model: GPT, unstopped: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptbox.engine.batch.TIME_SLICE_S", 10.0)
    batch, prompt, text = Batch(model, 1), PROMPTS[1], alone(model, PROMPTS[1], plain(0, max_tokens=26))
    stop = next(token for i, token in enumerate(text) if i > 9 and token not in text[:i])
    count = text.index(stop) + 1
    stopped = request(model, prompt, **vars(plain(0, max_tokens=26, stop_token_ids=(stop,))))
    batch.add(stopped)
    generated, steps = 0, 0
    while batch.rows:
        new = batch.step()
        generated, steps = generated + new[0], steps + new[1]
        batch.remove_finished()
    assert steps == 26  # within one time slice, after the first token
    assert generated == count
    assert batch._cache.lengths[0] == len(prompt) + count - 1
    # A prompt that goes on after the stop token reuses what is before it, and has the right continuation.
    longer = np.concatenate([prompt, text[:count], ids(3)])
    continued = request(model, longer, **vars(plain(5)))
    run(batch, continued)
    assert sink(continued).ids == alone(model, longer, plain(5))


def test_a_stopped_text_frees_its_slot_and_the_others_go_on(model: GPT, unstopped: list[list[int]]) -> None:
    class Ending(Collected):
        ended_at = 0

        def end(self, error: Exception | None) -> None:
            super().end(error)
            self.ended_at = len(sink(long).ids)

    batch = Batch(model, 2)
    long = request(model, PROMPTS[2], **vars(plain(2, max_tokens=2000)))
    stopping = Request(
        model=model, prompt=PROMPTS[0], params=plain(0, max_tokens=10**6, stop_token_ids=(unstopped[0][40],)),
        sink=Ending(),
    )  # fmt: skip
    run(batch, long, stopping)
    assert sink(stopping).ids == up_to_stop(unstopped[0], (unstopped[0][40],))
    assert sink(stopping).ended_at < 2000  # type: ignore[attr-defined]
    assert sink(long).ids[:200] == unstopped[2]


def test_the_scheduler_counts_the_tokens_up_to_the_stop_token(model: GPT, unstopped: list[list[int]]) -> None:
    scheduler = Scheduler()
    scheduler.start()
    stops = stops_of(unstopped)
    requests = [request(model, prompt, **vars(plain(i, stop_token_ids=stops[i]))) for i, prompt in enumerate(PROMPTS)]
    scheduler.submit(requests)
    deadline = time.monotonic() + 30
    while scheduler.active + scheduler.queued and time.monotonic() < deadline:
        time.sleep(0.001)
    scheduler.stop()
    expected = [up_to_stop(text, stop) for text, stop in zip(unstopped, stops, strict=True)]
    assert [sink(each).ids for each in requests] == expected
    assert scheduler.tokens == sum(map(len, expected))


def test_a_stop_token_outside_the_vocabulary_is_named(model: GPT) -> None:
    for bad in ({"stop_token_ids": (3, 65)}, {"stop_token_ids": (-1,)}, {"eos_token_id": 65}):
        with pytest.raises(EngineError, match=r"stop_token_ids has the id (65|-1), .* 0 to 64"):
            request(model, [1], **bad)


def test_min_tokens_needs_a_token_that_is_no_stop_token(make_weights: Callable[..., Any]) -> None:
    config = ModelConfig(architecture="gpt2", vocab_size=3, context_length=8, n_layer=1, n_head=1, n_embd=32)
    model = GPT(config, make_weights(config))
    with pytest.raises(EngineError, match="Every token is a stop token"):
        request(model, [1], stop_token_ids=(0, 1), eos_token_id=2, min_tokens=1)
    assert len(alone(model, [1], SamplingParams(stop_token_ids=(0, 1), eos_token_id=2, max_tokens=9))) == 1
    all_but_one = SamplingParams(stop_token_ids=(0,), eos_token_id=2, min_tokens=9, max_tokens=9)
    assert alone(model, [1], all_but_one) == [1] * 9
