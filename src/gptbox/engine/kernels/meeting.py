"""Where threads at one step wait for each other."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gptbox.kernel_cache import kernel
from gptbox.kernel_memory import address, atomic_load, fetch_add

_SPINS = 2000
"""Looks at the others before the processor is left to whoever else wants it: a few microseconds."""


@intrinsic
def _sched_yield(typing_context):  # type: ignore[no-untyped-def]
    """POSIX's sched_yield."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(32), []), "sched_yield")
        return builder.call(function, [])

    return types.int32(), generate


@kernel(counted=False)
def barrier(meeting: Any, size: int) -> None:
    """Go on when all `size` threads have come. `meeting` is (arrived, round), int64, zeros at first."""
    if size == 1:
        return
    arrived, round_ = address(meeting), address(meeting) + 8
    now = atomic_load(round_)
    if fetch_add(arrived, 1) == size - 1:
        fetch_add(arrived, -size)
        fetch_add(round_, 1)
        return
    spins = 0
    while atomic_load(round_) == now:
        spins += 1
        if spins > _SPINS:
            _sched_yield()
