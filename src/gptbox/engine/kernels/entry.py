"""The entry points, with the parameters of `gptbox.engine.abi.ENTRY_POINTS`."""

from itertools import count
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from gptbox.engine.abi import ArrayType, DecodeArguments, ForwardArguments, layout
from gptbox.engine.kernels import decode
from gptbox.jit.cache import kernel
from gptbox.jit.pointers import int64s, view

_I64 = ir.IntType(64)


def _numba_type(kind: type | ArrayType) -> Any:
    """The Numba type of a field: see `gptbox.engine.abi.layout`."""
    if isinstance(kind, ArrayType):
        return types.Array(from_dtype(kind.dtype), kind.ndim, "C")
    if kind is int:
        return types.int64
    return types.BaseTuple.from_types([_numba_type(each) for each in layout(kind).values()], kind)


def _unpacker(arguments: type) -> Any:
    """An intrinsic that reads a named tuple of this class from the argument table at an address."""
    result = _numba_type(arguments)

    @intrinsic
    def unpack(typing_context, table):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
            rows = builder.inttoptr(values[0], _I64.as_pointer())
            numbers = (builder.load(builder.gep(rows, [ir.Constant(_I64, i)])) for i in count())

            def read(kind: Any) -> Any:
                if isinstance(kind, types.Array):
                    return view(context, builder, kind, next(numbers), [next(numbers) for _ in range(kind.ndim)])
                if isinstance(kind, types.BaseTuple):
                    return context.make_tuple(builder, kind, [read(each) for each in kind.types])
                return next(numbers)

            return read(result)

        return result(types.intp), generate

    return unpack


_decode_arguments, _forward_arguments = _unpacker(DecodeArguments), _unpacker(ForwardArguments)


@kernel(nrt=False)
def gptbox_decode_steps(
    table: int, slots: int, num_new_tokens: int, do_sample: int, rows: int, begin: int, end: int, num_steps: int,
    num_draft_tokens: int, rank: int, size: int,
) -> int:  # fmt: skip
    """`decode.decode_steps`; slots, num_new_tokens and do_sample are the addresses of int64 (rows,)."""
    return decode.decode_steps(
        _decode_arguments(table), int64s(slots, rows), int64s(num_new_tokens, rows), int64s(do_sample, rows),
        begin, end, num_steps, num_draft_tokens, rank, size,
    )  # fmt: skip


@kernel(nrt=False)
def gptbox_score(table: int, slot: int, num_tokens: int, num_alternatives: int) -> int:
    """`decode.score`; returns 0."""
    decode.score(_decode_arguments(table), slot, num_tokens, num_alternatives)
    return 0


@kernel(nrt=False)
def gptbox_forward(table: int, num_tokens: int) -> int:
    """`decode.forward`; returns 0."""
    arguments = _forward_arguments(table)
    decode.forward(arguments.model, arguments.pages, arguments.scratch, num_tokens)
    return 0


FUNCTIONS = {function.__name__: function for function in (gptbox_decode_steps, gptbox_score, gptbox_forward)}
"""The entry points by name."""
