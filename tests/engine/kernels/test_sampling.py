"""Each logits processor against transformers' own, and properties that hold for any logits."""

import time
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptbox.engine.buffers import Sequences
from gptbox.engine.kernels.sampling import (
    apply_logit_bias,
    apply_min_p,
    apply_min_tokens,
    apply_presence_and_frequency,
    apply_repetition_penalty,
    apply_temperature,
    apply_top_k,
    apply_top_p,
    count_token,
    log_probabilities,
    multinomial,
    sample,
    uniform,
)
from gptbox.engine.sampling_params import SamplingParams
from gptbox.models.config import ModelConfig

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import transformers

logit_rows = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=50).map(lambda x: np.array(x, np.float32))
distinct_rows = st.lists(
    st.integers(-300, 300), min_size=2, max_size=50, unique=True
).map(lambda x: np.array(x, np.float32) / 10)  # fmt: skip


def scratch(logits: np.ndarray) -> np.ndarray:
    return np.empty_like(logits)


def kept(logits: np.ndarray) -> set[int]:
    return set(np.flatnonzero(np.isfinite(logits)).tolist())


def probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    return shifted / shifted.sum()


def theirs(processor: Any, logits: np.ndarray, ids: list[int] | None = None) -> np.ndarray:
    result: np.ndarray = processor(torch.tensor([ids or [0]]), torch.from_numpy(logits.copy())[None])[0].numpy()
    return result


def ours(processor: Any, logits: np.ndarray, *arguments: Any) -> np.ndarray:
    changed = logits.copy()
    processor(changed, *arguments)
    return changed


@given(distinct_rows, st.floats(0.05, 5))
def test_temperature(logits: np.ndarray, temperature: float) -> None:
    expected = theirs(transformers.TemperatureLogitsWarper(temperature), logits)
    np.testing.assert_allclose(
        probabilities(ours(apply_temperature, logits, temperature)), probabilities(expected), atol=1e-5
    )


@example(np.array([-0.0, 0.0, -1.0], np.float32), 1)
@given(logit_rows, st.integers(1, 60))
def test_top_k(logits: np.ndarray, k: int) -> None:
    expected = theirs(transformers.TopKLogitsWarper(k), logits)
    np.testing.assert_array_equal(ours(apply_top_k, logits, k), expected)


@given(distinct_rows, st.floats(0.01, 0.99))
def test_top_p(logits: np.ndarray, p: float) -> None:
    sums = np.cumsum(np.sort(probabilities(logits))[::-1])
    if np.abs(sums - p).min() < 1e-5:
        return  # transformers sums in float32: a token at the border may fall on either side
    expected = theirs(transformers.TopPLogitsWarper(p), logits)
    np.testing.assert_array_equal(ours(apply_top_p, logits, p, scratch(logits)), expected)


@given(distinct_rows, st.floats(0.001, 0.999))
def test_min_p(logits: np.ndarray, p: float) -> None:
    shares = probabilities(logits) / probabilities(logits).max()
    if np.abs(shares / p - 1).min() < 1e-4:
        return
    expected = theirs(transformers.MinPLogitsWarper(p), logits)
    np.testing.assert_array_equal(ours(apply_min_p, logits, p), expected)


@given(logit_rows, st.floats(0.5, 3), st.data())
def test_repetition_penalty(logits: np.ndarray, penalty: float, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, len(logits) - 1), min_size=1, max_size=20))
    seen = np.zeros(len(logits), np.int8)
    seen[ids] = 1
    expected = theirs(transformers.RepetitionPenaltyLogitsProcessor(penalty), logits, ids)
    np.testing.assert_allclose(ours(apply_repetition_penalty, logits, seen, penalty), expected, rtol=1e-6)


def test_logit_bias_agrees_with_transformers_sequence_bias_of_single_tokens() -> None:
    logits = np.linspace(-3, 3, 20, dtype=np.float32)
    biases = {3: 2.5, 19: -100.0, 0: 0.25}
    processor = transformers.SequenceBiasLogitsProcessor({(token,): bias for token, bias in biases.items()})
    tokens, values = np.array(list(biases)), np.array(list(biases.values()), np.float32)
    np.testing.assert_array_equal(ours(apply_logit_bias, logits, tokens, values), theirs(processor, logits))


@pytest.mark.parametrize("stop_tokens", [[], [3], [0, 19, 7]])
def test_min_tokens(stop_tokens: list[int]) -> None:
    logits = np.linspace(-3, 3, 20, dtype=np.float32)
    processor = transformers.MinNewTokensLengthLogitsProcessor(1, 1, stop_tokens)
    expected = theirs(processor, logits)
    np.testing.assert_array_equal(ours(apply_min_tokens, logits, np.array(stop_tokens, np.int64)), expected)


def test_presence_and_frequency_penalties_follow_openai_s_formula() -> None:
    logits, counts = np.zeros(4, np.float32), np.array([0, 1, 3, 0], np.float32)
    changed = ours(apply_presence_and_frequency, logits, counts, 0.5, 0.25)
    assert changed.tolist() == [0, -0.75, -1.25, 0]


@given(logit_rows, st.floats(0, 1))
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits: np.ndarray, p: float) -> None:
    left = kept(ours(apply_top_p, logits, p, scratch(logits)))
    p_of = probabilities(logits)
    assert len(left) >= 1
    if p == 1:
        assert len(left) == len(logits)
        return
    total = sum(p_of[i] for i in left)
    assert total >= p - 1e-6
    smallest = min(left, key=lambda i: p_of[i])
    assert len(left) == 1 or total - p_of[smallest] < p + 1e-6
    assert min(p_of[i] for i in left) >= max((p_of[i] for i in set(range(len(logits))) - left), default=0) - 1e-9


def test_top_p_keeps_the_first_of_equally_probable_tokens() -> None:
    assert kept(ours(apply_top_p, np.zeros(10, np.float32), 0.35, np.empty(10, np.float32))) == {0, 1, 2, 3}
    assert kept(ours(apply_top_p, np.zeros(10, np.float32), 0.0, np.empty(10, np.float32))) == {0}


def test_random_numbers_are_those_of_splitmix64() -> None:
    """The first three of the published generator for seed 1234567, as doubles."""
    state = np.array([1234567], np.uint64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [uniform(state, 0) for _ in range(3)] == [(number >> 11) * 2.0**-53 for number in expected]


def test_samples_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    state = np.array([3], np.uint64)
    sampled = [multinomial(logits, scratch(logits), uniform(state, 0)) for _ in range(20_000)]
    np.testing.assert_allclose(np.bincount(sampled, minlength=4) / 20_000, [0.5, 0.3, 0.15, 0.05], atol=0.015)


@given(logit_rows, st.floats(0, 1, exclude_max=True))
def test_only_remaining_tokens_are_sampled(logits: np.ndarray, number: float) -> None:
    apply_top_k(logits, 3)
    assert multinomial(logits, scratch(logits), number) in kept(logits)


CONFIG = ModelConfig(
    architecture="qwen3", vocab_size=50, context_length=8, n_layer=1, n_head=1, n_embd=32, activation="silu"
)


def next_token(logits: np.ndarray, params: SamplingParams, prompt: tuple[int, ...] = (0,), times: int = 1) -> list[int]:
    sequences = Sequences.of(CONFIG, np.zeros(2, np.int64))
    sequences.begin(1, np.array(prompt), params)
    tokens = []
    for _ in range(times):
        tokens.append(sample(logits.copy(), sequences, 1, scratch(logits)))
        count_token(sequences, 1, tokens[-1])
    return tokens


FULL = np.linspace(0, 1, 50, dtype=np.float32)


def test_temperature_0_is_greedy_after_all_penalties() -> None:
    assert next_token(FULL, SamplingParams(temperature=0)) == [49]
    assert next_token(FULL, SamplingParams(temperature=0, logit_bias={7: 5.0})) == [7]
    assert next_token(FULL, SamplingParams(temperature=0, repetition_penalty=2.0), (49, 48)) == [47]
    assert next_token(FULL, SamplingParams(temperature=0, presence_penalty=1.5), (49,), times=3) == [49, 48, 47]
    alternating = next_token(FULL, SamplingParams(temperature=0, frequency_penalty=0.015), times=4)
    assert alternating == [49, 49, 48, 49]


@pytest.mark.parametrize("temperature", [0.0, 0.01])
def test_no_stop_token_is_sampled_before_min_tokens(temperature: float) -> None:
    params: dict[str, Any] = {
        "temperature": temperature, "seed": 1, "min_tokens": 2, "top_k": 2, "logit_bias": {49: 100.0, 48: 50.0}
    }  # fmt: skip
    assert next_token(FULL, SamplingParams(**params, stop_token_ids=(49,)), times=3) == [48, 48, 49]
    params["min_tokens"], both = 1, {"stop_token_ids": (49,), "eos_token_id": 48, "ignore_eos": True}
    assert next_token(FULL, SamplingParams(**params, **both, repetition_penalty=1.1), times=2)[1] == 49
    assert next_token(FULL, SamplingParams(**params, **both))[0] not in (48, 49)
    assert next_token(FULL, SamplingParams(**params), times=2) == [49, 49]


def test_temperature_0_takes_the_first_of_equally_probable_tokens() -> None:
    assert next_token(np.array([1, 5, 2, 5, 5], np.float32), SamplingParams(temperature=0)) == [1]
    assert next_token(np.array([-np.inf, -30, -30], np.float32), SamplingParams(temperature=0)) == [1]
    # Two logits that round to the same probability.
    assert next_token(np.array([0.1, np.nextafter(np.float32(0.1), 1)], np.float32), SamplingParams(temperature=0)) == [
        1
    ]


def test_temperature_0_is_no_slower_than_sampling_with_a_large_vocabulary() -> None:
    config = ModelConfig(architecture="gpt2", vocab_size=50_257, context_length=8, n_layer=1, n_head=1, n_embd=32)
    logits, probs = np.random.default_rng(1).normal(0, 2, (2, 50_257)).astype(np.float32)
    sequences = Sequences.of(config, np.zeros(1, np.int64))

    def fastest(temperature: float) -> float:
        sequences.begin(0, np.array([0]), SamplingParams(temperature=temperature, seed=1))
        times = []
        for _ in range(20):
            row, start = logits.copy(), time.perf_counter()
            sample(row, sequences, 0, probs)
            times.append(time.perf_counter() - start)
        return min(times)

    assert fastest(0.0) < fastest(1.0)


@settings(max_examples=30)
@given(
    st.floats(0.01, 5), st.integers(0, 60), st.floats(0, 1), st.floats(0, 1), st.integers(-(2**63), 2**63 - 1)
)  # fmt: skip
def test_any_parameters_give_a_remaining_token(temperature: float, k: int, p: float, min_p: float, seed: int) -> None:
    params = SamplingParams(temperature=temperature, top_k=k, top_p=p, min_p=min_p, seed=seed)
    left = FULL.copy()
    apply_temperature(left, temperature)
    apply_top_k(left, k)
    apply_top_p(left, p, scratch(left))
    apply_min_p(left, min_p)
    assert next_token(FULL, params)[0] in kept(left)


def test_a_seed_repeats_the_tokens_and_no_seed_does_not() -> None:
    def tokens(seed: int | None) -> list[int]:
        return next_token(np.zeros(50, np.float32), SamplingParams(seed=seed), times=30)

    assert tokens(5) == tokens(5)
    assert tokens(5) != tokens(6)
    assert tokens(None) != tokens(None)


@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-6])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    logits = np.zeros(50, np.float32)
    logits[:5] = -30.0, 3.0, 2.9, 30.0, 29.9
    assert next_token(logits, SamplingParams(temperature=temperature, top_k=4, top_p=0.9, seed=1)) == [3]


@given(logit_rows)
def test_log_probabilities_are_a_log_softmax_and_sorted(logits: np.ndarray) -> None:
    count = min(5, len(logits))
    tokens, values = np.zeros(count, np.int64), np.zeros(count, np.float32)
    exact = np.log(probabilities(logits))
    for token in (0, len(logits) - 1):
        found = log_probabilities(logits, scratch(logits), token, tokens, values)
        assert found == pytest.approx(exact[token], abs=1e-4)
    assert len(set(tokens.tolist())) == count
    np.testing.assert_allclose(values, exact[tokens], atol=1e-4)
    np.testing.assert_allclose(values, np.sort(exact)[::-1][:count], atol=1e-4)
