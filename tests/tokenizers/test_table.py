"""The table of tokenizers: looked up by name, or chosen for the text."""

import pytest

from gptbox.errors import SettingError
from gptbox.tokenizers import (
    AUTO,
    MANY_CHARACTERS,
    MAX_AUTO_BYTES,
    TOKENIZERS,
    check_tokenizer_name,
    choose_tokenizer,
    train_tokenizer,
)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_is_found_by_its_name(name: str) -> None:
    tokenizer = train_tokenizer(name, ("banana",), ("a", "b", "n"), 6)
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


@pytest.mark.parametrize(
    ("characters", "num_bytes", "name", "reason"),
    [
        (65, 1_115_394, "char", "the text has only 65 different characters and is not very long"),
        (
            MANY_CHARACTERS,
            MAX_AUTO_BYTES,
            "char",
            "the text has only 256 different characters and is not very long",
        ),
        (MANY_CHARACTERS + 1, 100, "bpe", "the text has 257 different characters"),
        (4000, 3_000_000, "bpe", "the text has 4,000 different characters"),
        (65, MAX_AUTO_BYTES + 1, "bpe", "the text is long enough for it (1.5 MB)"),
    ],
)
def test_auto_chooses_by_the_text_and_says_why(characters: int, num_bytes: int, name: str, reason: str) -> None:
    assert choose_tokenizer(characters, num_bytes) == (name, reason)


def test_auto_trains_what_it_chooses() -> None:
    assert train_tokenizer(AUTO, ("banana",), ("a", "b", "n"), 6).name == "char"
    alphabet = [chr(0x4E00 + i) for i in range(MANY_CHARACTERS + 1)]
    assert train_tokenizer(AUTO, alphabet, alphabet, 3 * len(alphabet)).name == "bpe"


@pytest.mark.parametrize("name", ["char", "byte"])
def test_the_text_is_not_read_for_an_alphabet_that_is_known(name: str) -> None:
    class Unread:
        def __iter__(self) -> object:
            raise AssertionError("the text is read")

    train_tokenizer(name, Unread(), ("a", "b"), 2)  # type: ignore[arg-type]
