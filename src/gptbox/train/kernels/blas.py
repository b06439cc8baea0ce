"""Matrix products by the BLAS in PyTorch's library, callable from compiled code."""

import ctypes
import sys
from pathlib import Path

import numpy as np
import torch
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gptbox.jit.cache import kernel
from gptbox.train.kernels import Floats

SGEMM = "gptbox_sgemm"

_NORMAL, _TRANSPOSED = np.int8(ord("N")), np.int8(ord("T"))


def _load_sgemm() -> bool:
    """Register the sgemm in PyTorch's library under a symbol that compiled code can call; False if there is none."""
    library = Path(torch.__file__).parent / "lib" / f"libtorch_cpu.{'dylib' if sys.platform == 'darwin' else 'so'}"
    try:
        function = ctypes.CDLL(str(library)).sgemm_
    except (OSError, AttributeError):
        return False
    binding.add_symbol(SGEMM, ctypes.cast(function, ctypes.c_void_p).value)
    return True


HAS_SGEMM = _load_sgemm()
"""Whether kernels with matrix products can run: all but those of `gptbox.train.kernels.layers`."""


@intrinsic
def _sgemm(typing_context, arguments):  # type: ignore[no-untyped-def]
    """BLAS sgemm with its 13 arguments as a tuple; an intp is the address of a matrix."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        pointer = ir.IntType(8).as_pointer()
        references = []
        for value, type_ in zip(cgutils.unpack_tuple(builder, values[0]), signature.args[0], strict=True):
            if type_ is types.intp:
                references.append(builder.inttoptr(value, pointer))
            else:  # Fortran passes all arguments by reference
                references.append(builder.bitcast(cgutils.alloca_once_value(builder, value), pointer))
        function_type = ir.FunctionType(ir.VoidType(), [pointer] * len(references))
        function = cgutils.get_or_insert_function(builder.module, function_type, SGEMM)
        builder.call(function, references)
        return context.get_dummy_value()

    return types.void(arguments), generate


@kernel(fastmath=True, inline=True)
def _row_stride(a: Floats) -> np.int32:
    """Elements between rows: BLAS's leading dimension. The stride of a single row may be anything."""
    return np.int32(max(a.strides[0] // 4, a.shape[1]))


@kernel(fastmath=True, inline=True)
def _gemm(
    trans_a: np.int8, trans_b: np.int8, depth: int, alpha: float, a: Floats, b: Floats, beta: float, out: Floats
) -> None:
    """sgemm is column-major: it sees a row-major array as its transpose, so that it computes out.T = b.T @ a.T."""
    _sgemm((
        trans_b, trans_a, np.int32(out.shape[1]), np.int32(out.shape[0]), np.int32(depth), np.float32(alpha),
        np.intp(b.ctypes.data), _row_stride(b), np.intp(a.ctypes.data), _row_stride(a), np.float32(beta),
        np.intp(out.ctypes.data), _row_stride(out),
    ))  # fmt: skip


# The rows of the matrices are contiguous, and may lie apart: each matrix may be a slice of columns.


@kernel(fastmath=True, inline=True)
def gemm_nn(alpha: float, a: Floats, b: Floats, beta: float, out: Floats) -> None:
    """out = alpha * a @ b + beta * out"""
    _gemm(_NORMAL, _NORMAL, a.shape[1], alpha, a, b, beta, out)


@kernel(fastmath=True, inline=True)
def gemm_nt(alpha: float, a: Floats, b: Floats, beta: float, out: Floats) -> None:
    """out = alpha * a @ b.T + beta * out"""
    _gemm(_NORMAL, _TRANSPOSED, a.shape[1], alpha, a, b, beta, out)


@kernel(fastmath=True, inline=True)
def gemm_tn(alpha: float, a: Floats, b: Floats, beta: float, out: Floats) -> None:
    """out = alpha * a.T @ b + beta * out"""
    _gemm(_TRANSPOSED, _NORMAL, a.shape[0], alpha, a, b, beta, out)


@kernel(fastmath=True)
def linear(x: Floats, weight: Floats, y: Floats) -> None:
    """y (N, O) = x (N, I) @ weight (O, I).T"""
    gemm_nt(1, x, weight, 0, y)


@kernel(fastmath=True)
def linear_backward(grad_y: Floats, x: Floats, weight: Floats, grad_x: Floats, grad_weight: Floats) -> None:
    """Gradients of `linear`; overwrites grad_x (N, I) and grad_weight (O, I)."""
    gemm_tn(1, grad_y, x, 0, grad_weight)
    gemm_nn(1, grad_y, weight, 0, grad_x)
