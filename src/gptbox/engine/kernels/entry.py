"""Where Python enters: functions of integers alone, so that a compiled library is called as any C library is.

A table holds what a call works on: the fields of Network, those of its draft's, of Pages, Scratch, Sequences and
Drawn, and the interrupt, in this order, each in four int64: a number; or an array's address
and its shape. `gptbox.engine.native` writes it.
"""

from typing import Any

from gptbox.engine.kernels import steps
from gptbox.engine.network import Network
from gptbox.engine.state import Drawn, Pages, Scratch, Sequences
from gptbox.kernel_cache import kernel
from gptbox.kernel_memory import doubles, floats, integers, small_integers, words

_ENTRY = 4
_DRAFT = len(Network._fields)
_PAGES = 2 * _DRAFT
_SCRATCH = _PAGES + len(Pages._fields)
_SEQUENCES = _SCRATCH + len(Scratch._fields)
_DRAWN = _SEQUENCES + len(Sequences._fields)
_INTERRUPT = _DRAWN + len(Drawn._fields)
_SIZE = _ENTRY * (_INTERRUPT + 1)


@kernel(counted=False, inline=True)
def _number(t: Any, i: int) -> Any:
    return t[_ENTRY * i]


@kernel(counted=False, inline=True)
def _one(t: Any, i: int) -> Any:
    """The address and the shape of an array of one dimension; of more below."""
    return t[_ENTRY * i], t[_ENTRY * i + 1]


@kernel(counted=False, inline=True)
def _two(t: Any, i: int) -> Any:
    return t[_ENTRY * i], (t[_ENTRY * i + 1], t[_ENTRY * i + 2])


@kernel(counted=False, inline=True)
def _three(t: Any, i: int) -> Any:
    return t[_ENTRY * i], (t[_ENTRY * i + 1], t[_ENTRY * i + 2], t[_ENTRY * i + 3])


@kernel(counted=False)
def _network(t: Any, i: int) -> Any:
    return Network(
        _number(t, i), _number(t, i + 1), _number(t, i + 2), _number(t, i + 3), _number(t, i + 4), _number(t, i + 5),
        _number(t, i + 6), _number(t, i + 7), small_integers(*_one(t, i + 8)), floats(*_one(t, i + 9)),
        integers(*_three(t, i + 10)), integers(*_three(t, i + 11)), floats(*_two(t, i + 12)), floats(*_two(t, i + 13)),
        floats(*_two(t, i + 14)), floats(*_two(t, i + 15)),
    )  # fmt: skip


@kernel(counted=False)
def _pages(t: Any) -> Any:
    return Pages(floats(*_two(t, _PAGES)), integers(*_two(t, _PAGES + 1)))


@kernel(counted=False)
def _scratch(t: Any) -> Any:
    i = _SCRATCH
    return Scratch(
        floats(*_two(t, i)), floats(*_three(t, i + 1)), floats(*_two(t, i + 2)), floats(*_two(t, i + 3)),
        floats(*_two(t, i + 4)), floats(*_two(t, i + 5)), floats(*_three(t, i + 6)), floats(*_three(t, i + 7)),
        floats(*_two(t, i + 8)), floats(*_two(t, i + 9)), floats(*_three(t, i + 10)), integers(*_three(t, i + 11)),
        integers(*_one(t, i + 12)),
    )  # fmt: skip


@kernel(counted=False)
def _sequences(t: Any) -> Any:
    i = _SEQUENCES
    return Sequences(
        integers(*_two(t, i)), integers(*_one(t, i + 1)), doubles(*_two(t, i + 2)), words(*_one(t, i + 3)),
        small_integers(*_two(t, i + 4)), floats(*_two(t, i + 5)), integers(*_two(t, i + 6)), floats(*_two(t, i + 7)),
    )  # fmt: skip


@kernel(counted=False)
def _drawn(t: Any) -> Any:
    i = _DRAWN
    return Drawn(
        integers(*_two(t, i)), floats(*_two(t, i + 1)), integers(*_three(t, i + 2)), floats(*_three(t, i + 3)),
    )  # fmt: skip


@kernel(counted=False)
def gptbox_burst(
    table: int, slots: int, fresh: int, drawing: int, rows: int, begin: int, end: int, steps_: int, ahead: int,
    rank: int, size: int,
) -> int:  # fmt: skip
    """`steps.burst`; slots, fresh and drawing are the addresses of int64 (rows,)."""
    t = integers(table, _SIZE)
    return steps.burst(
        _network(t, 0), _network(t, _DRAFT), _pages(t), _scratch(t), _sequences(t), _drawn(t),
        integers(_number(t, _INTERRUPT), 1), integers(slots, rows), integers(fresh, rows), integers(drawing, rows),
        begin, end, steps_, ahead, rank, size,
    )  # fmt: skip


@kernel(counted=False)
def gptbox_score(table: int, slot: int, count: int, alternatives: int) -> int:
    """`steps.score`; 0."""
    t = integers(table, _SIZE)
    steps.score(_network(t, 0), _pages(t), _scratch(t), _sequences(t), _drawn(t), slot, count, alternatives)
    return 0


@kernel(counted=False)
def gptbox_forward(table: int, count: int) -> int:
    """`steps.forward`; 0."""
    t = integers(table, _SIZE)
    steps.forward(_network(t, 0), _pages(t), _scratch(t), count)
    return 0


FUNCTIONS = {function.__name__: function for function in (gptbox_burst, gptbox_score, gptbox_forward)}
"""Each takes as many integers as `gptbox.engine.native.ARGUMENTS` says."""
