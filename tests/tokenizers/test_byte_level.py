"""Bytes as printable characters, and lone surrogates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbox.tokenizers.byte_level import SYMBOLS, from_symbols, surrogates, to_symbols, without_surrogates


def test_each_byte_has_a_printable_symbol_of_its_own() -> None:
    assert len(set(SYMBOLS)) == 256
    assert all(symbol.isprintable() and symbol != " " for symbol in SYMBOLS)
    assert (SYMBOLS[ord("A")], SYMBOLS[ord(" ")], SYMBOLS[ord("\n")]) == ("A", "Ġ", "Ċ")


@given(st.binary())
def test_symbols_give_back_the_bytes(content: bytes) -> None:
    assert len(to_symbols(content)) == len(content)
    assert from_symbols(to_symbols(content)) == content


@pytest.mark.parametrize("symbols", [" ", "a b", "日", "\n"])
def test_other_characters_are_no_symbols(symbols: str) -> None:
    with pytest.raises(ValueError, match="stands for no byte"):
        from_symbols(symbols)


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert without_surrogates("a\ud800\udc00é🐎") == "a??é🐎"
    assert surrogates("a\ud800b\udfff\ud800") == dict.fromkeys("\ud800\udfff", "?")
