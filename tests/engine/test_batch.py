import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptbox.engine import native
from gptbox.engine.autotune import Strategy, StrategyTuner
from gptbox.engine.batch import SHARED_TOKENS, Batch, generate
from gptbox.engine.buffers import MAX_TOKENS
from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.request import Logprobs, Request
from gptbox.engine.sampling_params import SamplingParams
from gptbox.engine.worker_pool import WorkerPool
from gptbox.models.config import ModelConfig
from gptbox.models.weights import Weights

MIB = 2**20


@pytest.fixture
def model(config: ModelConfig, make_weights: Callable[..., Weights]) -> GPT:
    return GPT(config, make_weights(config))


@pytest.fixture(scope="module")
def pool() -> Any:
    pool = WorkerPool(2)
    yield pool
    pool.close()


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


def test_a_full_context_slides_to_its_newest_quarter(model: GPT) -> None:
    """`slide`, replayed with a fresh cache for every token."""
    context, prompt = model.config.context_length, [1, 2, 3]
    history = list(prompt)
    start = 0
    for _ in range(100):
        if len(history) - start > context:
            start = len(history) - context // 4
        logits = model.forward(np.array([history[start:]]), KVCache(model.config, 1), last_only=True)[0]
        history.append(int(logits.argmax()))
    assert alone(model, prompt, SamplingParams(max_tokens=100, temperature=0)) == history[len(prompt) :]


def test_the_model_sees_the_end_of_a_prompt_longer_than_the_context(model: GPT) -> None:
    tokens, context = ids(100), model.config.context_length
    greedy = SamplingParams(max_tokens=20, temperature=0)
    assert alone(model, tokens, greedy) == alone(model, tokens[-context:], greedy)


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
    """So that a step yields several tokens, at any temperature."""
    monkeypatch.setattr(StrategyTuner, "choose", lambda self, rows: (Strategy(False, 5), 1.0))
    monkeypatch.setattr("gptbox.engine.batch.TIME_SLICE_S", 0)  # a single step at a time
    accepted = []
    for temperature in (0, 0.8):
        batch = Batch(model, 1)
        batch.add(request(model, ids(5), max_tokens=200, temperature=temperature, seed=1))
        while batch.rows:
            tokens, _ = batch.step()
            accepted.append(tokens)
            batch.remove_finished()
    assert np.mean(accepted) > 3


def test_an_int8_model_has_no_draft(config: ModelConfig, make_weights: Callable[..., Weights]) -> None:
    int8 = GPT(config, make_weights(config), quantize=True)
    assert int8.draft is None
    assert {each.num_draft_tokens for each in Batch(int8, 1)._tuner.strategies(1)} == {0}


def test_steps_longer_than_a_time_slice_are_timed_too(
    model: GPT, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptbox.engine.batch.TIME_SLICE_S", 1e-9)
    batch = Batch(model, 1, pool)
    run(batch, request(model, ids(5), max_tokens=200))
    assert all(batch._tuner._speeds[1, each].seconds > 0 for each in batch._tuner.strategies(1))


def test_a_long_prompt_is_prefilled_in_chunks_while_others_decode(make_weights: Callable[..., Weights]) -> None:
    config = ModelConfig(
        architecture="qwen3", vocab_size=65, context_length=1024, n_layer=1, n_head=1, n_embd=32, activation="silu"
    )
    model = GPT(config, make_weights(config))
    batch = Batch(model, 2)
    short, long = request(model, [1], max_tokens=500, seed=1), request(model, ids(1000), max_tokens=3, seed=2)
    batch.add(short)
    batch.step()
    batch.add(long)
    steps = 0
    while not sink(long).ids:
        before = len(sink(short).ids)
        batch.step()
        steps += 1
        assert len(sink(short).ids) == before + 1
    assert steps >= 1000 / MAX_TOKENS
    batch.step()
    assert sink(long).ids[:2] == alone(model, ids(1000), SamplingParams(max_tokens=2, seed=2))


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


def test_a_shared_prompt_is_prefilled_once(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = ids(30)
    requests = [request(model, prompt, max_tokens=1, seed=i) for i in range(4)]
    expected = [alone(model, prompt, each.params) for each in requests]
    counts = count_new_tokens(monkeypatch)
    run(Batch(model, 4), *requests)
    assert [sink(each).ids for each in requests] == expected
    assert sum(counts) == 30 + 3  # the other three compute only its last token


def test_the_cached_prefix_of_a_finished_request_is_reused(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, beginning = Batch(model, 3), ids(SHARED_TOKENS + 4)
    run(batch, request(model, beginning, max_tokens=2, seed=1))
    prompt = np.concatenate([beginning, ids(4, 1)])
    expected = alone(model, prompt, SamplingParams(max_tokens=4, seed=2))
    counts = count_new_tokens(monkeypatch)
    follower = request(model, prompt, max_tokens=4, seed=2)
    run(batch, follower)
    assert counts[0] == 4
    assert sink(follower).ids == expected


def test_a_shorter_common_prefix_is_not_shared(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, prompt = Batch(model, 2), ids(30)
    run(batch, request(model, prompt, max_tokens=2, seed=1))
    other = prompt.copy()
    other[SHARED_TOKENS - 1] = (other[SHARED_TOKENS - 1] + 1) % 65
    expected = alone(model, other, SamplingParams(max_tokens=4, seed=2))
    counts = count_new_tokens(monkeypatch)
    follower = request(model, other, max_tokens=4, seed=2)
    run(batch, follower)
    assert counts[0] == 30
    assert sink(follower).ids == expected


def test_a_row_whose_prefix_source_is_cancelled_prefills_its_prompt_itself(model: GPT) -> None:
    batch, prompt = Batch(model, 2), ids(30)
    source, follower = (request(model, prompt, max_tokens=5, seed=i) for i in range(2))
    batch.add(source)
    batch.add(follower)
    source.cancel()
    batch.remove_finished()
    run(batch)
    assert sink(follower).ids == alone(model, prompt, follower.params)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@pytest.mark.parametrize("alternatives", [0, 5])
def test_log_probabilities_are_those_before_sampling(model: GPT, alternatives: int) -> None:
    prompt = ids(12)
    each = request(model, prompt, True, max_tokens=10, seed=3, temperature=0.5, top_k=3, logprobs=alternatives)
    plain = request(model, prompt, max_tokens=10, seed=3, temperature=0.5, top_k=3)
    run(Batch(model, 2), each, plain)
    assert sink(each).ids == sink(plain).ids
    whole = np.concatenate([prompt, sink(each).ids])
    exact = log_softmax(model.forward(whole[None], KVCache(model.config, 1))[0])
    of_prompt = sink(each).of_prompt
    assert of_prompt is not None
    logprobs = of_prompt.chosen + sink(each).logprobs
    np.testing.assert_allclose(logprobs, exact[np.arange(21), whole[1:]], atol=1e-4)
    for row, pairs in zip(exact, of_prompt.alternatives + sink(each).alternatives, strict=False):
        assert len(pairs) == alternatives
        np.testing.assert_allclose([value for _, value in pairs], np.sort(row)[::-1][:alternatives], atol=1e-4)


def test_a_prompt_can_be_scored_without_generating(model: GPT) -> None:
    each = request(model, ids(12), True, max_tokens=0, logprobs=1)
    run(Batch(model, 1), each)
    of_prompt = sink(each).of_prompt
    assert of_prompt is not None
    assert len(of_prompt.chosen) == 11
    assert sink(each).ids == []


def test_a_prompt_of_one_token_has_no_log_probabilities(model: GPT) -> None:
    each = request(model, [5], True, max_tokens=1, logprobs=1)
    run(Batch(model, 1), each)
    assert sink(each).of_prompt == Logprobs([], [])


def test_sampling_parameters_do_not_leak_to_the_next_request_in_a_slot(model: GPT) -> None:
    batch, plain = Batch(model, 1), {"max_tokens": 20, "seed": 4}
    expected = alone(model, [1, 2], SamplingParams(**plain))
    run(batch, request(model, [1, 2], **plain, logit_bias={3: 100.0}, frequency_penalty=2.0, repetition_penalty=3.0))
    second = request(model, [1, 2], **plain)
    run(batch, second)
    assert sink(second).ids == expected


def test_slots_and_pages_are_reused_before_new_ones_are_touched(model: GPT) -> None:
    batch = Batch(model, 50)
    for i in range(10):
        run(batch, *(request(model, ids(20, 10 * i + j), max_tokens=3) for j in range(4)))
    assert batch._cache.num_resident == 4  # pages, each of a whole context here
    assert batch._cache.pages.memory[:4].any(1).all()
    assert not batch._cache.pages.memory[4:].any()
    for j in range(50):
        assert not batch.full
        batch.add(request(model, [j], max_tokens=3))
    assert batch.full


@pytest.fixture
def large(make_weights: Callable[..., Weights]) -> GPT:
    """A small model whose full context takes 8 MiB, in 32 pages."""
    config = ModelConfig(
        architecture="gpt2", vocab_size=65, context_length=1024, n_layer=4, n_head=4, n_embd=256, n_kv_head=4
    )
    return GPT(config, make_weights(config))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_short_sequences_take_memory_for_their_tokens_and_not_for_a_full_context(large: GPT) -> None:
    def resident() -> int:
        return 4096 * int(Path("/proc/self/statm").read_text().split()[1])

    run(Batch(large, 1), request(large, [1], max_tokens=4))  # what is loaded on first use
    batch = Batch(large, 16)
    before = resident()
    run(batch, *(request(large, [1, i], max_tokens=4, seed=i) for i in range(16)))
    assert batch.cache_bytes == 16 * KVCache.page_bytes(large.config) == 4 * MIB
    assert resident() - before < 12 * MIB  # includes the batch's logits and rounding to huge pages
    assert KVCache.pages_for(large.config) * KVCache.page_bytes(large.config) == 8 * MIB


def test_a_long_request_reuses_the_pages_of_finished_ones(large: GPT) -> None:
    batch, prompt = Batch(large, 8, total_pages=33), ids(900, 3)
    # Freed pages are scattered and unordered.
    shorts = [request(large, ids(40, i), max_tokens=20 + 60 * (i % 2), seed=i) for i in range(8)]
    run(batch, *shorts)
    assert batch._cache.num_resident == 4 * 2 + 4 * 4
    long = request(large, prompt, max_tokens=100, seed=9)
    assert batch.additional_bytes(long) == (32 - 24) * KVCache.page_bytes(large.config)
    batch.add(long)
    short = request(large, ids(5), max_tokens=20, seed=1)
    assert batch.additional_bytes(short) == KVCache.page_bytes(large.config)
    run(batch, short)
    assert batch._cache.num_resident == 33
    expected = [alone(large, each.prompt, each.params) for each in (*shorts, long, short)]
    assert [sink(each).ids for each in (*shorts, long, short)] == expected


def test_a_shared_prefix_is_copied_into_fewer_pages_than_its_source_has(
    large: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, beginning = Batch(large, 3), ids(100)
    first = request(large, beginning, max_tokens=300, seed=1)
    batch.add(first)
    while len(sink(first).ids) < 10:
        batch.step()
    prompt = np.concatenate([beginning[:70], ids(4, 1)])
    expected = alone(large, prompt, SamplingParams(max_tokens=4, seed=2))
    counts = count_new_tokens(monkeypatch)
    follower = request(large, prompt, max_tokens=4, seed=2)
    batch.add(follower)
    while len(sink(follower).ids) < 4:
        batch.step()
    assert counts[0] == 1 + 4  # the first row's next token, and the follower's four unshared ones
    assert sink(follower).ids == expected
    run(batch)
    assert sink(first).ids == alone(large, beginning, first.params)
