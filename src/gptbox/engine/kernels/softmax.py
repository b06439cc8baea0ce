"""Softmax of attention scores in LLVM IR: rows are short, and the scalar remainder loop of a vectoriser would dominate.

A row is summed in the same order whatever else is in the batch.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gptbox.engine.kernels.simd import FLOATS, INTS, LANES, broadcast, call_intrinsic
from gptbox.jit.cache import kernel
from gptbox.jit.math import LOG2_E, POWERS_OF_TWO
from gptbox.jit.pointers import address
from gptbox.models.weights import Array

_I32, _I64, _FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
_LOWEST_FLOAT = -3.4028234663852886e38
_MIN_EXPONENT = -100.0
"""2 to this power is negligible beside 1, yet products with it are not denormal, which would be slow."""


def _constant(number: float) -> Any:
    """A vector constant with the number in every lane."""
    return ir.Constant(FLOATS, [number] * LANES)


def _reduce(b: ir.IRBuilder, vector: Any, combine: Any) -> Any:
    """Reduce all lanes to one scalar by combining halves."""
    half = LANES // 2
    while half:
        lanes = [(i + half) % LANES for i in range(LANES)]
        vector = combine(vector, b.shuffle_vector(vector, vector, ir.Constant(INTS, lanes)))
        half //= 2
    return b.extract_element(vector, ir.Constant(_I32, 0))


def _power_of_two(b: ir.IRBuilder, y: Any) -> Any:
    """2^y, for y between _MIN_EXPONENT and 0."""
    whole = call_intrinsic(b, "floor", b.fadd(y, _constant(0.5)))
    rest = b.fsub(y, whole)
    series = _constant(POWERS_OF_TWO[-1])
    for coefficient in reversed(POWERS_OF_TWO[:-1]):
        series = call_intrinsic(b, "fmuladd", series, rest, _constant(coefficient))
    biased = b.add(b.fptosi(whole, INTS), ir.Constant(INTS, [127] * LANES))
    return b.fmul(series, b.bitcast(b.shl(biased, ir.Constant(INTS, [23] * LANES)), FLOATS))


@intrinsic
def _softmax(typing_context, scores, length, scale):  # type: ignore[no-untyped-def]
    """Softmax in place at an address; processes whole vectors, whose lanes beyond `length` get 0."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        b = builder
        scores, length, scale = arguments
        blocks = b.udiv(b.add(length, ir.Constant(_I64, LANES - 1)), ir.Constant(_I64, LANES))
        lanes = ir.Constant(INTS, list(range(LANES)))
        bound = broadcast(b, b.trunc(length, _I32))

        def pointer(index: Any) -> Any:
            return b.inttoptr(b.add(scores, b.mul(index, ir.Constant(_I64, 4 * LANES))), FLOATS.as_pointer())

        def in_row(index: Any) -> Any:
            first = b.trunc(b.mul(index, ir.Constant(_I64, LANES)), _I32)
            return b.icmp_signed("<", b.add(broadcast(b, first), lanes), bound)

        largest = cgutils.alloca_once_value(b, _constant(_LOWEST_FLOAT))
        with cgutils.for_range(b, blocks) as loop:
            x = b.select(in_row(loop.index), b.load(pointer(loop.index), align=4), _constant(_LOWEST_FLOAT))
            previous = b.load(largest)
            b.store(b.select(b.fcmp_ordered(">", x, previous), x, previous), largest)
        maximum = _reduce(b, b.load(largest), lambda x, y: b.select(b.fcmp_ordered(">", x, y), x, y))
        base, factor = broadcast(b, maximum), broadcast(b, b.fmul(scale, ir.Constant(_FLOAT, LOG2_E)))
        total = cgutils.alloca_once_value(b, _constant(0.0))
        with cgutils.for_range(b, blocks) as loop:
            y = b.fmul(b.fsub(b.load(pointer(loop.index), align=4), base), factor)
            nonzero = b.and_(in_row(loop.index), b.fcmp_ordered(">", y, _constant(_MIN_EXPONENT)))
            weight = b.select(nonzero, _power_of_two(b, b.select(nonzero, y, _constant(0.0))), _constant(0.0))
            b.store(weight, pointer(loop.index), align=4)
            b.store(b.fadd(b.load(total), weight), total)
        reciprocal = broadcast(b, b.fdiv(ir.Constant(_FLOAT, 1.0), _reduce(b, b.load(total), b.fadd)))
        with cgutils.for_range(b, blocks) as loop:
            b.store(b.fmul(b.load(pointer(loop.index), align=4), reciprocal), pointer(loop.index), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.float32), generate


@kernel(nrt=False)
def softmax(scores: Array, length: int, scale: float) -> None:
    """Softmax of scores[:length] * scale, in place; the rest of `scores` becomes 0.

    The memory must extend to a multiple of 16 numbers.
    """
    _softmax(address(scores), length, scale)
    for i in range(length, scores.size):
        scores[i] = 0
