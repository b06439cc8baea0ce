"""Elementary functions for Numba loops, free of branches and calls so that the loops vectorise."""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gptbox.jit.cache import kernel

LOG2_E = math.log2(math.e)
POWERS_OF_TWO = [math.log(2) ** n / math.factorial(n) for n in range(7)]
"""Taylor coefficients of 2^x; on [-1/2, 1/2] the truncation error is below float32's rounding."""
_LOG2_E = np.float32(LOG2_E)
_HALF, _ONE, _LIMIT = np.float32(0.5), np.float32(1), np.float32(126)
_C1, _C2, _C3, _C4, _C5, _C6 = map(np.float32, POWERS_OF_TWO[1:])


@intrinsic
def float_of_bits(typing_context, bits):  # type: ignore[no-untyped-def]
    """Reinterpret the bits of an int32 as a float32."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def bits_of_float(typing_context, number):  # type: ignore[no-untyped-def]
    """Reinterpret the bits of a float32 as an int32."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@kernel(inline=True)
def exp(x: Any) -> Any:
    """e^x of a float32, clamped to [2^-126, 2^126]."""
    y = max(min(x * _LOG2_E, _LIMIT), -_LIMIT)
    whole = np.floor(y + _HALF)
    r = y - whole
    series = ((((((_C6 * r + _C5) * r + _C4) * r + _C3) * r) + _C2) * r + _C1) * r + _ONE
    return series * float_of_bits((np.int32(whole) + np.int32(127)) << np.int32(23))
