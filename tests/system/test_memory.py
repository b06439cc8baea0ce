"""Arrays allocated together: layout, and the memory they take."""

import gc
import sys
from pathlib import Path

import numpy as np
import pytest

from gptbox.system.memory import allocate

MIB = 2**20


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


@pytest.mark.parametrize("width", [3, 500_000])  # smaller and larger than a huge page
def test_arrays_do_not_overlap_and_are_aligned_to_cache_lines(width: int) -> None:
    arrays = allocate((5, width), (), (0, 4), (width,))
    assert [array.shape for array in arrays] == [(5, width), (), (0, 4), (width,)]
    for i, array in enumerate(arrays):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.size == 0 or array.ctypes.data % 64 == 0
        assert not array.any()
        array[...] = i + 1
    assert [set(array.reshape(-1).tolist()) for array in arrays] == [{1.0}, {2.0}, set(), {4.0}]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_taken_on_writing_and_returned_with_the_last_array() -> None:
    before = resident()
    first, second = allocate((64 * MIB,), (16 * MIB,))
    assert resident() < before + 8 * MIB
    second[...] = 1
    assert before + 60 * MIB < resident() < before + 80 * MIB
    del first
    gc.collect()
    assert second[-1] == 1
    assert resident() > before + 60 * MIB
    del second
    gc.collect()
    assert resident() < before + 8 * MIB
