"""Allocation of arrays that are created and freed together."""

import math
import mmap

import numpy as np
from numpy.typing import NDArray

_CACHE_LINE = 64
_HUGE_PAGE = 2 * 2**20
"""Size of Linux's transparent huge pages, which cause fewer TLB misses."""


def allocate(*shapes: tuple[int, ...]) -> list[NDArray[np.float32]]:
    """Contiguous float32 arrays of zeros with the given shapes, each aligned to a cache line of 64 bytes.

    When the last array is freed, all memory returns to the system, where malloc would keep a part. Pages that are never
    written to take no memory.
    """
    sizes = [-(-4 * math.prod(shape) // _CACHE_LINE) * _CACHE_LINE for shape in shapes]
    huge = sum(sizes) >= _HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE")
    padding = _HUGE_PAGE if huge else _CACHE_LINE
    # MAP_PRIVATE: Python's default, MAP_SHARED, would be shared with child processes and gets no huge pages.
    block = mmap.mmap(-1, sum(sizes) + padding, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    offset = 0
    if huge:
        block.madvise(mmap.MADV_HUGEPAGE)
        offset = -np.frombuffer(block, np.uint8).ctypes.data % _HUGE_PAGE
    arrays = []
    for shape, size in zip(shapes, sizes, strict=True):
        arrays.append(np.frombuffer(block, np.float32, math.prod(shape), offset).reshape(shape))
        offset += size
    return arrays
