"""The table of tokenizers: looked up by name, or chosen for the text."""

import pytest

from gptbox.errors import DatasetError, SettingError
from gptbox.tokenizers import AUTO, TOKENIZERS, check_tokenizer_name, train_tokenizer
from gptbox.tokenizers.char import MAX_CHARACTERS


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_is_found_by_its_name(name: str) -> None:
    tokenizer = train_tokenizer(name, ("banana",), ("a", "b", "n"))
    assert type(tokenizer) is TOKENIZERS[name]
    assert tokenizer.name == name
    assert tokenizer.decode(tokenizer.encode("banana")) == "banana"


@pytest.mark.parametrize("name", [AUTO, *TOKENIZERS])
def test_known_names_pass(name: str) -> None:
    check_tokenizer_name(name)


def test_an_unknown_name_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(SettingError) as error:
        check_tokenizer_name("words")
    assert str(error.value) == f"TOKENIZER 'words' is not one of {', '.join((AUTO, *TOKENIZERS))}."
    with pytest.raises(SettingError, match="--tokenizer 'CHAR' is not one of"):
        check_tokenizer_name("CHAR", "--tokenizer")


def test_auto_takes_characters_unless_there_are_too_many() -> None:
    alphabet = [chr(0x10000 + i) for i in range(MAX_CHARACTERS + 1)]
    assert train_tokenizer(AUTO, (), alphabet[:-1]).name == "char"
    assert train_tokenizer(AUTO, (), alphabet).name == "byte"
    with pytest.raises(DatasetError, match="The tokenizer byte takes any text"):
        train_tokenizer("char", (), alphabet)


@pytest.mark.parametrize("name", ["char", "byte"])
def test_the_text_is_not_read_for_an_alphabet_that_is_known(name: str) -> None:
    class Unread:
        def __iter__(self) -> object:
            raise AssertionError("the text is read")

    train_tokenizer(name, Unread(), ("a", "b"))  # type: ignore[arg-type]
