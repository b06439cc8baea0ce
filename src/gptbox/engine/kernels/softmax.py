"""Softmax of a row of scores, written in LLVM's own terms: a row is short, and what a vectoriser leaves over is longer.

A row's sum goes in the same order everywhere.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gptbox.engine.kernels.vectors import FLOATS, LANES, WHOLE, call, spread
from gptbox.kernel_cache import kernel
from gptbox.kernel_math import LOG2_E, POWERS_OF_TWO
from gptbox.kernel_memory import address

_I32, _I64, _FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
_LEAST = -3.4028234663852886e38
_VANISHING = -100.0
"""2 to this power is nothing beside 1, and its product with another number is not denormal, which would be slow."""


def _all(number: float) -> Any:
    return ir.Constant(FLOATS, [number] * LANES)


def _folded(b: ir.IRBuilder, vector: Any, combine: Any) -> Any:
    """One number of all lanes: halves upon halves."""
    half = LANES // 2
    while half:
        lanes = [(i + half) % LANES for i in range(LANES)]
        vector = combine(vector, b.shuffle_vector(vector, vector, ir.Constant(WHOLE, lanes)))
        half //= 2
    return b.extract_element(vector, ir.Constant(_I32, 0))


def _power_of_two(b: ir.IRBuilder, y: Any) -> Any:
    """2^y, for y from _VANISHING to 0."""
    whole = call(b, "floor", b.fadd(y, _all(0.5)))
    rest = b.fsub(y, whole)
    series = _all(POWERS_OF_TWO[-1])
    for coefficient in reversed(POWERS_OF_TWO[:-1]):
        series = call(b, "fmuladd", series, rest, _all(coefficient))
    biased = b.add(b.fptosi(whole, WHOLE), ir.Constant(WHOLE, [127] * LANES))
    return b.fmul(series, b.bitcast(b.shl(biased, ir.Constant(WHOLE, [23] * LANES)), FLOATS))


@intrinsic
def _softmax(typing_context, scores, length, scale):  # type: ignore[no-untyped-def]
    """In place, from an address on; up to whole vectors, of which the lanes after `length` get 0."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        b = builder
        scores, length, scale = arguments
        blocks = b.udiv(b.add(length, ir.Constant(_I64, LANES - 1)), ir.Constant(_I64, LANES))
        lanes = ir.Constant(WHOLE, list(range(LANES)))
        bound = spread(b, b.trunc(length, _I32))

        def place(index: Any) -> Any:
            return b.inttoptr(b.add(scores, b.mul(index, ir.Constant(_I64, 4 * LANES))), FLOATS.as_pointer())

        def used(index: Any) -> Any:
            first = b.trunc(b.mul(index, ir.Constant(_I64, LANES)), _I32)
            return b.icmp_signed("<", b.add(spread(b, first), lanes), bound)

        largest = cgutils.alloca_once_value(b, _all(_LEAST))
        with cgutils.for_range(b, blocks) as loop:
            x = b.select(used(loop.index), b.load(place(loop.index), align=4), _all(_LEAST))
            former = b.load(largest)
            b.store(b.select(b.fcmp_ordered(">", x, former), x, former), largest)
        most = _folded(b, b.load(largest), lambda x, y: b.select(b.fcmp_ordered(">", x, y), x, y))
        base, factor = spread(b, most), spread(b, b.fmul(scale, ir.Constant(_FLOAT, LOG2_E)))
        total = cgutils.alloca_once_value(b, _all(0.0))
        with cgutils.for_range(b, blocks) as loop:
            y = b.fmul(b.fsub(b.load(place(loop.index), align=4), base), factor)
            counts = b.and_(used(loop.index), b.fcmp_ordered(">", y, _all(_VANISHING)))
            weight = b.select(counts, _power_of_two(b, b.select(counts, y, _all(0.0))), _all(0.0))
            b.store(weight, place(loop.index), align=4)
            b.store(b.fadd(b.load(total), weight), total)
        share = spread(b, b.fdiv(ir.Constant(_FLOAT, 1.0), _folded(b, b.load(total), b.fadd)))
        with cgutils.for_range(b, blocks) as loop:
            b.store(b.fmul(b.load(place(loop.index), align=4), share), place(loop.index), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.float32), generate


@kernel(counted=False)
def softmax(scores: Any, length: int, scale: float) -> None:
    """Of the first `length` scores times `scale`, in place; what comes after them gets 0.

    There must be room for them up to a multiple of 16.
    """
    _softmax(address(scores), length, scale)
    for i in range(length, scores.size):
        scores[i] = 0
