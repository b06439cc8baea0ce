"""Sums of products that are kept in registers, written in LLVM's own terms: vectorisers keep no block of sums there.

A panel is 32 numbers for each input, one input after the other: the weights of 32 outputs, say, or the values of 32
positions. Shapes: N rows, P panels, V vectors a panel.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils

from gptbox.engine.kernels.vectors import FLOATS, LANES, call, spread
from gptbox.engine.panels import PANEL

VECTORS = PANEL // LANES
_FEATURES = numba.config.CPU_FEATURES if numba.config.CPU_NAME else binding.get_host_cpu_features().flatten()
WIDE = "+avx512f" in _FEATURES
"""Whether there are 32 registers of 16 numbers; else 16 of 8, or NEON's 32 of 4."""
MOST_ROWS = 12 if WIDE else 3
"""Rows of float32 whose sums fit the registers, with one panel."""
PANELS = {1: 4, 2: 4, 3: 2, 4: 2, 5: 2, 6: 2} if WIDE else {1: 2}
"""Panels that fit for few rows."""
SHAPES = [(rows, 1) for rows in range(1, MOST_ROWS + 1)] + list(PANELS.items())
PANELS_AT_ONCE = np.array([PANELS.get(rows, 1) for rows in range(MOST_ROWS + 1)])

_CACHE_LINE = 64
"""Bytes."""

_I64, _FLOAT = ir.IntType(64), ir.FloatType()


def number(value: int) -> Any:
    return ir.Constant(_I64, value)


class Registers:
    """Writes such sums where a builder stands."""

    def __init__(self, builder: ir.IRBuilder, stored: Any = FLOATS) -> None:
        """`stored` is what half a panel is in memory: a vector of float32 or of bytes."""
        self.b = builder
        self.stored = stored
        self.size = 4 if stored is FLOATS else 1

    def at(self, address: Any, index: Any, size: int) -> Any:
        """The address of item `index` of an array whose items have `size` bytes."""
        return self.b.add(address, self.b.mul(index, number(size)))

    def load(self, address: Any, kind: Any) -> Any:
        return self.b.load(self.b.inttoptr(address, kind.as_pointer()), align=1 if kind is self.stored else 4)

    def store(self, vector: Any, address: Any) -> None:
        self.b.store(vector, self.b.inttoptr(address, FLOATS.as_pointer()), align=4)

    def rows(self, address: Any, width: Any, count: int) -> list[Any]:
        """The addresses of `count` rows of float32, each `width` numbers after the one before."""
        return [self.at(address, self.b.mul(width, number(r)), 4) for r in range(count)]

    def zeros(self, count: int) -> list[Any]:
        return [ir.Constant(FLOATS, [0.0] * LANES)] * count

    def prefetch(self, address: Any) -> None:
        """Ask for a cache line in the second-level cache; an address that does not exist does no harm."""
        pointer, whole = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, whole, whole, whole])
        function = cgutils.get_or_insert_function(self.b.module, kind, "llvm.prefetch.p0i8")
        self.b.call(function, [self.b.inttoptr(address, pointer), whole(0), whole(2), whole(1)])

    def sums(
        self, sources: Sequence[Any], panels: Sequence[Any], inputs: Any, former: Sequence[Any],
        prefetch_distance: Any = None,
    ) -> list[Any]:  # fmt: skip
        """`former` (N, P, V) plus the products of rows and panels, which are addresses, over at least one input.

        With a prefetch distance in bytes, whatever lies so far behind each weight is fetched meanwhile.
        """
        b, before = self.b, self.b.block
        loop, after = b.append_basic_block("inputs"), b.append_basic_block("summed")
        b.branch(loop)
        b.position_at_end(loop)
        i = b.phi(_I64)
        totals = [b.phi(FLOATS) for _ in former]
        weights = [
            self._weight(b.add(self.at(panel, i, PANEL * self.size), number(v * LANES * self.size)))
            for panel in panels
            for v in range(VECTORS)
        ]
        if prefetch_distance is not None:
            for panel in panels:
                first = b.add(self.at(panel, i, PANEL * self.size), prefetch_distance)
                for line in range(0, PANEL * self.size, _CACHE_LINE):
                    self.prefetch(b.add(first, number(line)))
        added: list[Any] = []
        for source in sources:
            x = spread(b, self.load(self.at(source, i, 4), _FLOAT))
            added += [call(b, "fmuladd", x, weight, totals[len(added) + w]) for w, weight in enumerate(weights)]
        following = b.add(i, number(1))
        i.add_incoming(number(0), before)
        i.add_incoming(following, loop)
        for total, first, value in zip(totals, former, added, strict=True):
            total.add_incoming(first, before)
            total.add_incoming(value, loop)
        b.cbranch(b.icmp_unsigned("<", following, inputs), loop, after)
        b.position_at_end(after)
        return added

    def _weight(self, address: Any) -> Any:
        vector = self.load(address, self.stored)
        return vector if self.stored is FLOATS else self.b.sitofp(vector, FLOATS)


def choose(
    b: ir.IRBuilder, rows: Any, panels: Any, shapes: Iterable[tuple[int, int]], emit: Callable[..., None]
) -> None:
    """Code for each shape (rows, panels) that `emit` writes, of which one run takes the one asked for.

    For each number of rows there may be a shape of one panel, and one of several.
    """
    done, never = b.append_basic_block("done"), b.append_basic_block("never")
    several = b.icmp_unsigned(">", panels, number(1))
    switch = b.switch(b.select(several, b.add(rows, number(64)), rows), never)
    b.position_at_end(never)
    b.unreachable()
    for r, p in shapes:
        case = b.append_basic_block(f"rows_{r}_panels_{p}")
        switch.add_case(number(r + (64 if p > 1 else 0)), case)
        b.position_at_end(case)
        emit(r, p)
        b.branch(done)
    b.position_at_end(done)
