"""Vectors of 16 numbers in LLVM's own terms; they become what the processor has: AVX-512, AVX2 or NEON."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils

LANES = 16
FLOATS = ir.VectorType(ir.FloatType(), LANES)
WHOLE = ir.VectorType(ir.IntType(32), LANES)


def spread(b: ir.IRBuilder, number: Any) -> Any:
    """A vector with the number, of any kind, in every lane."""
    none = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
    one = b.insert_element(none, number, ir.Constant(ir.IntType(32), 0))
    return b.shuffle_vector(one, none, ir.Constant(WHOLE, [0] * LANES))


def call(b: ir.IRBuilder, name: str, *vectors: Any) -> Any:
    """LLVM's intrinsic of that name, of vectors of floats: fmuladd, floor."""
    kind = ir.FunctionType(FLOATS, [FLOATS] * len(vectors))
    return b.call(cgutils.get_or_insert_function(b.module, kind, f"llvm.{name}.v{LANES}f32"), vectors)
