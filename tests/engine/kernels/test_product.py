import numpy as np
import pytest

from gptbox.engine.kernels.product import multiply
from gptbox.engine.panels import pack, padded, quantize


def product(
    x: np.ndarray, weight: np.ndarray, narrow: bool = False, first: int = 0, y: np.ndarray | None = None
) -> np.ndarray:
    rows, inputs = x.shape
    panels = pack(weight)
    add = y is not None
    if y is None:
        y = np.zeros((rows, padded(len(weight))), np.float32)
    whole, steps = quantize(panels) if narrow else (panels, None)
    multiply(
        x.ctypes.data, x.strides[0] // 4, rows, whole.ctypes.data, 0 if steps is None else steps.ctypes.data, inputs,
        first, len(panels), y.ctypes.data, y.shape[1], int(add),
    )  # fmt: skip
    return y[:, : len(weight)]


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 9, 17, 40])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (7, 31), (40, 32), (33, 65), (128, 200)])
def test_a_product_is_that_of_numpy(rows: int, inputs: int, outputs: int) -> None:
    x, weight = numbers(rows, inputs), numbers(outputs, inputs)
    np.testing.assert_allclose(product(x, weight), x @ weight.T, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 8, 9, 16, 33])
@pytest.mark.parametrize("narrow", [False, True])
def test_a_row_gives_the_same_bits_whatever_stands_beside_it(rows: int, narrow: bool) -> None:
    x, weight = numbers(40, 100), numbers(200, 100)
    np.testing.assert_array_equal(product(x[:rows], weight, narrow), product(x, weight, narrow)[:rows])


def test_8_bits_are_off_by_at_most_half_a_step() -> None:
    weight = numbers(70, 50)
    found = product(np.eye(50, dtype=np.float32), weight, narrow=True).T
    steps = np.abs(weight).max(1, keepdims=True) / 127
    assert (np.abs(found - weight) <= 0.501 * steps).all()


def test_an_output_without_weights_is_0_in_8_bits() -> None:
    weight = numbers(40, 20)
    weight[3] = 0
    assert not product(numbers(5, 20), weight, narrow=True)[:, 3].any()


def test_part_of_the_panels_is_computed_and_can_be_added() -> None:
    x, weight, y = numbers(5, 64), numbers(96, 64), numbers(5, 96)
    expected = y.copy()
    expected[:, 32:] += (x @ weight.T)[:, 32:]
    np.testing.assert_allclose(product(x, weight, first=1, y=y), expected, atol=1e-4)
