import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbox.engine.sampling import SamplingParams, apply_temperature, apply_top_k, apply_top_p, probabilities, sample
from gptbox.errors import EngineError

logit_rows = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=50).map(lambda x: np.array(x, np.float32))


def kept(logits: np.ndarray) -> set[int]:
    return set(np.flatnonzero(np.isfinite(logits)).tolist())


def test_temperature_0_takes_the_most_probable() -> None:
    logits = np.array([0.0, 3.0, 1.0], np.float32)
    params = SamplingParams(temperature=0, seed=1)
    assert {sample(logits, params, params.random()) for _ in range(20)} == {1}


def test_samples_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    params = SamplingParams(seed=3)
    random = params.random()
    counts = np.bincount([sample(logits, params, random) for _ in range(20_000)], minlength=4)
    np.testing.assert_allclose(counts / 20_000, [0.5, 0.3, 0.15, 0.05], atol=0.015)


def test_temperature_sharpens_and_flattens() -> None:
    logits = np.log(np.array([0.8, 0.2], np.float32))
    assert probabilities(apply_temperature(logits, 0.5))[0] == pytest.approx(0.64 / 0.68, rel=1e-5)
    assert probabilities(apply_temperature(logits, 2.0))[0] == pytest.approx(2 / 3, rel=1e-5)


@given(logit_rows, st.integers(0, 60))
def test_top_k_keeps_the_k_largest_and_ties(logits: np.ndarray, k: int) -> None:
    left = kept(apply_top_k(logits, k))
    if k == 0 or k >= len(logits):
        assert len(left) == len(logits)
        return
    threshold = np.sort(logits)[-k]
    assert left == set(np.flatnonzero(logits >= threshold).tolist())


@given(logit_rows, st.floats(0, 1))
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits: np.ndarray, p: float) -> None:
    left = kept(apply_top_p(logits, p))
    p_of = probabilities(logits)
    assert len(left) >= 1
    if p == 1:
        assert len(left) == len(logits)
        return
    total = sum(p_of[i] for i in left)
    assert total >= p - 1e-9
    smallest = min(left, key=lambda i: p_of[i])
    assert len(left) == 1 or total - p_of[smallest] < p + 1e-9
    assert min(p_of[i] for i in left) >= max((p_of[i] for i in set(range(len(logits))) - left), default=0) - 1e-12


@given(logit_rows, st.floats(0.01, 5), st.integers(0, 60), st.floats(0, 1), st.integers(-(2**63), 2**63 - 1))
def test_any_parameters_give_a_token_that_was_kept(
    logits: np.ndarray, temperature: float, k: int, p: float, seed: int
) -> None:
    params = SamplingParams(temperature=temperature, top_k=k, top_p=p, seed=seed)
    token = sample(logits, params, params.random())
    assert token in kept(apply_top_p(apply_top_k(apply_temperature(logits, temperature), k), p))


def test_a_seed_repeats_and_no_seed_does_not() -> None:
    logits = np.zeros(65, np.float32)

    def tokens(seed: int | None) -> list[int]:
        params = SamplingParams(seed=seed)
        random = params.random()
        return [sample(logits, params, random) for _ in range(30)]

    assert tokens(5) == tokens(5)
    assert tokens(5) != tokens(6)
    assert tokens(None) != tokens(None)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"max_tokens": -1}, "max_tokens is -1"),
    ],
)
def test_impossible_parameters_are_refused_by_name(bad: dict[str, float], said: str) -> None:
    with pytest.raises(EngineError, match=said):
        SamplingParams(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-6])
def test_a_tiny_temperature_is_as_good_as_0(temperature: float) -> None:
    logits = np.array([-30.0, 3.0, 2.9, 30.0, 29.9], np.float32)
    params = SamplingParams(temperature=temperature, top_k=4, top_p=0.9, seed=1)
    assert sample(logits, params, params.random()) == 3
