"""Products of a few rows with a large matrix, whose weights are laid out so that they stream through the registers.

A library's sgemm packs the matrix anew at each call, which a few rows do not repay, and sums in another order for
another number of rows. Here weights are packed once, and each output is summed over the inputs in their order whatever
stands beside it: a sequence's logits are the same bits in every batch.

The innermost loop is written in LLVM's own terms, since vectorisers keep no block of sums in registers.

Shapes: N rows, I inputs, O outputs. A panel is the weights of 32 outputs, (I, 32), one input after the other.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from gptbox.engine.kernels.vectors import FLOATS, LANES, call, spread
from gptbox.engine.panels import PANEL
from gptbox.kernel_cache import kernel

_VECTORS = PANEL // LANES
_FEATURES = numba.config.CPU_FEATURES if numba.config.CPU_NAME else binding.get_host_cpu_features().flatten()
_WIDE = "+avx512f" in _FEATURES
# As many rows, and for few rows panels, at once as the registers hold sums of: 32 of AVX-512, else 16 or NEON's 32.
# Of bytes fewer rows and always two panels, since what takes time is to make them floats.
_MOST_ROWS = {False: 12, True: 6} if _WIDE else {False: 3, True: 3}
_MOST_FLOATS, _MOST_BYTES = _MOST_ROWS[False], _MOST_ROWS[True]
_PANELS = {1: 4, 2: 4, 3: 2, 4: 2, 5: 2, 6: 2} if _WIDE else {1: 2}

_I8, _I64, _FLOAT = ir.IntType(8), ir.IntType(64), ir.FloatType()


class _Emitter:
    """Writes the loop over the inputs for a block of rows and panels."""

    def __init__(self, builder: ir.IRBuilder, arguments: Any, narrow: bool) -> None:
        self.b, self.narrow = builder, narrow
        self.x, self.ldx, self.w, self.steps, self.inputs, self.y, self.ldy, _, _, add = arguments
        self.add = builder.icmp_unsigned("!=", add, ir.Constant(_I64, 0))
        self.size = 1 if narrow else 4
        self.stored = ir.VectorType(_I8, LANES) if narrow else FLOATS

    def load(self, address: Any, kind: Any) -> Any:
        return self.b.load(self.b.inttoptr(address, kind.as_pointer()), align=1 if kind is self.stored else 4)

    def weights(self, at: Any) -> Any:
        vector = self.load(at, self.stored)
        return self.b.sitofp(vector, FLOATS) if self.narrow else vector

    def times(self, number: Any, factor: int) -> Any:
        return self.b.mul(number, ir.Constant(_I64, factor))

    def block(self, rows: int, panels: int) -> None:
        """y (rows, 32 panels) = x (rows, I) times the panels, or that added to it."""
        b, zero, one = self.b, ir.Constant(_I64, 0), ir.Constant(_I64, 1)
        sources = [b.add(self.x, self.times(b.mul(self.ldx, ir.Constant(_I64, r)), 4)) for r in range(rows)]
        panel_size = self.times(self.inputs, PANEL * self.size)
        starts = [b.add(self.w, b.mul(panel_size, ir.Constant(_I64, p))) for p in range(panels)]
        before = b.block
        loop, after = b.append_basic_block("inputs"), b.append_basic_block("summed")
        b.branch(loop)
        b.position_at_end(loop)
        i = b.phi(_I64)
        i.add_incoming(zero, before)
        sums = [b.phi(FLOATS) for _ in range(rows * panels * _VECTORS)]
        here = [
            self.weights(
                b.add(b.add(start, self.times(i, PANEL * self.size)), ir.Constant(_I64, v * LANES * self.size))
            )
            for start in starts
            for v in range(_VECTORS)
        ]
        added = []
        for r in range(rows):
            x = spread(b, self.load(b.add(sources[r], self.times(i, 4)), _FLOAT))
            for v, weight in enumerate(here):
                added.append(call(b, "fmuladd", x, weight, sums[r * len(here) + v]))
        for total, value in zip(sums, added, strict=True):
            total.add_incoming(ir.Constant(FLOATS, [0.0] * LANES), before)
            total.add_incoming(value, loop)
        following = b.add(i, one)
        i.add_incoming(following, loop)
        b.cbranch(b.icmp_unsigned("<", following, self.inputs), loop, after)
        b.position_at_end(after)
        for r in range(rows):
            for v in range(len(here)):
                column = v * LANES
                value = added[r * len(here) + v]
                if self.narrow:
                    step = self.load(b.add(self.steps, ir.Constant(_I64, 4 * column)), FLOATS)
                    value = b.fmul(value, step)
                row = b.add(self.y, self.times(b.mul(self.ldy, ir.Constant(_I64, r)), 4))
                place = b.inttoptr(b.add(row, ir.Constant(_I64, 4 * column)), FLOATS.as_pointer())
                former = b.load(place, align=4)
                value = b.select(self.add, b.fadd(former, value), value)
                b.store(value, place, align=4)


def _block(narrow: bool) -> Any:
    @intrinsic
    def block(typing_context, x, ldx, w, steps, inputs, y, ldy, rows, panels, add):  # type: ignore[no-untyped-def]
        """`rows` at address x, ldx numbers apart, times `panels` at w, into y, or added to it where `add` is 1."""
        signature = types.void(*[types.intp] * 10)

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            emitter = _Emitter(builder, arguments, narrow)
            done, never = builder.append_basic_block("done"), builder.append_basic_block("never")
            several = builder.icmp_unsigned(">", arguments[8], ir.Constant(_I64, 1))
            key = builder.select(several, builder.add(arguments[7], ir.Constant(_I64, 16)), arguments[7])
            switch = builder.switch(key, never)
            builder.position_at_end(never)
            builder.unreachable()
            shapes = [(r, 1) for r in range(1, _MOST_ROWS[narrow] + 1)] + list(_PANELS.items())
            for r, p in shapes:
                case = builder.append_basic_block(f"rows_{r}_panels_{p}")
                switch.add_case(ir.Constant(_I64, r + (16 if p > 1 else 0)), case)
                builder.position_at_end(case)
                emitter.block(r, p)
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return signature, generate

    return block


_block_of_floats, _block_of_bytes = _block(False), _block(True)
_PANELS_AT_ONCE = np.array([_PANELS.get(rows, 1) for rows in range(_MOST_FLOATS + 1)])


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
    size, most = (inputs * PANEL * 4, _MOST_FLOATS) if steps == 0 else (inputs * PANEL, _MOST_BYTES)
    at_once = _PANELS_AT_ONCE[min(rows, most)]
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
