"""Array views at raw addresses, and atomic operations, for Numba kernels.

Slicing increments an atomic reference count, on which threads contend; in a loop it costs more than reading the few
numbers of the slice. Views made here are not counted; the caller keeps the memory alive.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

from gptbox.jit.cache import kernel

_I64 = ir.IntType(64)


def view(context: Any, builder: ir.IRBuilder, kind: types.Array, address: Any, lengths: list[Any]) -> Any:
    """A C-contiguous array of Numba type `kind` in LLVM IR; address and lengths are LLVM integers."""
    array, item = context.make_array(kind)(context, builder), context.get_data_type(kind.dtype)
    size = context.get_constant(types.intp, context.get_abi_sizeof(item))
    strides = [size]
    for length in reversed(lengths[1:]):
        strides.insert(0, builder.mul(strides[0], length))
    data = builder.inttoptr(address, item.as_pointer())
    arrayobj.populate_array(array, data, lengths, strides, size, None)
    return array._getvalue()


def _array_at(kind: Any) -> Any:
    """An intrinsic (address, shape) -> C-contiguous array of `kind`; the shape is an integer or a tuple of integers."""

    @intrinsic
    def array(typing_context, address, shape):  # type: ignore[no-untyped-def]
        dimensions = len(shape) if isinstance(shape, types.BaseTuple) else 1

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            lengths = [arguments[1]] if dimensions == 1 else cgutils.unpack_tuple(builder, arguments[1], dimensions)
            return view(context, builder, signature.return_type, arguments[0], lengths)

        shape_type = types.intp if dimensions == 1 else types.UniTuple(types.intp, dimensions)
        return types.Array(kind, dimensions, "C")(types.intp, shape_type), generate

    return array


float32s, int64s, int8s = _array_at(types.float32), _array_at(types.int64), _array_at(types.int8)


@kernel(inline=True, nrt=False)
def address(array: Any) -> Any:
    """The address of an array's first item."""
    return np.intp(array.ctypes.data)


@intrinsic
def fetch_add(typing_context, address, value):  # type: ignore[no-untyped-def]
    """Atomically add to the int64 at an address; returns the old value."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "seq_cst")

    return types.int64(types.intp, types.int64), generate


@intrinsic
def atomic_load(typing_context, address):  # type: ignore[no-untyped-def]
    """Load the int64 at an address; the compiler cannot hoist it out of a loop."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load_atomic(builder.inttoptr(arguments[0], _I64.as_pointer()), "seq_cst", 8)

    return types.int64(types.intp), generate
