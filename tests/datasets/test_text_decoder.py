"""The beginning of a text decides about its encoding; later faults are errors."""

import io
from pathlib import Path

import pytest

from gptbox.datasets.encoding import SAMPLE_BYTES
from gptbox.datasets.text_decoder import TextDecoder
from gptbox.errors import DatasetError

SENTENCE = "Schöne Grüße aus der Küche: Äpfel, Öl und süße Brötchen für fünf Gäste.\n"


def decode(content: bytes, block: int = 1 << 18) -> tuple[str, list[str]]:
    decoder = TextDecoder("data/a.txt", "a.txt", block)
    return "".join(decoder.decode(io.BytesIO(content))), decoder.notes


@pytest.mark.parametrize("block", [1, 7, 1000, 1 << 18])
@pytest.mark.parametrize("codec", ["cp1252", "utf-8", "utf-16", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("before", [0, 3000])
def test_a_text_in_any_encoding_and_blocks(codec: str, block: int, before: int) -> None:
    text = "x" * before + "\n" + SENTENCE * 20
    assert decode(text.encode(codec), block)[0] == text


def test_a_few_accents_are_enough_in_a_long_text() -> None:
    text = ("plain English text\n" * 1000 + "a café, naïve\n") * 40
    assert decode(text.encode("cp1252"))[0] == text


def test_a_late_first_accent_is_recognised() -> None:
    text = "plain text\n" * 100_000 + SENTENCE * 2
    assert decode(text.encode("cp1252"))[0] == text


def test_a_later_invalid_byte_is_named_with_its_offset() -> None:
    content = (SENTENCE * 10_000).encode("cp1252")
    with pytest.raises(DatasetError) as error:
        decode(content + b"\x81 more")
    assert str(error.value) == (
        "data/a.txt is not WINDOWS-1252, which its beginning looks like: invalid byte 0x81 at offset "
        f"{len(content)} (counted from 0). Convert it: iconv -f WINDOWS-1252 -t UTF-8 a.txt > new.txt"
    )


@pytest.mark.parametrize("extra", [b"\x00", b"\x00\xd8a\x00"])
def test_damaged_utf16_is_named_with_its_offset(extra: bytes) -> None:
    content = ("x" * 300_000).encode("utf-16")
    with pytest.raises(DatasetError, match=f"is not UTF-16, .* at offset {len(content)} "):
        decode(content + extra)


def test_latin1_after_a_sample_of_utf8_is_an_error_and_not_guessed() -> None:
    content = SENTENCE.encode() * (SAMPLE_BYTES // 50)
    with pytest.raises(DatasetError, match=f"is not UTF-8: invalid byte 0xf6 at offset {len(content) + 3} "):
        decode(content + SENTENCE.encode("cp1252") * 100)


def test_a_possible_encoding_is_named_in_the_error() -> None:
    content = "Ein schöner Gruß an die Gäste.\nUnd noch viel süßer.\nÄpfel.\n".encode("cp1252")
    with pytest.raises(DatasetError) as error:
        decode(content)
    assert "Perhaps it is WINDOWS-1252 (75 % confidence). Convert it: iconv -f WINDOWS-1252" in str(error.value)


@pytest.mark.parametrize("codec", ["utf-16", "utf-32"])
def test_binary_utf16_is_refused(codec: str) -> None:
    with pytest.raises(DatasetError, match="looks like a binary file: 10 of its 1,010 characters are NUL"):
        decode(("x" * 1000 + "\0" * 10).encode(codec))


def test_binary_content_of_another_encoding_is_refused() -> None:
    with pytest.raises(DatasetError, match="looks like a binary file"):
        decode((SENTENCE * 2).encode("cp1252") + b"\0" * 10)


def test_memory_is_bounded(tmp_path: Path) -> None:
    content = (SENTENCE * 30_000).encode("cp1252")
    decoder = TextDecoder("a.txt", "a.txt", 1000)
    blocks = list(decoder.decode(io.BytesIO(content)))
    assert max(map(len, blocks)) == 1000
    assert sum(map(len, blocks)) == len(content)
