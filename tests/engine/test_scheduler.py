import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from gptbox.engine.generate import generate
from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.request import Logprobs, Request
from gptbox.engine.sampling_params import SamplingParams
from gptbox.engine.scheduler import Scheduler
from gptbox.errors import EngineError, QueueFullError
from gptbox.models.config import ModelConfig
from gptbox.models.weights import Weights

CONFIG = ModelConfig(
    architecture="qwen3", vocab_size=65, context_length=32, n_layer=2, n_head=2, n_embd=32, activation="silu"
)


class Tokens:
    """A sink that collects tokens and the end."""

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


class Ordered(Tokens):
    """Also appends its name to `order` when it ends."""

    def __init__(self, name: str, order: list[str]) -> None:
        super().__init__()
        self.name, self.order = name, order

    def end(self, error: Exception | None) -> None:
        self.order.append(self.name)
        super().end(error)


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
    """The tokens of a request that runs alone, on one thread."""
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


def test_cancelling_ends_a_request_within_a_step_and_frees_its_slot(scheduler: Scheduler, model: GPT) -> None:
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


def test_a_request_cancelled_while_waiting_never_runs(scheduler: Scheduler, model: GPT) -> None:
    running = [request(model, 100_000, seed=i) for i in range(4)]
    waiting = request(model)
    scheduler.submit(running)
    scheduler.submit([waiting])
    waiting.cancel()
    assert sink(waiting).wait() == []
    for each in running:
        each.cancel()


def test_a_full_queue_accepts_a_group_all_or_none(scheduler: Scheduler, model: GPT) -> None:
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


def test_a_request_for_no_tokens_ends_at_once(scheduler: Scheduler, model: GPT) -> None:
    each = request(model, 0)
    scheduler.submit([each])
    assert sink(each).wait() == []


def test_a_prompt_with_an_id_outside_the_vocabulary_is_refused(model: GPT) -> None:
    with pytest.raises(EngineError, match="lacks; its ids are 0 to 64"):
        request(model, prompt=(1, 2, 10_000))


def test_a_failing_step_ends_its_requests_with_the_error_and_the_engine_goes_on(
    scheduler: Scheduler, model: GPT, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> int:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("gptbox.engine.native.decode_steps", fail)
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
    assert scheduler.queue_position(other) == 1  # all other waiting requests are of a client that already runs four
    sink(other).wait()
    assert scheduler.queue_position(other) == 0
    assert sum(sink(each).ended.is_set() for each in greedy) <= 4  # it waited for a slot, not for the whole queue
    for each in greedy:
        each.cancel()


def submit_endless(scheduler: Scheduler, model: GPT, *groups: int, client: str = "a") -> list[list[Request]]:
    """Submit a client's requests for a million tokens each, in groups of these sizes."""
    result = []
    for count in groups:
        result.append([request(model, 1_000_000, seed=i, client=client) for i in range(count)])
        scheduler.submit(result[-1])
        until(lambda: scheduler.active == min(4, scheduler.active + scheduler.queued))
    return result


def cancel(*groups: list[Request]) -> None:
    for group in groups:
        for each in group:
            each.cancel()


def refused(each: Request) -> bool:
    return sink(each).ended.is_set() and isinstance(sink(each).error, QueueFullError)


def test_a_newcomer_within_its_share_evicts_the_last_group_of_the_largest_client(
    scheduler: Scheduler, model: GPT
) -> None:
    running, kept, last = submit_endless(scheduler, model, 4, 3, 3)
    other = request(model, 5, client="b")
    scheduler.submit([other])
    assert all(refused(each) for each in last)  # the whole group
    assert not any(sink(each).ended.is_set() for each in [*running, *kept])
    assert scheduler.queued == 4
    cancel(running)
    assert len(sink(other).wait()) == 5
    assert all(sink(each).ends == 1 for each in last)
    cancel(kept)


def test_a_client_within_its_share_is_not_evicted(scheduler: Scheduler, model: GPT) -> None:
    running, waiting = submit_endless(scheduler, model, 4, 2)
    (small,) = submit_endless(scheduler, model, 3, client="b")
    others = [request(model, 5, client="c") for _ in range(3)]
    scheduler.submit(others)  # the fair share is 3 of 10; only the first client has more
    assert all(refused(each) for each in waiting)
    assert not any(sink(each).ended.is_set() for each in [*running, *small])
    with pytest.raises(QueueFullError, match="Your texts already take 3 of the 10 places, which 3 visitors share"):
        scheduler.submit([request(model, client="c")])
    cancel(running, small, others)


def test_a_group_that_has_begun_is_never_evicted_and_a_newcomer_is_still_accepted(
    scheduler: Scheduler, model: GPT
) -> None:
    (begun,) = submit_endless(scheduler, model, 10)
    others = [request(model, 5, client="b", seed=i) for i in range(5)]
    scheduler.submit(others)
    assert not any(sink(each).ended.is_set() for each in begun)
    assert scheduler.queued == 11
    begun[0].cancel()
    for each in others:
        assert len(sink(each).wait()) == 5
    cancel(begun)


def test_one_group_may_exceed_the_share_while_capacity_is_free(scheduler: Scheduler, model: GPT) -> None:
    (one,) = submit_endless(scheduler, model, 1)
    large = [request(model, 1_000_000, client="b") for _ in range(7)]
    scheduler.submit(large)
    assert scheduler.may_be_evicted("b")
    assert not scheduler.may_be_evicted("a")
    with pytest.raises(QueueFullError, match="already take 7 of the 10 places"):
        scheduler.submit([request(model, client="b")])  # although capacity is free
    assert scheduler.active + scheduler.queued == 8
    cancel(one, large)


def test_without_a_queue_a_newcomer_waits_for_the_next_free_slot(model: GPT) -> None:
    scheduler = Scheduler(max_active=2, max_queue=0)
    scheduler.start()
    (running,) = submit_endless(scheduler, model, 2)
    with pytest.raises(QueueFullError):
        scheduler.submit([request(model, client="a")])
    other = request(model, 5, client="b")
    scheduler.submit([other])
    running[0].cancel()
    assert len(sink(other).wait()) == 5
    scheduler.stop()


def test_with_more_clients_than_capacity_earlier_ones_keep_their_requests(scheduler: Scheduler, model: GPT) -> None:
    first = [request(model, 1_000_000, client=f"{i}") for i in range(10)]
    for each in first:
        scheduler.submit([each])
    with pytest.raises(QueueFullError, match="texts are waiting already"):
        scheduler.submit([request(model, client="late")])
    assert not any(sink(each).ended.is_set() for each in first)
    cancel(first)


@pytest.mark.parametrize("seed", range(5))
def test_a_client_within_its_share_is_accepted_whatever_was_submitted_before(
    scheduler: Scheduler, model: GPT, seed: int
) -> None:
    random = np.random.default_rng(seed)
    accepted: list[list[Request]] = []
    for _ in range(80):
        client = str(random.choice(["a", "a", "a", "b", "c", "d"]))
        group = [request(model, 1_000_000, client=client) for _ in range(random.integers(1, 7))]
        here = [each for other in accepted for each in other if not sink(each).ended.is_set()]
        begun = [each for each in here if any(one.interrupt is not None for one in each.group)]
        clients = {each.client for each in here} | {client}
        share = 10 // len(clients)
        try:
            scheduler.submit(group)
        except QueueFullError:
            assert sum(each.client == client for each in here) + len(group) > share
        else:
            accepted.append(group)
        assert not any(refused(each) for each in begun)
        for other in accepted:
            assert len({refused(each) for each in other}) == 1
        if random.random() < 0.3:
            gone = accepted.pop(int(random.integers(len(accepted))))
            cancel(gone)
            for each in gone:
                assert sink(each).ended.wait(10)
        until(lambda: scheduler.active == min(4, scheduler.active + scheduler.queued))
    cancel(*accepted)


def test_with_one_request_at_a_time_clients_alternate(model: GPT) -> None:
    scheduler = Scheduler(max_active=1, max_queue=20)
    scheduler.start()
    order: list[str] = []
    (first,) = submit_endless(scheduler, model, 1)
    for client, count in (("a", 4), ("b", 3), ("c", 1)):
        scheduler.submit([request(model, 5, client=client) for _ in range(count)])
    waiting = list(scheduler._queue)
    positions = [scheduler.queue_position(each) for each in waiting]
    assert positions == [3, 5, 7, 8, 1, 4, 6, 2]
    for each in waiting:
        each.sink = Ordered(each.client, order)
    cancel(first)
    for each in waiting:
        sink(each).wait()
    assert order == ["b", "c", "a", "b", "a", "b", "a", "a"]
    scheduler.stop()


@pytest.mark.parametrize("seed", range(5))
def test_the_queue_position_counts_the_requests_admitted_before(model: GPT, seed: int) -> None:
    scheduler = Scheduler(max_active=4, max_queue=1000)
    scheduler.start()
    random = np.random.default_rng(seed)
    for size in (1, 1, 1, 1, 3, 4, 1, 1, 6, 2):
        submit_endless(scheduler, model, size, client=str(random.choice(["a", "b", "c", "d"])))
    waiting, running = (
        list(scheduler._queue),
        Counter(row.request.client for batch in scheduler._batches.values() for row in batch.rows),
    )
    last_admission, expected = dict(scheduler._last_admission), {}
    while waiting:
        following = min(waiting, key=lambda each: (running[each.client], last_admission.get(each.client, 0)))
        waiting.remove(following)
        running[following.client] += 1
        last_admission[following.client] = max(last_admission.values()) + 1
        expected[following] = len(expected) + 1
    assert {each: scheduler.queue_position(each) for each in expected} == expected
    scheduler.stop()


def test_short_requests_do_not_starve_a_long_one(make_weights: Callable[..., Weights]) -> None:
    config = replace(CONFIG, context_length=512)
    model = GPT(config, make_weights(config))
    scheduler = Scheduler(max_active=4, max_queue=400, cache_bytes=16 * KVCache.page_bytes(config))
    scheduler.start()
    # Two short ones fit at once and never end together; the long one needs all memory.
    shorts = [request(model, 190 + (37 * i) % 60, client="a", seed=i) for i in range(200)]
    scheduler.submit(shorts)
    until(lambda: sink(shorts[1]).ended.is_set())
    long = request(model, 500, client="b")
    scheduler.submit([long])
    before = sum(sink(each).ended.is_set() for each in shorts)
    assert sink(long).begun.wait(30)
    assert sum(sink(each).ended.is_set() for each in shorts) <= before + 6
    scheduler.stop()


def test_the_cache_memory_of_an_idle_model_goes_to_the_next(model: GPT, make_weights: Callable[..., Weights]) -> None:
    other = GPT(CONFIG, make_weights(CONFIG, seed=1))
    scheduler = Scheduler(cache_bytes=4 * KVCache.page_bytes(CONFIG), max_active=8)
    scheduler.start()
    former = [request(model, 1_000_000, seed=i) for i in range(4)]
    scheduler.submit(former)
    until(lambda: scheduler.active == 4)
    following = [request(other, 1_000_000, seed=i) for i in range(4)]
    scheduler.submit(following)
    until(lambda: scheduler.active == 5)
    cancel(former)
    until(lambda: scheduler.active == 4 and scheduler.queued == 0)
    scheduler.stop()


def test_all_models_together_stay_within_the_cache_memory(model: GPT, make_weights: Callable[..., Weights]) -> None:
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


def test_one_request_runs_however_little_cache_memory_there_is(model: GPT) -> None:
    scheduler = Scheduler(cache_bytes=1, max_active=8)
    scheduler.start()
    requests = [request(model, 50, seed=i) for i in range(3)]
    scheduler.submit(requests)
    for each in requests:
        assert sink(each).wait() == alone(each)
    scheduler.stop()


def test_short_requests_run_together_where_only_one_full_context_fits(make_weights: Callable[..., Weights]) -> None:
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


def test_stopping_ends_running_and_waiting_requests(model: GPT) -> None:
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


def test_the_cache_memory_is_freed_after_a_while_without_requests(
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


def test_tokens_per_s_is_the_throughput_of_the_last_seconds(scheduler: Scheduler, model: GPT) -> None:
    assert scheduler.tokens_per_s == 0
    each = request(model, 200)
    scheduler.submit([each])
    sink(each).wait()
    assert scheduler.tokens_per_s == pytest.approx(200 / 5, abs=2)
