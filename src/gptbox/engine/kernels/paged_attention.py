"""Products with paged keys and values: PagedAttention, Kwon et al., arXiv 2309.06180.

A page holds 32 positions of a sequence for all layers and heads: `gptbox.engine.kv_cache` has the layout. Here `pages`
is the address of the sequence's row of the page table, and `base` that of a head's keys, or of a panel of its values,
in page 0. Sums run in the order of positions.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gptbox.engine.kernels.microkernel import (
    MAX_PANELS,
    MAX_ROWS,
    TILE_SHAPES,
    VECTORS,
    Microkernel,
    int64,
    switch_on_shape,
)
from gptbox.engine.kernels.simd import FLOATS, LANES
from gptbox.engine.packing import PANEL
from gptbox.jit.cache import kernel

_I64 = ir.IntType(64)


def _store(micro: Microkernel, sums: Any, rows: list[Any]) -> None:
    """Store sums (N, P, V) at the addresses `rows`."""
    num_vectors = len(sums) // len(rows)
    for r, row in enumerate(rows):
        for v in range(num_vectors):
            micro.store(sums[r * num_vectors + v], micro.b.add(row, int64(4 * LANES * v)))


@intrinsic
def _keys(typing_context, x, ldx, base, pages, page_size, inputs, y, ldy, rows, panels):  # type: ignore[no-untyped-def]
    """y (N, 32 P) = x (N, I) @ keys (I, 32) at `base` in each of P pages."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        x, ldx, base, pages, page_size, inputs, y, ldy, rows, panels = arguments
        b, micro = builder, Microkernel(builder)

        def emit(rows: int, panels: int) -> None:
            indices = [micro.load(b.add(pages, int64(8 * p)), _I64) for p in range(panels)]
            starts = [b.add(base, b.mul(page_size, index)) for index in indices]
            zeros = micro.zeros(rows * panels * VECTORS)
            # In a page a head's keys are followed by its values, and these by the next head's keys.
            values_distance = b.mul(inputs, int64(4 * PANEL))
            sums = micro.sums(micro.rows(x, ldx, rows), starts, inputs, zeros, values_distance)
            _store(micro, sums, micro.rows(y, ldy, rows))

        switch_on_shape(b, rows, panels, TILE_SHAPES, emit)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 10), generate


@intrinsic
def _values(typing_context, x, ldx, base, pages, page_size, inputs, y, ldy, rows):  # type: ignore[no-untyped-def]
    """y (N, 32) = x (N, I) @ values (I, 32), of which each page holds 32 rows at `base`."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        x, ldx, base, pages, page_size, inputs, y, ldy, rows = arguments
        b, micro = builder, Microkernel(builder)

        def emit(rows: int, _: int) -> None:
            sources, entry = micro.rows(x, ldx, rows), b.block
            loop, done = b.append_basic_block("pages"), b.append_basic_block("read")
            b.branch(loop)
            b.position_at_end(loop)
            first, accumulators = b.phi(_I64), [b.phi(FLOATS) for _ in range(rows * VECTORS)]
            index = micro.load(micro.at(pages, b.udiv(first, int64(PANEL)), 8), _I64)
            rest = b.sub(inputs, first)
            length = b.select(b.icmp_unsigned("<", rest, int64(PANEL)), rest, int64(PANEL))
            page_sources = [micro.at(source, first, 4) for source in sources]
            start = b.add(base, b.mul(page_size, index))
            sums = micro.sums(page_sources, [start], length, accumulators, int64(4 * PANEL * PANEL))
            next_first = b.add(first, int64(PANEL))
            first.add_incoming(int64(0), entry)
            first.add_incoming(next_first, b.block)
            for accumulator, zero, value in zip(accumulators, micro.zeros(len(accumulators)), sums, strict=True):
                accumulator.add_incoming(zero, entry)
                accumulator.add_incoming(value, b.block)
            b.cbranch(b.icmp_unsigned("<", next_first, inputs), loop, done)
            b.position_at_end(done)
            _store(micro, sums, micro.rows(y, ldy, rows))

        switch_on_shape(b, rows, int64(1), [(rows, 1) for rows in range(1, MAX_ROWS + 1)], emit)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 9), generate


@kernel(nrt=False)
def matmul_keys(
    x: int, ldx: int, rows: int, base: int, pages: int, page_size: int, width: int, num_pages: int, y: int, ldy: int
) -> None:
    """y (N, 32 num_pages) = x (N, width) @ the keys of the first `num_pages` pages.

    Arrays are addresses; rows of x and y lie ldx and ldy numbers apart.
    """
    max_pages = MAX_PANELS[min(rows, MAX_ROWS)]
    page = 0
    while page < num_pages:
        tile_pages = max_pages if num_pages - page >= max_pages else 1
        row = 0
        while row < rows:
            tile_rows = -(-(rows - row) // -(-(rows - row) // MAX_ROWS))
            source, target = x + 4 * row * ldx, y + 4 * (row * ldy + page * PANEL)
            _keys(source, ldx, base, pages + 8 * page, page_size, width, target, ldy, tile_rows, tile_pages)
            row += tile_rows
        page += tile_pages


@kernel(nrt=False)
def matmul_values(
    x: int, ldx: int, rows: int, base: int, pages: int, page_size: int, length: int, y: int, ldy: int
) -> None:
    """y (N, 32) = x (N, length) @ the values of the first `length` positions."""
    row = 0
    while row < rows:
        tile_rows = -(-(rows - row) // -(-(rows - row) // MAX_ROWS))
        _values(x + 4 * row * ldx, ldx, base, pages, page_size, length, y + 4 * row * ldy, ldy, tile_rows)
        row += tile_rows
