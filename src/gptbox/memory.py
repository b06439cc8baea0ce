"""Memory for arrays that are made together and go together."""

import math
import mmap

import numpy as np
from numpy.typing import NDArray

_LINE = 64
_HUGE = 2 * 2**20
"""The larger pages that Linux gives on request; a processor finds its way among them with fewer lookups."""


def allocate(*shapes: tuple[int, ...]) -> list[NDArray[np.float32]]:
    """Arrays of zeros, side by side, each at the beginning of a cache line.

    The system has the memory back as soon as the last of them is gone, where an allocator for all sizes would keep
    some; and what is never written to takes none, but for the rest of a page.
    """
    sizes = [-(-4 * math.prod(shape) // _LINE) * _LINE for shape in shapes]
    huge = sum(sizes) >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE")
    # Private: Python's default could be shared with a child, and has no large pages.
    whole = mmap.mmap(-1, sum(sizes) + (_HUGE if huge else _LINE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    begin = 0
    if huge:
        whole.madvise(mmap.MADV_HUGEPAGE)
        begin = -np.frombuffer(whole, np.uint8).ctypes.data % _HUGE
    arrays = []
    for shape, size in zip(shapes, sizes, strict=True):
        arrays.append(np.frombuffer(whole, np.float32, math.prod(shape), begin).reshape(shape))
        begin += size
    return arrays
