import numpy as np
import pytest

from gptbox.engine.kernels.matmul import matmul
from gptbox.engine.packing import pack, padded, quantize


def product(
    x: np.ndarray, weight: np.ndarray, int8: bool = False, first: int = 0, y: np.ndarray | None = None
) -> np.ndarray:
    rows, inputs = x.shape
    panels = pack(weight)
    add = y is not None
    if y is None:
        y = np.zeros((rows, padded(len(weight))), np.float32)
    packed, scales = quantize(panels) if int8 else (panels, None)
    matmul(
        x.ctypes.data, x.strides[0] // 4, rows, packed.ctypes.data, 0 if scales is None else scales.ctypes.data,
        inputs, first, len(panels), y.ctypes.data, y.shape[1], int(add),
    )  # fmt: skip
    return y[:, : len(weight)]


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 9, 17, 40])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (7, 31), (40, 32), (33, 65), (128, 200)])
def test_matmul_agrees_with_numpy(rows: int, inputs: int, outputs: int) -> None:
    x, weight = numbers(rows, inputs), numbers(outputs, inputs)
    np.testing.assert_allclose(product(x, weight), x @ weight.T, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 8, 9, 16, 33])
@pytest.mark.parametrize("int8", [False, True])
def test_a_row_is_bit_identical_in_every_batch(rows: int, int8: bool) -> None:
    x, weight = numbers(40, 100), numbers(200, 100)
    np.testing.assert_array_equal(product(x[:rows], weight, int8), product(x, weight, int8)[:rows])


def test_int8_weights_are_off_by_at_most_half_a_scale() -> None:
    weight = numbers(70, 50)
    found = product(np.eye(50, dtype=np.float32), weight, int8=True).T
    scales = np.abs(weight).max(1, keepdims=True) / 127
    assert (np.abs(found - weight) <= 0.501 * scales).all()


def test_an_int8_output_with_zero_weights_is_0() -> None:
    weight = numbers(40, 20)
    weight[3] = 0
    assert not product(numbers(5, 20), weight, int8=True)[:, 3].any()


def test_a_range_of_panels_can_be_computed_and_accumulated() -> None:
    x, weight, y = numbers(5, 64), numbers(96, 64), numbers(5, 96)
    expected = y.copy()
    expected[:, 32:] += (x @ weight.T)[:, 32:]
    np.testing.assert_allclose(product(x, weight, first=1, y=y), expected, atol=1e-4)
