"""Vectors of 16 lanes in LLVM IR, which lowers them to AVX-512, AVX2 or NEON."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils

LANES = 16
FLOATS = ir.VectorType(ir.FloatType(), LANES)
INTS = ir.VectorType(ir.IntType(32), LANES)


def broadcast(b: ir.IRBuilder, scalar: Any) -> Any:
    """A vector with the scalar, of any type, in every lane."""
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = b.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return b.shuffle_vector(first, undefined, ir.Constant(INTS, [0] * LANES))


def call_intrinsic(b: ir.IRBuilder, name: str, *vectors: Any) -> Any:
    """Call an LLVM intrinsic on float vectors: fmuladd, floor."""
    kind = ir.FunctionType(FLOATS, [FLOATS] * len(vectors))
    return b.call(cgutils.get_or_insert_function(b.module, kind, f"llvm.{name}.v{LANES}f32"), vectors)
