"""Matrix products of compiled code equal NumPy's."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from gptbox.jit.cache import kernel
from gptbox.train.kernels import Floats
from gptbox.train.kernels.blas import gemm_nn, gemm_nt, gemm_tn


@kernel
def products(a: Floats, b: Floats, out: Floats) -> None:
    """a @ b into out[0], out[1] + 2 a @ b into out[1], and both again by transposed arguments."""
    gemm_nn(1, a, b, 0, out[0])
    gemm_nn(2, a, b, 1, out[1])
    gemm_nt(np.float32(1), a, b.T.copy(), 0, out[2])
    gemm_tn(1, a.T.copy(), b, 0, out[3])


def whole(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    return matrix


def slice_of_columns(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    wide = np.full((len(matrix), matrix.shape[1] + 9), np.nan, np.float32)
    wide[:, 4:-5] = matrix
    return wide[:, 4:-5]


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("place", [whole, slice_of_columns])
def test_products_equal_numpy_s(rows: int, place: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(rows, 7)).astype(np.float32), random.normal(size=(7, 5)).astype(np.float32)
    out = np.full((4, rows, 5), np.nan, np.float32)
    out[1] = 3
    products(place(a), place(b), out)
    for i in (0, 2, 3):
        np.testing.assert_allclose(out[i], a @ b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out[1], 3 + 2 * (a @ b), rtol=1e-5, atol=1e-6)


def test_a_single_row_may_have_any_stride() -> None:
    row = np.lib.stride_tricks.as_strided(np.arange(7, dtype=np.float32), (1, 7), (4, 4))
    b = np.eye(7, 5, dtype=np.float32)
    out = np.zeros((4, 1, 5), np.float32)
    products(row, b, out)
    np.testing.assert_array_equal(out[0], row @ b)
