"""The binary interface of the compiled kernels: their parameters, and the layout of these in memory.

An entry point takes int64 numbers, so that a compiled library is called like any C library. The first is the address of
an argument table: the fields of a named tuple as int64, in order and depth first. An array is stored as its address and
shape. `pack` writes the table and `gptbox.engine.kernels.entry` reads it, both by the annotations of the named tuples,
so that a field is added in one place.
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, NamedTuple, TypeAlias, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.buffers import Pages, SampledTokens, Scratch, Sequences
from gptbox.engine.packed_model import PackedModel


class ForwardArguments(NamedTuple):
    """The argument table of gptbox_forward."""

    model: PackedModel
    pages: Pages
    scratch: Scratch


class DecodeArguments(NamedTuple):
    """The argument table of gptbox_decode_steps and gptbox_score."""

    model: PackedModel
    draft: PackedModel
    """The same weights in int8, for speculative decoding; any model where no tokens are drafted."""
    pages: Pages
    scratch: Scratch
    sequences: Sequences
    sampled: SampledTokens
    interrupt: Annotated[NDArray[np.int64], "1"]
    """Any value but 0 ends decoding after the current step."""


ENTRY_POINTS = {
    "gptbox_decode_steps": (
        "table", "slots", "num_new_tokens", "do_sample", "rows", "begin", "end", "num_steps", "num_draft_tokens",
        "rank", "size",
    ),
    "gptbox_score": ("table", "slot", "num_tokens", "num_alternatives"),
    "gptbox_forward": ("table", "num_tokens"),
}  # fmt: skip
"""The entry points' parameters: `gptbox.engine.kernels.entry`."""


class ArrayType(NamedTuple):
    """The type of a C-contiguous array."""

    dtype: np.dtype[Any]
    ndim: int


Layout: TypeAlias = "dict[str, type | ArrayType]"
"""Each field's type: int, ArrayType, or the class of a nested named tuple."""


@cache
def layout(arguments: type) -> Layout:
    """The layout of a named tuple's class.

    An array is annotated `Annotated[NDArray[...], shape]`, with a word per axis in `shape`; a structured array's dtype
    follows the shape.
    """
    return {name: _field_type(hint) for name, hint in get_type_hints(arguments, include_extras=True).items()}


def _field_type(hint: Any) -> type | ArrayType:
    if get_origin(hint) is not Annotated:
        assert hint is int or hasattr(hint, "_fields"), f"{hint} is no part of the binary interface"
        return hint  # type: ignore[no-any-return]
    array, shape, *dtype = get_args(hint)
    _, item = get_args(array)  # np.ndarray[shape, np.dtype[item]]
    return ArrayType(np.dtype(*(dtype or get_args(item))), len(shape.split()))


def pack(arguments: tuple[Any, ...]) -> NDArray[np.int64]:
    """The argument table of a named tuple. The caller keeps the arrays alive."""
    return np.array(list(_pack(arguments)), np.int64)


def _pack(values: tuple[Any, ...]) -> Iterator[int]:
    for value, (name, kind) in zip(values, layout(type(values)).items(), strict=True):
        if isinstance(kind, ArrayType):
            assert ArrayType(value.dtype, value.ndim) == kind, f"{name} is an array of another type than {kind}"
            assert value.flags.c_contiguous, f"{name} is not contiguous"
            yield value.ctypes.data
            yield from value.shape
        elif kind is int:
            yield value
        else:
            yield from _pack(value)


def _describe(kind: type | ArrayType) -> str:
    if isinstance(kind, ArrayType):
        return f"{kind.dtype.descr}[{kind.ndim}]"
    if kind is int:
        return "int64"
    return f"({', '.join(f'{name}: {_describe(each)}' for name, each in layout(kind).items())})"


_INTERFACE = f"{_describe(DecodeArguments)} {_describe(ForwardArguments)} {ENTRY_POINTS}"
VERSION = hashlib.sha256(_INTERFACE.encode()).hexdigest()[:16]
"""A hash of the interface: any change to it gives another version."""


def symbol(name: str) -> str:
    """An entry point's name in compiled code: a library for another interface lacks it, and cannot be called."""
    return f"{name}_{VERSION}"
