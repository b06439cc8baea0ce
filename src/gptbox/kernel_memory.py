"""Memory by its address, for compiled code.

A slice of an array counts as one more holder of it, at one stroke for all threads: in a loop that costs more than the
few numbers that are read through it, and threads wait for each other's counting. What is made here is not counted; the
caller sees to it that the memory lives on.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

from gptbox.kernel_cache import kernel

_I64 = ir.IntType(64)


def _array_at(kind: Any) -> Any:
    """An intrinsic (address, shape) -> array of `kind`; the shape is a number or a tuple of them."""

    @intrinsic
    def array(typing_context, address, shape):  # type: ignore[no-untyped-def]
        dimensions = len(shape) if isinstance(shape, types.BaseTuple) else 1

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            made = context.make_array(signature.return_type)(context, builder)
            size = context.get_abi_sizeof(context.get_data_type(kind))
            lengths = [arguments[1]] if dimensions == 1 else cgutils.unpack_tuple(builder, arguments[1], dimensions)
            strides = [context.get_constant(types.intp, size)]
            for length in reversed(lengths[1:]):
                strides.insert(0, builder.mul(strides[0], length))
            data = builder.inttoptr(arguments[0], context.get_data_type(kind).as_pointer())
            arrayobj.populate_array(made, data, lengths, strides, context.get_constant(types.intp, size), None)
            return made._getvalue()

        integers = types.intp if dimensions == 1 else types.UniTuple(types.intp, dimensions)
        return types.Array(kind, dimensions, "C")(types.intp, integers), generate

    return array


floats, doubles = _array_at(types.float32), _array_at(types.float64)
integers, small_integers, words = _array_at(types.int64), _array_at(types.int8), _array_at(types.uint64)


@kernel(inline=True, counted=False)
def address(array: Any) -> Any:
    """Where an array begins."""
    return np.intp(array.ctypes.data)


@intrinsic
def fetch_add(typing_context, address, value):  # type: ignore[no-untyped-def]
    """Add to the int64 at an address at one stroke; what stood there before."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        place = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "seq_cst")

    return types.int64(types.intp, types.int64), generate


@intrinsic
def atomic_load(typing_context, address):  # type: ignore[no-untyped-def]
    """The int64 at an address, as it is now and not as it was when a loop began."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load_atomic(builder.inttoptr(arguments[0], _I64.as_pointer()), "seq_cst", 8)

    return types.int64(types.intp), generate
