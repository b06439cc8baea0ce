"""Products with keys and values, which lie in pages: PagedAttention, Kwon et al., arXiv 2309.06180.

A page holds 32 positions of a sequence, of all layers and heads: `gptbox.engine.kv_cache` says how. Here `pages` is the
address of the sequence's row of the page table, and `place` that of a head's keys, or a panel of its values, in page 0.
Sums go in the order of the positions.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gptbox.engine.kernels.registers import MOST_ROWS, PANELS_AT_ONCE, SHAPES, VECTORS, Registers, choose, number
from gptbox.engine.kernels.vectors import FLOATS, LANES
from gptbox.engine.panels import PANEL
from gptbox.kernel_cache import kernel

_I64 = ir.IntType(64)


def _store(registers: Registers, sums: Any, rows: list[Any]) -> None:
    """Sums (N, P, V) into rows, which are addresses."""
    each = len(sums) // len(rows)
    for r, row in enumerate(rows):
        for v in range(each):
            registers.store(sums[r * each + v], registers.b.add(row, number(4 * LANES * v)))


@intrinsic
def _keys(typing_context, x, ldx, place, pages, page_size, inputs, y, ldy, rows, panels):  # type: ignore[no-untyped-def]
    """y (N, 32 P) = x (N, I) times the keys (I, 32) at `place` in each of P pages."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        x, ldx, place, pages, page_size, inputs, y, ldy, rows, panels = arguments
        b, registers = builder, Registers(builder)

        def emit(rows: int, panels: int) -> None:
            indices = [registers.load(b.add(pages, number(8 * p)), _I64) for p in range(panels)]
            starts = [b.add(place, b.mul(page_size, index)) for index in indices]
            zeros = registers.zeros(rows * panels * VECTORS)
            # A page's keys of a head are followed by its values, and these by the next head's keys.
            values = b.mul(inputs, number(4 * PANEL))
            sums = registers.sums(registers.rows(x, ldx, rows), starts, inputs, zeros, values)
            _store(registers, sums, registers.rows(y, ldy, rows))

        choose(b, rows, panels, SHAPES, emit)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 10), generate


@intrinsic
def _values(typing_context, x, ldx, place, pages, page_size, inputs, y, ldy, rows):  # type: ignore[no-untyped-def]
    """y (N, 32) = x (N, I) times values (I, 32), of which each page has 32 inputs at `place`."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        x, ldx, place, pages, page_size, inputs, y, ldy, rows = arguments
        b, registers = builder, Registers(builder)

        def emit(rows: int, _: int) -> None:
            sources, before = registers.rows(x, ldx, rows), b.block
            loop, after = b.append_basic_block("pages"), b.append_basic_block("read")
            b.branch(loop)
            b.position_at_end(loop)
            first, totals = b.phi(_I64), [b.phi(FLOATS) for _ in range(rows * VECTORS)]
            index = registers.load(registers.at(pages, b.udiv(first, number(PANEL)), 8), _I64)
            rest = b.sub(inputs, first)
            some = b.select(b.icmp_unsigned("<", rest, number(PANEL)), rest, number(PANEL))
            here = [registers.at(source, first, 4) for source in sources]
            start = b.add(place, b.mul(page_size, index))
            sums = registers.sums(here, [start], some, totals, number(4 * PANEL * PANEL))
            following = b.add(first, number(PANEL))
            first.add_incoming(number(0), before)
            first.add_incoming(following, b.block)
            for total, none, value in zip(totals, registers.zeros(len(totals)), sums, strict=True):
                total.add_incoming(none, before)
                total.add_incoming(value, b.block)
            b.cbranch(b.icmp_unsigned("<", following, inputs), loop, after)
            b.position_at_end(after)
            _store(registers, sums, registers.rows(y, ldy, rows))

        choose(b, rows, number(1), [(rows, 1) for rows in range(1, MOST_ROWS + 1)], emit)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 9), generate


@kernel(counted=False)
def multiply_keys(
    x: int, ldx: int, rows: int, place: int, pages: int, page_size: int, width: int, count: int, y: int, ldy: int
) -> None:
    """y (N, 32 `count`) = x (N, `width`) times the keys of the first `count` pages.

    Arrays by their addresses, x's and y's rows ldx and ldy numbers apart.
    """
    at_once = PANELS_AT_ONCE[min(rows, MOST_ROWS)]
    page = 0
    while page < count:
        some_pages = at_once if count - page >= at_once else 1
        row = 0
        while row < rows:
            some = -(-(rows - row) // -(-(rows - row) // MOST_ROWS))
            source, target = x + 4 * row * ldx, y + 4 * (row * ldy + page * PANEL)
            _keys(source, ldx, place, pages + 8 * page, page_size, width, target, ldy, some, some_pages)
            row += some
        page += some_pages


@kernel(counted=False)
def multiply_values(
    x: int, ldx: int, rows: int, place: int, pages: int, page_size: int, length: int, y: int, ldy: int
) -> None:
    """y (N, 32) = x (N, `length`) times the values of the first `length` positions."""
    row = 0
    while row < rows:
        some = -(-(rows - row) // -(-(rows - row) // MOST_ROWS))
        _values(x + 4 * row * ldx, ldx, place, pages, page_size, length, y + 4 * row * ldy, ldy, some)
        row += some
