"""The entry points: functions of integers only, so that a compiled library is called like any C library.

An argument table lists the fields of PackedModel, of the draft's PackedModel, of Pages, Scratch, Sequences and
SampledTokens, then the interrupt, in this order. Each entry is four int64: a number, or an array's address and shape.
`gptbox.engine.native.argument_table` writes it.
"""

from typing import Any

from gptbox.engine.buffers import Pages, SampledTokens, Scratch, Sequences
from gptbox.engine.kernels import decode
from gptbox.engine.packed_model import PackedModel
from gptbox.jit.cache import kernel
from gptbox.jit.pointers import float32s, float64s, int8s, int64s, uint64s

_ENTRY_SIZE = 4
_DRAFT = len(PackedModel._fields)
_PAGES = 2 * _DRAFT
_SCRATCH = _PAGES + len(Pages._fields)
_SEQUENCES = _SCRATCH + len(Scratch._fields)
_SAMPLED = _SEQUENCES + len(Sequences._fields)
_INTERRUPT = _SAMPLED + len(SampledTokens._fields)
_TABLE_SIZE = _ENTRY_SIZE * (_INTERRUPT + 1)


@kernel(nrt=False, inline=True)
def _number(t: Any, i: int) -> Any:
    return t[_ENTRY_SIZE * i]


@kernel(nrt=False, inline=True)
def _1d(t: Any, i: int) -> Any:
    """Address and shape of entry i, a one-dimensional array."""
    return t[_ENTRY_SIZE * i], t[_ENTRY_SIZE * i + 1]


@kernel(nrt=False, inline=True)
def _2d(t: Any, i: int) -> Any:
    """Address and shape of a two-dimensional array."""
    return t[_ENTRY_SIZE * i], (t[_ENTRY_SIZE * i + 1], t[_ENTRY_SIZE * i + 2])


@kernel(nrt=False, inline=True)
def _3d(t: Any, i: int) -> Any:
    """Address and shape of a three-dimensional array."""
    return t[_ENTRY_SIZE * i], (t[_ENTRY_SIZE * i + 1], t[_ENTRY_SIZE * i + 2], t[_ENTRY_SIZE * i + 3])


@kernel(nrt=False)
def _packed_model(t: Any, i: int) -> Any:
    return PackedModel(
        _number(t, i), _number(t, i + 1), _number(t, i + 2), _number(t, i + 3), _number(t, i + 4), _number(t, i + 5),
        _number(t, i + 6), _number(t, i + 7), int8s(*_1d(t, i + 8)), float32s(*_1d(t, i + 9)),
        int64s(*_3d(t, i + 10)), int64s(*_3d(t, i + 11)), float32s(*_2d(t, i + 12)), float32s(*_2d(t, i + 13)),
        float32s(*_2d(t, i + 14)), float32s(*_2d(t, i + 15)),
    )  # fmt: skip


@kernel(nrt=False)
def _pages(t: Any) -> Any:
    return Pages(float32s(*_2d(t, _PAGES)), int64s(*_2d(t, _PAGES + 1)))


@kernel(nrt=False)
def _scratch(t: Any) -> Any:
    i = _SCRATCH
    return Scratch(
        float32s(*_2d(t, i)), float32s(*_3d(t, i + 1)), float32s(*_2d(t, i + 2)), float32s(*_2d(t, i + 3)),
        float32s(*_2d(t, i + 4)), float32s(*_2d(t, i + 5)), float32s(*_3d(t, i + 6)), float32s(*_3d(t, i + 7)),
        float32s(*_2d(t, i + 8)), float32s(*_2d(t, i + 9)), float32s(*_3d(t, i + 10)), int64s(*_3d(t, i + 11)),
        int64s(*_1d(t, i + 12)),
    )  # fmt: skip


@kernel(nrt=False)
def _sequences(t: Any) -> Any:
    i = _SEQUENCES
    return Sequences(
        int64s(*_2d(t, i)), int64s(*_1d(t, i + 1)), float64s(*_2d(t, i + 2)), uint64s(*_1d(t, i + 3)),
        int8s(*_2d(t, i + 4)), float32s(*_2d(t, i + 5)), int64s(*_2d(t, i + 6)), float32s(*_2d(t, i + 7)),
    )  # fmt: skip


@kernel(nrt=False)
def _sampled(t: Any) -> Any:
    i = _SAMPLED
    return SampledTokens(
        int64s(*_2d(t, i)), float32s(*_2d(t, i + 1)), int64s(*_3d(t, i + 2)), float32s(*_3d(t, i + 3)),
    )  # fmt: skip


@kernel(nrt=False)
def gptbox_decode_steps(
    table: int, slots: int, num_new_tokens: int, do_sample: int, rows: int, begin: int, end: int, num_steps: int,
    num_draft_tokens: int, rank: int, size: int,
) -> int:  # fmt: skip
    """`decode.decode_steps`; slots, num_new_tokens and do_sample are the addresses of int64 (rows,)."""
    t = int64s(table, _TABLE_SIZE)
    return decode.decode_steps(
        _packed_model(t, 0), _packed_model(t, _DRAFT), _pages(t), _scratch(t), _sequences(t), _sampled(t),
        int64s(_number(t, _INTERRUPT), 1), int64s(slots, rows),
        int64s(num_new_tokens, rows), int64s(do_sample, rows),
        begin, end, num_steps, num_draft_tokens, rank, size,
    )  # fmt: skip


@kernel(nrt=False)
def gptbox_score(table: int, slot: int, num_tokens: int, num_alternatives: int) -> int:
    """`decode.score`; returns 0."""
    t = int64s(table, _TABLE_SIZE)
    decode.score(
        _packed_model(t, 0), _pages(t), _scratch(t), _sequences(t), _sampled(t), slot, num_tokens, num_alternatives,
    )  # fmt: skip
    return 0


@kernel(nrt=False)
def gptbox_forward(table: int, num_tokens: int) -> int:
    """`decode.forward`; returns 0."""
    t = int64s(table, _TABLE_SIZE)
    decode.forward(_packed_model(t, 0), _pages(t), _scratch(t), num_tokens)
    return 0


FUNCTIONS = {function.__name__: function for function in (gptbox_decode_steps, gptbox_score, gptbox_forward)}
"""The entry points by name; `gptbox.engine.native.ARGUMENTS` has how many integers each takes."""
