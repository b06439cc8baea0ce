from math import erf

import numpy as np

from gptbox.engine.kernels.layers import gelu, gelu_new, rms_norm, swiglu

X = np.linspace(-30, 30, 6001, dtype=np.float32)


def apply(function: object, x: np.ndarray = X) -> np.ndarray:
    y = np.empty_like(x)
    function(x, y)  # type: ignore[operator]
    return y


def test_gelu_agrees_with_the_c_library_s_erf() -> None:
    np.testing.assert_allclose(apply(gelu), [float(v) * (1 + erf(float(v) / 2**0.5)) / 2 for v in X], atol=2e-6)


def test_gelu_new_agrees_with_numpy_s_tanh() -> None:
    x = X.astype(np.float64)
    exact = x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2
    np.testing.assert_allclose(apply(gelu_new), exact, atol=2e-6)


def test_swiglu_takes_alternating_gates_and_values_and_does_not_overflow() -> None:
    gate, value = np.linspace(-300, 300, 32, dtype=np.float32), np.linspace(1, 2, 32, dtype=np.float32)
    up = np.concatenate([gate[:16], value[:16], gate[16:], value[16:]])
    hidden = np.empty(32, np.float32)
    swiglu(up, hidden)
    exact = gate.astype(np.float64) / (1 + np.exp(-gate.astype(np.float64))) * value
    np.testing.assert_allclose(hidden, exact, rtol=1e-6, atol=1e-30)


def test_rms_norm_of_zeros_is_zero() -> None:
    y = np.ones(8, np.float32)
    rms_norm(np.zeros(8, np.float32), np.ones(8, np.float32), 1e-6, y)
    assert not y.any()
