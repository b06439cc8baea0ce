"""The inner loop of matrix products in LLVM IR: accumulators stay in registers, which auto-vectorisers do not achieve.

A panel holds 32 numbers per input, input by input: the weights of 32 outputs, or the values of 32 positions.
Shapes: N rows, P panels, V vectors per panel.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils

from gptbox.engine.kernels.simd import FLOATS, LANES, broadcast, call_intrinsic
from gptbox.engine.packing import PANEL

VECTORS = PANEL // LANES
_FEATURES = numba.config.CPU_FEATURES if numba.config.CPU_NAME else binding.get_host_cpu_features().flatten()
WIDE = "+avx512f" in _FEATURES
"""Whether there are 32 registers of 16 float32 (AVX-512); else 16 of 8 (AVX2) or 32 of 4 (NEON)."""
MAX_ROWS = 12 if WIDE else 3
"""Rows whose float32 accumulators fit the registers, with one panel."""
PANELS_BY_ROWS = {1: 4, 2: 4, 3: 2, 4: 2, 5: 2, 6: 2} if WIDE else {1: 2}
"""Panels per tile whose accumulators fit, by rows; 1 for other numbers of rows."""
TILE_SHAPES = [(rows, 1) for rows in range(1, MAX_ROWS + 1)] + list(PANELS_BY_ROWS.items())
"""(rows, panels) for which code is emitted."""
MAX_PANELS = np.array([PANELS_BY_ROWS.get(rows, 1) for rows in range(MAX_ROWS + 1)])
"""Panels per tile by rows, as an array for kernels."""

_CACHE_LINE = 64
"""Bytes per cache line."""

_I64, _FLOAT = ir.IntType(64), ir.FloatType()


def int64(value: int) -> Any:
    """An int64 constant."""
    return ir.Constant(_I64, value)


class Microkernel:
    """Emits LLVM IR for sums of products at the builder's position."""

    def __init__(self, builder: ir.IRBuilder, stored: Any = FLOATS) -> None:
        """`stored` is the vector type of the panels in memory: 16 float32 or 16 int8."""
        self.b = builder
        self.stored = stored
        self.size = 4 if stored is FLOATS else 1

    def at(self, address: Any, index: Any, size: int) -> Any:
        """The address of item `index` of an array of items of `size` bytes."""
        return self.b.add(address, self.b.mul(index, int64(size)))

    def load(self, address: Any, kind: Any) -> Any:
        return self.b.load(self.b.inttoptr(address, kind.as_pointer()), align=1 if kind is self.stored else 4)

    def store(self, vector: Any, address: Any) -> None:
        self.b.store(vector, self.b.inttoptr(address, FLOATS.as_pointer()), align=4)

    def rows(self, address: Any, width: Any, count: int) -> list[Any]:
        """The addresses of `count` float32 rows that lie `width` numbers apart."""
        return [self.at(address, self.b.mul(width, int64(r)), 4) for r in range(count)]

    def zeros(self, count: int) -> list[Any]:
        return [ir.Constant(FLOATS, [0.0] * LANES)] * count

    def prefetch(self, address: Any) -> None:
        """Prefetch a cache line into L2; an invalid address does no harm."""
        pointer, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, i32, i32, i32])
        function = cgutils.get_or_insert_function(self.b.module, kind, "llvm.prefetch.p0i8")
        self.b.call(function, [self.b.inttoptr(address, pointer), i32(0), i32(2), i32(1)])

    def sums(
        self, sources: Sequence[Any], panels: Sequence[Any], inputs: Any, initial: Sequence[Any],
        prefetch_distance: Any = None,
    ) -> list[Any]:  # fmt: skip
        """`initial` (N, P, V) plus the products of rows `sources` and `panels`, given by address, summed over `inputs`.

        `inputs` is at least 1. With `prefetch_distance`, also prefetches the cache lines that many bytes after each
        weight.
        """
        b, entry = self.b, self.b.block
        loop, done = b.append_basic_block("inputs"), b.append_basic_block("summed")
        b.branch(loop)
        b.position_at_end(loop)
        i = b.phi(_I64)
        accumulators = [b.phi(FLOATS) for _ in initial]
        weights = [
            self._weight(b.add(self.at(panel, i, PANEL * self.size), int64(v * LANES * self.size)))
            for panel in panels
            for v in range(VECTORS)
        ]
        if prefetch_distance is not None:
            for panel in panels:
                first = b.add(self.at(panel, i, PANEL * self.size), prefetch_distance)
                for line in range(0, PANEL * self.size, _CACHE_LINE):
                    self.prefetch(b.add(first, int64(line)))
        updated: list[Any] = []
        for source in sources:
            x = broadcast(b, self.load(self.at(source, i, 4), _FLOAT))
            updated += [
                call_intrinsic(b, "fmuladd", x, weight, accumulators[len(updated) + w])
                for w, weight in enumerate(weights)
            ]
        next_i = b.add(i, int64(1))
        i.add_incoming(int64(0), entry)
        i.add_incoming(next_i, loop)
        for accumulator, start, value in zip(accumulators, initial, updated, strict=True):
            accumulator.add_incoming(start, entry)
            accumulator.add_incoming(value, loop)
        b.cbranch(b.icmp_unsigned("<", next_i, inputs), loop, done)
        b.position_at_end(done)
        return updated

    def _weight(self, address: Any) -> Any:
        vector = self.load(address, self.stored)
        return vector if self.stored is FLOATS else self.b.sitofp(vector, FLOATS)


def switch_on_shape(
    b: ir.IRBuilder, rows: Any, panels: Any, shapes: Iterable[tuple[int, int]], emit: Callable[..., None]
) -> None:
    """Emit code for every shape (rows, panels), and a switch that runs the requested one.

    Each number of rows may have one shape with a single panel, and one with several.
    """
    done, never = b.append_basic_block("done"), b.append_basic_block("never")
    several = b.icmp_unsigned(">", panels, int64(1))
    switch = b.switch(b.select(several, b.add(rows, int64(64)), rows), never)
    b.position_at_end(never)
    b.unreachable()
    for r, p in shapes:
        case = b.append_basic_block(f"rows_{r}_panels_{p}")
        switch.add_case(int64(r + (64 if p > 1 else 0)), case)
        b.position_at_end(case)
        emit(r, p)
        b.branch(done)
    b.position_at_end(done)
