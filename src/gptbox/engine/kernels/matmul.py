"""Matrix products of a few rows with packed weights, which stream through the registers.

A BLAS sgemm packs the matrix at each call, which does not pay off for a few rows, and its summation order depends on
the number of rows. Here weights are packed once, and each output sums over its inputs in order whatever else is in the
batch: a sequence's logits are bit-identical in every batch.

Shapes: N rows, I inputs, O outputs. A panel holds the weights of 32 outputs, (I, 32), input by input.
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
    WIDE,
    Microkernel,
    int64,
    switch_on_shape,
)
from gptbox.engine.kernels.simd import FLOATS, LANES
from gptbox.engine.packing import PANEL
from gptbox.jit.cache import kernel

_MAX_INT8_ROWS = 6 if WIDE else 3
"""Rows per tile with int8 weights; with AVX-512, few enough for two panels: conversion to float32 dominates."""
_INT8 = ir.VectorType(ir.IntType(8), LANES)


def _make_tile(int8: bool) -> Any:
    """The intrinsic that computes one tile of the product, for int8 or float32 weights."""

    @intrinsic
    def tile(typing_context, x, ldx, w, scales, inputs, y, ldy, rows, panels, add):  # type: ignore[no-untyped-def]
        """y (rows, 32 panels) = x (rows, I) @ weights at address w; accumulated into y where `add` is 1."""
        signature = types.void(*[types.intp] * 10)

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            x, ldx, w, scales, inputs, y, ldy, rows, panels, add = arguments
            b, micro = builder, Microkernel(builder, _INT8 if int8 else FLOATS)
            accumulate = b.icmp_unsigned("!=", add, int64(0))

            def emit(rows: int, panels: int) -> None:
                size = b.mul(inputs, int64(PANEL * micro.size))
                starts = [b.add(w, b.mul(size, int64(p))) for p in range(panels)]
                sums = micro.sums(micro.rows(x, ldx, rows), starts, inputs, micro.zeros(rows * panels * VECTORS))
                for r, row in enumerate(micro.rows(y, ldy, rows)):
                    for v in range(panels * VECTORS):
                        value, target = sums[r * panels * VECTORS + v], b.add(row, int64(4 * LANES * v))
                        if int8:
                            value = b.fmul(value, micro.load(b.add(scales, int64(4 * LANES * v)), FLOATS))
                        previous = micro.load(target, FLOATS)
                        micro.store(b.select(accumulate, b.fadd(previous, value), value), target)

            switch_on_shape(
                b, rows, panels, [shape for shape in TILE_SHAPES if not int8 or shape[0] <= _MAX_INT8_ROWS], emit
            )
            return context.get_dummy_value()

        return signature, generate

    return tile


_float32_tile, _int8_tile = _make_tile(False), _make_tile(True)


@kernel(nrt=False)
def matmul(
    x: int,
    ldx: int,
    rows: int,
    weights: int,
    scales: int,
    inputs: int,
    first: int,
    last: int,
    y: int,
    ldy: int,
    add: int,
) -> None:
    """y (N, O) = x (N, I) @ packed weights, for the panels from first to last; accumulated into y where `add` is 1.

    Arrays are addresses; rows of x and y lie ldx and ldy numbers apart. `scales` is the address of the quantization
    scales (O,), or 0 for float32 weights.
    """
    panel_size, max_rows = (inputs * PANEL * 4, MAX_ROWS) if scales == 0 else (inputs * PANEL, _MAX_INT8_ROWS)
    max_panels = MAX_PANELS[min(rows, max_rows)]
    panel = first
    while panel < last:
        tile_panels = max_panels if last - panel >= max_panels else 1
        row = 0
        while row < rows:
            # Tiles of about equally many rows: a small one takes as long as a large one.
            tile_rows = -(-(rows - row) // -(-(rows - row) // max_rows))
            source, target = x + 4 * row * ldx, y + 4 * (row * ldy + panel * PANEL)
            w = weights + panel * panel_size
            if scales == 0:
                _float32_tile(source, ldx, w, scales, inputs, target, ldy, tile_rows, tile_panels, add)
            else:
                _int8_tile(source, ldx, w, scales + 4 * panel * PANEL, inputs, target, ldy, tile_rows, tile_panels, add)
            row += tile_rows
        panel += tile_panels
