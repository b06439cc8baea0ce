from collections.abc import Callable

import numpy as np
import pytest

from gptbox.engine.buffers import MAX_TOKENS
from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.models.config import ModelConfig
from gptbox.models.weights import Weights


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
    np.testing.assert_array_equal(np.stack(steps, axis=1), whole)


def test_a_prompt_in_chunks_gives_the_logits_of_the_whole(model: GPT) -> None:
    tokens = ids(1, 20)
    cache = KVCache(model.config, 1)
    parts = [model.forward(tokens[:, a:b], cache) for a, b in ((0, 7), (7, 8), (8, 20))]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), model.forward(tokens, KVCache(model.config, 1)))


def test_rows_of_different_lengths_decode_as_if_alone(model: GPT) -> None:
    tokens, lengths = ids(4, 20), (3, 19, 1, 11)
    cache = KVCache(model.config, 4)
    for row, length in enumerate(lengths):
        model.forward(tokens[row : row + 1, :length], cache, slice(row, row + 1))
    batched = model.forward(ids(4, 1), cache, last_only=True)
    for row, length in enumerate(lengths):
        alone = KVCache(model.config, 1)
        model.forward(tokens[row : row + 1, :length], alone)
        expected = model.forward(ids(4, 1)[row : row + 1], alone, last_only=True)[0]
        np.testing.assert_array_equal(batched[row], expected)


def test_attention_is_causal(model: GPT) -> None:
    tokens = ids(1, 12)
    changed = tokens.copy()
    changed[0, 8:] = (changed[0, 8:] + 1) % 65
    before, after = (model.forward(t, KVCache(model.config, 1)) for t in (tokens, changed))
    np.testing.assert_array_equal(before[:, :8], after[:, :8])
    assert np.abs(before[:, 8:] - after[:, 8:]).max() > 0.01


def test_more_tokens_than_one_pass_takes_give_the_same_logits(model: GPT) -> None:
    tokens = ids(2 * MAX_TOKENS // 32 + 1, 32)
    whole = model.forward(tokens, KVCache(model.config, len(tokens)))
    one = model.forward(tokens[-1:], KVCache(model.config, 1))
    np.testing.assert_array_equal(whole[-1:], one)


@pytest.mark.parametrize("bad", [-1, 65])
def test_an_id_outside_the_vocabulary_is_refused(model: GPT, bad: int) -> None:
    with pytest.raises(IndexError, match="outside of 0 to 64"):
        model.forward(np.array([[1, bad]]), KVCache(model.config, 1))


def test_int8_changes_the_logits_little_and_takes_a_quarter_of_the_memory(
    config: ModelConfig, make_weights: Callable[..., Weights]
) -> None:
    exact, int8 = (GPT(config, make_weights(config), quantize=q) for q in (False, True))
    tokens = ids(3, 32)
    a, b = (model.forward(tokens, KVCache(config, 3)) for model in (exact, int8))
    assert 0 < np.abs(a - b).mean() < 0.05 * np.abs(a).mean()
    assert int8.packed.panels.nbytes == pytest.approx(exact.packed.panels.nbytes / 4, rel=0.01)
