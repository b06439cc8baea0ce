from collections.abc import Callable

import numpy as np
import pytest

from gptbox.engine.batch import generate
from gptbox.engine.gpt import GPT, erf, gelu, rms_norm, silu, slide
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.sampling import SamplingParams
from gptbox.model_config import ModelConfig
from gptbox.weights import Weights


@pytest.fixture
def model(config: ModelConfig, make_weights: Callable[..., Weights]) -> GPT:
    return GPT(config, make_weights(config))


def ids(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 65, shape)


def test_one_token_at_a_time_gives_the_logits_of_all_at_once(model: GPT) -> None:
    tokens = ids(2, 20)
    whole = model.forward(tokens, KVCache(model.config, 2))
    cache = KVCache(model.config, 2)
    steps = [model.forward(tokens[:, i : i + 1], cache)[:, 0] for i in range(20)]
    np.testing.assert_allclose(np.stack(steps, axis=1), whole, atol=1e-5)


def test_a_prompt_in_chunks_gives_the_logits_of_the_whole(model: GPT) -> None:
    tokens = ids(1, 20)
    cache = KVCache(model.config, 1)
    parts = [model.forward(tokens[:, a:b], cache) for a, b in ((0, 7), (7, 8), (8, 20))]
    np.testing.assert_allclose(
        np.concatenate(parts, axis=1), model.forward(tokens, KVCache(model.config, 1)), atol=1e-5
    )


def test_rows_of_different_lengths_decode_as_each_would_alone(model: GPT) -> None:
    tokens, lengths = ids(4, 20), (3, 19, 1, 11)
    cache = KVCache(model.config, 4)
    for row, length in enumerate(lengths):
        model.forward(tokens[row : row + 1, :length], cache, slice(row, row + 1))
    together = model.forward(ids(4, 1), cache, last_only=True)
    for row, length in enumerate(lengths):
        alone = KVCache(model.config, 1)
        model.forward(tokens[row : row + 1, :length], alone)
        expected = model.forward(ids(4, 1)[row : row + 1], alone, last_only=True)[0]
        np.testing.assert_allclose(together[row], expected, atol=1e-5)


def test_a_token_sees_only_what_came_before(model: GPT) -> None:
    tokens = ids(1, 12)
    changed = tokens.copy()
    changed[0, 8:] = (changed[0, 8:] + 1) % 65
    before, after = (model.forward(t, KVCache(model.config, 1)) for t in (tokens, changed))
    np.testing.assert_array_equal(before[:, :8], after[:, :8])
    assert np.abs(before[:, 8:] - after[:, 8:]).max() > 0.01


def test_past_the_context_the_newer_half_is_computed_afresh(model: GPT) -> None:
    """The rule in `slide`, replayed without a cache that lives on."""
    context, prompt = model.config.context_length, [1, 2, 3]
    history = list(prompt)
    start = 0
    for _ in range(100):
        if len(history) - start > context:
            start = len(history) - context // 2
        logits = model.forward(np.array([history[start:]]), KVCache(model.config, 1), last_only=True)[0]
        history.append(int(logits.argmax()))
    greedy = SamplingParams(max_tokens=100, temperature=0)
    assert list(generate(model, np.array(prompt), greedy)) == history[len(prompt) :]


def test_of_a_prompt_longer_than_the_context_the_end_is_seen(model: GPT) -> None:
    tokens, context = ids(100), model.config.context_length
    greedy = SamplingParams(max_tokens=20, temperature=0)
    assert list(generate(model, tokens, greedy)) == list(generate(model, tokens[-context:], greedy))


def test_slide_keeps_at_least_one_token() -> None:
    assert slide(np.array([1, 2]), 1).tolist() == [2]
    assert slide(np.arange(64), 64).tolist() == list(range(32, 64))


def test_erf_and_gelu_are_those_of_the_c_library() -> None:
    from math import erf as exact

    x = np.linspace(-5, 5, 2001, dtype=np.float32)
    np.testing.assert_allclose(erf(x), [exact(float(v)) for v in x], atol=5e-7, rtol=0)
    np.testing.assert_allclose(gelu(x), [float(v) * (1 + exact(float(v) / 2**0.5)) / 2 for v in x], atol=1e-6)


def test_silu_has_no_overflow() -> None:
    assert silu(np.array([-200.0, 0.0, 200.0], np.float32)).tolist() == [0.0, 0.0, 200.0]


def test_rms_norm_of_zeros_is_zero() -> None:
    assert not rms_norm(np.zeros((1, 8), np.float32), np.ones(8, np.float32), 1e-6).any()
