"""Products of a few rows with a large matrix, whose weights are laid out so that they stream through the registers.

A library's sgemm packs the matrix anew at each call, which a few rows do not repay, and sums in another order for
another number of rows. Here weights are packed once, and each output is summed over the inputs in their order whatever
stands beside it: a sequence's logits are the same bits in every batch.

Shapes: N rows, I inputs, O outputs. A panel is the weights of 32 outputs, (I, 32), one input after the other.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gptbox.engine.kernels.registers import (
    MOST_ROWS,
    PANELS_AT_ONCE,
    SHAPES,
    VECTORS,
    WIDE,
    Registers,
    choose,
    number,
)
from gptbox.engine.kernels.vectors import FLOATS, LANES
from gptbox.engine.panels import PANEL
from gptbox.kernel_cache import kernel

_MOST_BYTES = 6 if WIDE else 3
"""Rows at once; always with two panels, since what takes time is to make bytes floats."""
_BYTES = ir.VectorType(ir.IntType(8), LANES)


def _block(narrow: bool) -> Any:
    @intrinsic
    def block(typing_context, x, ldx, w, steps, inputs, y, ldy, rows, panels, add):  # type: ignore[no-untyped-def]
        """`rows` at address x, ldx numbers apart, times `panels` at w, into y, or added to it where `add` is 1."""
        signature = types.void(*[types.intp] * 10)

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            x, ldx, w, steps, inputs, y, ldy, rows, panels, add = arguments
            b, registers = builder, Registers(builder, _BYTES if narrow else FLOATS)
            added = b.icmp_unsigned("!=", add, number(0))

            def emit(rows: int, panels: int) -> None:
                size = b.mul(inputs, number(PANEL * registers.size))
                starts = [b.add(w, b.mul(size, number(p))) for p in range(panels)]
                sums = registers.sums(
                    registers.rows(x, ldx, rows), starts, inputs, registers.zeros(rows * panels * VECTORS)
                )
                for r, row in enumerate(registers.rows(y, ldy, rows)):
                    for v in range(panels * VECTORS):
                        value, place = sums[r * panels * VECTORS + v], b.add(row, number(4 * LANES * v))
                        if narrow:
                            value = b.fmul(value, registers.load(b.add(steps, number(4 * LANES * v)), FLOATS))
                        former = registers.load(place, FLOATS)
                        registers.store(b.select(added, b.fadd(former, value), value), place)

            choose(b, rows, panels, [shape for shape in SHAPES if not narrow or shape[0] <= _MOST_BYTES], emit)
            return context.get_dummy_value()

        return signature, generate

    return block


_block_of_floats, _block_of_bytes = _block(False), _block(True)


@kernel(counted=False)
def multiply(
    x: int,
    ldx: int,
    rows: int,
    weights: int,
    steps: int,
    inputs: int,
    first: int,
    last: int,
    y: int,
    ldy: int,
    add: int,
) -> None:
    """y (N, O) = x (N, I) times packed weights, for the panels from first to last; `add` as 1 adds it to y.

    Arrays by their addresses, x's and y's rows ldx and ldy numbers apart. `steps` is the address of the quantization
    steps, or 0 where the weights are float32.
    """
    size, most = (inputs * PANEL * 4, MOST_ROWS) if steps == 0 else (inputs * PANEL, _MOST_BYTES)
    at_once = PANELS_AT_ONCE[min(rows, most)]
    panel = first
    while panel < last:
        some_panels = at_once if last - panel >= at_once else 1
        row = 0
        while row < rows:
            # Blocks of about as many rows each: small ones take as long as larger ones.
            some = -(-(rows - row) // -(-(rows - row) // most))
            source, target = x + 4 * row * ldx, y + 4 * (row * ldy + panel * PANEL)
            w = weights + panel * size
            if steps == 0:
                _block_of_floats(source, ldx, w, steps, inputs, target, ldy, some, some_panels, add)
            else:
                _block_of_bytes(source, ldx, w, steps + 4 * panel * PANEL, inputs, target, ldy, some, some_panels, add)
            row += some
        panel += some_panels
