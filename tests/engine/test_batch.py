import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.engine.helpers import alone, ids, request, run, sink

from gptbox.engine.batch import Batch
from gptbox.engine.buffers import MAX_TOKENS
from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.request import Logprobs
from gptbox.engine.sampling_params import SamplingParams
from gptbox.engine.worker_pool import WorkerPool
from gptbox.models.config import ModelConfig
from gptbox.models.weights import Weights

MIB = 2**20


def test_a_step_is_scheduled_run_and_delivered(model: GPT) -> None:
    batch = Batch(model, 2)
    first, second = request(model, ids(5), max_tokens=20, seed=1), request(model, ids(9, 1), max_tokens=3, seed=2)
    batch.add(first)
    batch.add(second)
    scheduled = batch.schedule()
    assert scheduled is not None
    assert [row.request for row in scheduled.rows] == [first, second]
    assert (scheduled.num_new_tokens, scheduled.do_sample, scheduled.num_steps) == ([5, 9], [True, True], 1)
    output = batch.run(scheduled)
    assert output.steps_run == [1, 1]
    assert sink(first).ids == sink(second).ids == []
    assert batch.deliver(scheduled, output) == 2
    assert [sink(first).ids, sink(second).ids] == [output.tokens(0), output.tokens(1)]
    scheduled = batch.schedule()
    assert scheduled is not None
    assert (scheduled.num_new_tokens, scheduled.do_sample) == ([1, 1], [True, True])
    assert 1 <= scheduled.num_steps <= 2  # the second has two tokens to go
    batch.deliver(scheduled, batch.run(scheduled))
    run(batch)
    assert [sink(each).ids for each in (first, second)] == [
        alone(model, each.prompt, each.params) for each in (first, second)
    ]


def test_rows_that_wait_for_a_prefix_or_for_scores_are_not_scheduled(model: GPT) -> None:
    batch, prompt = Batch(model, 3), ids(30)
    scored = request(model, prompt, True, max_tokens=2, logprobs=0)
    batch.add(scored)
    assert batch.schedule() is None
    batch = Batch(model, 3)
    source, follower = request(model, prompt, max_tokens=2), request(model, prompt, max_tokens=2)
    batch.add(source)
    batch.add(follower)
    scheduled = batch.schedule()
    assert scheduled is not None
    assert [row.request for row in scheduled.rows] == [source]


def test_a_full_context_slides_to_its_newest_quarter(model: GPT) -> None:
    """Against a loop that computes the whole window, with a new cache, for every token."""
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


def test_the_last_token_of_a_scored_prompt_may_have_a_full_context_before_it(model: GPT) -> None:
    context = model.config.context_length
    prompt = ids(context + 9)
    scored, continued = (request(model, prompt, True, max_tokens=n, logprobs=0) for n in (0, 1))
    run(Batch(model, 2), scored, continued)
    window = prompt[-context - 1 :]
    logits = model.forward(window[None, :-1], KVCache(model.config, 1))[0].astype(np.float64)
    exact = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    scores, until_context = sink(scored).of_prompt, sink(continued).of_prompt
    assert scores is not None
    assert until_context is not None
    np.testing.assert_allclose(scores.chosen, exact[np.arange(context), window[1:]], atol=1e-4)
    assert len(until_context.chosen) == context - 1


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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_short_sequences_take_memory_for_their_tokens_and_not_for_a_full_context(large: GPT) -> None:
    def resident() -> int:
        return 4096 * int(Path("/proc/self/statm").read_text().split()[1])

    run(Batch(large, 1), request(large, [1], max_tokens=4))  # the first run also takes memory for what it loads
    batch = Batch(large, 16)
    before = resident()
    run(batch, *(request(large, [1, i], max_tokens=4, seed=i) for i in range(16)))
    assert batch.cache_bytes == 16 * KVCache.page_bytes(large.config) == 4 * MIB
    assert resident() - before < 12 * MIB  # includes the batch's logits and rounding to huge pages
    assert KVCache.pages_for(large.config) * KVCache.page_bytes(large.config) == 8 * MIB
