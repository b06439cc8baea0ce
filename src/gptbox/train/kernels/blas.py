"""Matrix products by the BLAS in PyTorch's library, callable from compiled code."""

import ctypes
import sys
from pathlib import Path
from typing import Any

import torch
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gptbox.jit.cache import kernel
from gptbox.train.kernels import Floats

SGEMM = "gptbox_sgemm"

_INT8, _INT32 = ir.IntType(8), ir.IntType(32)


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


def _gemm(trans_a: str, trans_b: str) -> Any:
    """The intrinsic (alpha, a, b, beta, out): out = alpha * op(a) @ op(b) + beta * out, where op transposes for "T".

    Matrices are float32 with contiguous rows. The row stride may exceed the width, as in a slice of columns.
    """

    @intrinsic
    def gemm(typing_context, alpha, a, b, beta, out):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            def shape(matrix: Any) -> list[Any]:
                return [builder.trunc(size, _INT32) for size in cgutils.unpack_tuple(builder, matrix.shape, 2)]

            def row_stride(matrix: Any) -> Any:
                """In elements. NumPy may give a single row any stride, but BLAS requires at least its length."""
                stride = builder.trunc(builder.sdiv(builder.extract_value(matrix.strides, 0), matrix.itemsize), _INT32)
                columns = shape(matrix)[1]
                return builder.select(builder.icmp_signed(">", stride, columns), stride, columns)

            alpha, beta = arguments[0], arguments[3]
            a, b, out = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (1, 2, 4))
            (rows, columns), depth = shape(out), shape(a)[0 if trans_a == "T" else 1]
            # sgemm is column-major: it sees a row-major array as its transpose, so that it computes out.T = b.T @ a.T.
            values = [
                _INT8(ord(trans_b)), _INT8(ord(trans_a)), columns, rows, depth, alpha, b.data, row_stride(b), a.data,
                row_stride(a), beta, out.data, row_stride(out),
            ]  # fmt: skip
            pointer = _INT8.as_pointer()
            # Fortran passes all arguments by reference.
            references = [
                value if isinstance(value.type, ir.PointerType) else cgutils.alloca_once_value(builder, value)
                for value in values
            ]
            function_type = ir.FunctionType(ir.VoidType(), [pointer] * len(values))
            function = cgutils.get_or_insert_function(builder.module, function_type, SGEMM)
            builder.call(function, [builder.bitcast(reference, pointer) for reference in references])
            return context.get_dummy_value()

        return types.void(types.float32, a, b, types.float32, out), generate

    return gemm


gemm_nn = _gemm("N", "N")
"""(alpha, a, b, beta, out): out = alpha * a @ b + beta * out"""
gemm_nt = _gemm("N", "T")
"""(alpha, a, b, beta, out): out = alpha * a @ b.T + beta * out"""
gemm_tn = _gemm("T", "N")
"""(alpha, a, b, beta, out): out = alpha * a.T @ b + beta * out"""


@kernel(fastmath=True)
def linear(x: Floats, weight: Floats, y: Floats) -> None:
    """y (N, O) = x (N, I) @ weight (O, I).T"""
    gemm_nt(1, x, weight, 0, y)


@kernel(fastmath=True)
def linear_backward(grad_y: Floats, x: Floats, weight: Floats, grad_x: Floats, grad_weight: Floats) -> None:
    """Gradients of `linear`; overwrites grad_x (N, I) and grad_weight (O, I)."""
    gemm_tn(1, grad_y, x, 0, grad_weight)
    gemm_nn(1, grad_y, weight, 0, grad_x)
