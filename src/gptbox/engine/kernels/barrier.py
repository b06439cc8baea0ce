"""A spinning barrier for the threads that share a decoding step."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gptbox.engine.buffers import IntArray
from gptbox.jit.cache import kernel
from gptbox.jit.pointers import address, atomic_load, fetch_add

_SPINS = 2000
"""Polls before the thread yields the processor: a few microseconds."""


@intrinsic
def _sched_yield(typing_context):  # type: ignore[no-untyped-def]
    """POSIX's sched_yield."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(32), []), "sched_yield")
        return builder.call(function, [])

    return types.int32(), generate


@kernel(nrt=False)
def barrier(sync: IntArray, size: int) -> None:
    """Wait until all `size` threads have arrived. `sync` begins with the int64 (arrived, generation), 0 at first."""
    if size == 1:
        return
    arrived, generation = address(sync), address(sync) + 8
    current = atomic_load(generation)
    if fetch_add(arrived, 1) == size - 1:
        fetch_add(arrived, -size)
        fetch_add(generation, 1)
        return
    spins = 0
    while atomic_load(generation) == current:
        spins += 1
        if spins > _SPINS:
            _sched_yield()
