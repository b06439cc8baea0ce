"""The argument table that Python packs, and its layout."""

import ctypes
from typing import Annotated, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from gptbox.engine.abi import VERSION, ArrayType, DecodeArguments, _describe, layout, pack, symbol

RECORD = np.dtype([("number", np.float64), ("token", np.int64)])


class Inner(NamedTuple):
    numbers: Annotated[NDArray[np.float32], "rows columns"]
    records: Annotated[NDArray[np.void], "slots", RECORD]


class Outer(NamedTuple):
    first: int
    inner: Inner
    last: int


def outer(numbers: np.ndarray, records: np.ndarray | None = None) -> Outer:
    return Outer(7, Inner(numbers, np.zeros(3, RECORD) if records is None else records), 8)


def test_a_table_has_numbers_addresses_and_shapes_in_order() -> None:
    numbers, records = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(4, RECORD)
    table = pack(outer(numbers, records))
    assert table.dtype == np.int64
    assert table.tolist() == [7, numbers.ctypes.data, 2, 3, records.ctypes.data, 4, 8]
    assert np.frombuffer(ctypes.string_at(int(table[1]), 24), np.float32).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (np.zeros((2, 3)), "numbers is an array of another type"),
        (np.zeros(6, np.float32), "numbers is an array of another type"),
        (np.zeros((2, 3), np.float32).T, "numbers is not contiguous"),
    ],
)
def test_an_array_of_another_type_is_refused(numbers: np.ndarray, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        pack(outer(numbers))


def test_a_layout_follows_the_annotations() -> None:
    assert layout(Outer) == {"first": int, "inner": Inner, "last": int}
    assert layout(Inner) == {"numbers": ArrayType(np.dtype(np.float32), 2), "records": ArrayType(RECORD, 1)}


def test_a_field_of_another_type_is_no_part_of_the_interface() -> None:
    class Text(NamedTuple):
        text: str

    with pytest.raises(AssertionError, match="no part of the binary interface"):
        layout(Text)


def test_symbols_differ_by_interface() -> None:
    assert symbol("gptbox_score") == f"gptbox_score_{VERSION}"
    assert "params: [('min_tokens', '<i8'), ('temperature', '<f8')" in _describe(DecodeArguments)
    assert _describe(Outer) == (
        "(first: int64, inner: (numbers: [('', '<f4')][2], records: [('number', '<f8'), ('token', '<i8')][1]), "
        "last: int64)"
    )
