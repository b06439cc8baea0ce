"""The entry points: their parameters, and the argument table as compiled code reads it."""

from inspect import signature
from typing import Annotated, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from gptbox.engine.abi import ENTRY_POINTS, pack
from gptbox.engine.kernels import entry

RECORD = np.dtype([("number", np.float64), ("tokens", np.int64, 3)], align=True)


class Inner(NamedTuple):
    table: Annotated[NDArray[np.float32], "rows columns"]
    records: Annotated[NDArray[np.void], "slots", RECORD]
    seeds: Annotated[NDArray[np.uint64], "slots"]


class Twins(NamedTuple):
    first: int
    second: int


class Outer(NamedTuple):
    number: int
    inner: Inner
    twins: Twins
    cube: Annotated[NDArray[np.int8], "x y z"]


unpack = entry._unpacker(Outer)


@numba.njit
def read(table: int) -> tuple[float, ...]:
    """Fields of the table that `pack` wrote; also changes an item of an array."""
    outer = unpack(table)
    record = outer.inner.records[1]
    outer.inner.table[1, 2] = -5
    return (
        outer.number, outer.inner.table[1, 1], outer.inner.table.shape[1], record.number, record.tokens[2],
        outer.inner.seeds[2], outer.twins.first, outer.twins.second, outer.cube[1, 2, 3], outer.cube.shape[2],
    )  # fmt: skip


def test_compiled_code_reads_what_is_packed_and_shares_its_memory() -> None:
    records = np.zeros(2, RECORD)
    records[1] = 0.5, (11, 12, 13)
    inner = Inner(np.arange(6, dtype=np.float32).reshape(2, 3), records, np.array([1, 2, 2**64 - 1], np.uint64))
    outer = Outer(42, inner, Twins(8, 9), np.arange(24, dtype=np.int8).reshape(2, 3, 4))
    table = pack(outer)
    assert read(table.ctypes.data) == (42, 4, 3, 0.5, 13, 2**64 - 1, 8, 9, 23, 4)
    assert inner.table[1, 2] == -5


def test_the_entry_points_have_the_declared_parameters() -> None:
    assert {name: tuple(signature(f.py_func).parameters) for name, f in entry.FUNCTIONS.items()} == ENTRY_POINTS
