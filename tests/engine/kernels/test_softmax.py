import numpy as np
import pytest

from gptbox.engine.kernels.softmax import softmax


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 33, 64, 250])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 1e4])
def test_softmax_agrees_with_numpy(length: int, spread: float) -> None:
    generator = np.random.default_rng(length)
    scores = (spread * generator.standard_normal(256)).astype(np.float32)
    scaled = 0.25 * scores[:length].astype(np.float64)
    weights = np.exp(scaled - scaled.max())
    softmax(scores, length, 0.25)
    np.testing.assert_allclose(scores[:length], weights / weights.sum(), rtol=2e-5, atol=1e-30)
    assert not scores[length:].any()


def test_negligible_probabilities_are_zero_and_not_denormal() -> None:
    scores = np.linspace(0, -200, 64, dtype=np.float32)
    softmax(scores, 64, 1.0)
    assert scores[0] > 0.9
    assert scores[-1] == 0
    assert ((scores == 0) | (scores > np.finfo(np.float32).tiny)).all()


def test_the_largest_float32s_do_not_overflow() -> None:
    scores = np.array([3e38, -3e38, 3e38] + 13 * [0.0], np.float32)
    softmax(scores, 3, 0.1)
    np.testing.assert_allclose(scores, [0.5, 0, 0.5] + 13 * [0])
