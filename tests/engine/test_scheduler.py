import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from gptbox.engine.batch import generate
from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.request import Logprobs, Request
from gptbox.engine.sampling import SamplingParams
from gptbox.engine.scheduler import Scheduler
from gptbox.errors import EngineError, QueueFullError
from gptbox.model_config import ModelConfig
from gptbox.weights import Weights

CONFIG = ModelConfig(
    architecture="qwen3", vocab_size=65, context_length=32, n_layer=2, n_head=2, n_embd=32, activation="silu"
)


class Tokens:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.error: Exception | None = None
        self.ends = 0
        self.ended = threading.Event()
        self.begun = threading.Event()

    def prompt(self, logprobs: Logprobs) -> None:
        assert not self.ids

    def tokens(self, ids: list[int], logprobs: Logprobs | None) -> None:
        assert ids
        assert not self.ended.is_set()
        self.ids += ids
        self.begun.set()

    def end(self, error: Exception | None) -> None:
        self.error, self.ends = error, self.ends + 1
        self.ended.set()

    def wait(self) -> list[int]:
        assert self.ended.wait(30)
        if self.error is not None:
            raise self.error
        return self.ids


@pytest.fixture
def model(make_weights: Callable[..., Weights]) -> GPT:
    return GPT(CONFIG, make_weights(CONFIG))


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler(threads=2, max_active=4, max_queue=6)
    scheduler.start()
    yield scheduler
    scheduler.stop()


def request(
    model: GPT, max_tokens: int = 20, seed: int = 0, prompt: tuple[int, ...] = (1, 2, 3), client: str = ""
) -> Request:
    params = SamplingParams(max_tokens=max_tokens, seed=seed)
    return Request(model=model, prompt=np.array(prompt), params=params, sink=Tokens(), client=client)


def alone(request: Request) -> list[int]:
    """What a request gives where nothing runs beside it, on one thread."""
    return [i for new in generate(request.model, [request.prompt], [request.params]) for i in new[0]]


def sink(request: Request) -> Tokens:
    assert isinstance(request.sink, Tokens)
    return request.sink


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


def test_a_seeded_request_gives_the_same_text_whatever_runs_beside_it(scheduler: Scheduler, model: GPT) -> None:
    requests = [request(model, 30 + 17 * i, seed=i, prompt=tuple(range(1, 2 + 5 * i))) for i in range(8)]
    for each in requests:
        scheduler.submit([each])
    for each in requests:
        assert sink(each).wait() == alone(each)
        assert sink(each).ends == 1
    until(lambda: scheduler.active == scheduler.queued == 0)


def test_a_long_request_does_not_hold_up_a_short_one(scheduler: Scheduler, model: GPT) -> None:
    long, short = request(model, 100_000), request(model, 3)
    scheduler.submit([long])
    assert sink(long).begun.wait(10)
    scheduler.submit([short])
    assert len(sink(short).wait()) == 3
    assert not sink(long).ended.is_set()
    long.cancel()
    sink(long).wait()


def test_two_models_are_served_side_by_side(
    scheduler: Scheduler, model: GPT, make_weights: Callable[..., Weights]
) -> None:
    other = GPT(CONFIG, make_weights(CONFIG, seed=1))
    requests = [request(model), request(other), request(model, seed=1), request(other, seed=1)]
    scheduler.submit(requests)
    for each in requests:
        assert sink(each).wait() == alone(each)
    assert sink(requests[0]).ids != sink(requests[1]).ids


def test_cancelling_ends_a_request_within_a_step_and_frees_its_place(scheduler: Scheduler, model: GPT) -> None:
    each = request(model, 100_000)
    scheduler.submit([each])
    assert sink(each).begun.wait(10)
    each.cancel()
    at_cancel = len(sink(each).ids)
    each.cancel()
    sink(each).wait()
    assert sink(each).ends == 1
    assert len(sink(each).ids) <= at_cancel + 2
    until(lambda: scheduler.active == 0)


def test_a_request_cancelled_while_it_waits_never_runs(scheduler: Scheduler, model: GPT) -> None:
    running = [request(model, 100_000, seed=i) for i in range(4)]
    waiting = request(model)
    scheduler.submit(running)
    scheduler.submit([waiting])
    waiting.cancel()
    assert sink(waiting).wait() == []
    for each in running:
        each.cancel()


def test_a_full_queue_refuses_all_or_none(scheduler: Scheduler, model: GPT) -> None:
    running = [request(model, 100_000, seed=i) for i in range(4)]
    scheduler.submit(running)
    until(lambda: scheduler.active == 4)
    waiting = [request(model, 2, seed=i) for i in range(5)]
    scheduler.submit(waiting)
    with pytest.raises(QueueFullError, match="5 texts are waiting"):
        scheduler.submit([request(model), request(model)])
    assert scheduler.queued == 5
    last = request(model, 2)
    scheduler.submit([last])
    for each in running:
        each.cancel()
    for each in [*waiting, last]:
        assert len(sink(each).wait()) == 2


def test_no_tokens_asked_for_is_an_end_at_once(scheduler: Scheduler, model: GPT) -> None:
    each = request(model, 0)
    scheduler.submit([each])
    assert sink(each).wait() == []


def test_a_prompt_with_an_id_that_the_model_lacks_is_refused(model: GPT) -> None:
    with pytest.raises(EngineError, match="lacks; its are 0 to 64"):
        request(model, prompt=(1, 2, 10_000))


def test_when_a_step_fails_its_requests_are_told_and_the_engine_goes_on(
    scheduler: Scheduler, model: GPT, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> int:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("gptbox.engine.native.burst", fail)
        bad = request(model)
        scheduler.submit([bad])
        with pytest.raises(MemoryError):
            sink(bad).wait()
    assert "failed in a step" in caplog.text
    good = request(model)
    scheduler.submit([good])
    assert len(sink(good).wait()) == 20


def test_a_client_with_many_requests_does_not_keep_another_waiting(scheduler: Scheduler, model: GPT) -> None:
    greedy = [request(model, 2000, seed=i, client="a") for i in range(9)]
    scheduler.submit(greedy)
    until(lambda: scheduler.active == 4)
    other = request(model, 5, client="b")
    scheduler.submit([other])
    assert scheduler.position(other) == 6
    sink(other).wait()
    assert scheduler.position(other) == 0
    assert sum(sink(each).ended.is_set() for each in greedy) <= 4  # it waited for a place, not for all before it
    for each in greedy:
        each.cancel()


def test_all_models_together_keep_to_the_memory_that_sequences_may_take(
    model: GPT, make_weights: Callable[..., Weights]
) -> None:
    other = GPT(CONFIG, make_weights(CONFIG, seed=1))
    scheduler = Scheduler(cache_bytes=3 * KVCache.page_bytes(CONFIG), max_active=8)
    scheduler.start()
    requests = [request(each, 2000, seed=i) for i in range(4) for each in (model, other)]
    scheduler.submit(requests)
    most = 0
    while not all(sink(each).ended.is_set() for each in requests):
        most = max(most, scheduler.active)
    assert most == 3
    for each in requests:
        assert sink(each).wait() == alone(each)
    scheduler.stop()


def test_one_sequence_is_served_however_little_memory_there_is(model: GPT) -> None:
    scheduler = Scheduler(cache_bytes=1, max_active=8)
    scheduler.start()
    requests = [request(model, 50, seed=i) for i in range(3)]
    scheduler.submit(requests)
    for each in requests:
        assert sink(each).wait() == alone(each)
    scheduler.stop()


def test_short_texts_run_together_where_only_one_context_fits(make_weights: Callable[..., Weights]) -> None:
    config = replace(CONFIG, context_length=512)
    model = GPT(config, make_weights(config))
    scheduler = Scheduler(cache_bytes=16 * KVCache.page_bytes(config), max_active=32)
    scheduler.start()
    requests = [request(model, 28, seed=i) for i in range(16)]
    scheduler.submit(requests)
    for each in requests:
        assert sink(each).wait() == alone(each)
    assert scheduler.steps < 2 * 28
    long = [request(model, 5000, seed=i) for i in range(2)]
    scheduler.submit(long)
    until(lambda: scheduler.active == 1)
    assert scheduler.queued == 1
    for each in long:
        each.cancel()
        sink(each).wait()
    scheduler.stop()


def test_stopping_ends_what_runs_and_what_waits(model: GPT) -> None:
    scheduler = Scheduler(max_active=1, max_queue=4)
    scheduler.start()
    requests = [request(model, 100_000), request(model, 5)]
    scheduler.submit(requests)
    assert sink(requests[0]).begun.wait(10)
    scheduler.stop()
    for each in requests:
        with pytest.raises(EngineError, match="stopping"):
            sink(each).wait()
        assert sink(each).ends == 1
    with pytest.raises(EngineError, match="not running"):
        scheduler.submit([request(model)])


def test_an_empty_prompt_is_refused(model: GPT) -> None:
    with pytest.raises(EngineError, match="at least one"):
        request(model, prompt=())


def test_after_a_while_without_requests_the_memory_of_sequences_goes_back(
    scheduler: Scheduler, model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptbox.engine.scheduler.IDLE_S", 0.05)
    first = request(model, max_tokens=200)
    scheduler.submit([first])
    deadline = time.monotonic() + 30
    while not scheduler._batches:
        assert time.monotonic() < deadline
    keys = weakref.ref(next(iter(scheduler._batches.values()))._cache.pages.memory)
    text = sink(first).wait()
    while keys() is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    second = request(model, max_tokens=200)
    scheduler.submit([second])
    assert sink(second).wait() == text


def test_speed_is_told_while_it_works_and_falls_to_0(scheduler: Scheduler, model: GPT) -> None:
    assert scheduler.tokens_per_s == 0
    each = request(model, 200)
    scheduler.submit([each])
    sink(each).wait()
    assert scheduler.tokens_per_s == pytest.approx(200 / 5, abs=2)
