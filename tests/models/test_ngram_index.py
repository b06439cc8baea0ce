"""The index of a training text: complete or refused."""

import re
from pathlib import Path

import pytest
from tests.models.indexed_text import index_of

from gptbox.errors import DamagedIndexError, NoIndexError
from gptbox.models.copied_spans import find_copied
from gptbox.models.ngram_index import FILE_NAME, HEADER_BYTES, Layout, NgramIndex, has_index

TEXT = "".join(f"{n} green bottles hanging on the wall, café\n" for n in range(3000))


def test_places_have_a_position_and_a_line(tmp_path: Path) -> None:
    index = index_of(TEXT, tmp_path)
    for position in (0, 1, 4095, 4096, 40_000, len(TEXT)):
        before = TEXT[:position]
        assert index.locate(len(before.encode())) == (position, 1 + before.count("\n"))
    assert index.layout.characters == len(TEXT)
    assert index.context(0, len(TEXT.encode()), 40) == ("", "")
    assert index.context(5, 10, 3) == (TEXT[2:5], TEXT[10:13])


def test_a_missing_index_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    assert not has_index(tmp_path)
    with pytest.raises(NoIndexError, match="is missing") as error:
        NgramIndex(tmp_path / FILE_NAME)
    assert not isinstance(error.value, DamagedIndexError)
    size = index_of(TEXT, tmp_path).layout.text_bytes
    assert has_index(tmp_path)
    assert has_index(tmp_path, size)
    assert not has_index(tmp_path, size + 1)


@pytest.mark.parametrize(
    "content",
    [
        lambda whole: b"",
        lambda whole: whole[:100],
        lambda whole: whole[:-1],
        lambda whole: whole + b"\0",
        lambda whole: whole[HEADER_BYTES:],
        lambda whole: b"null".ljust(HEADER_BYTES) + whole[HEADER_BYTES:],
        lambda whole: b"[1]".ljust(HEADER_BYTES) + whole[HEADER_BYTES:],
        lambda whole: whole.replace(b'"format_version": 1', b'"format_version": 2', 1),
        lambda whole: whole.replace(b'"gram_bits": ', b'"gram_bits":-', 1),
        lambda whole: (
            re.sub(rb'"window_bits": \d+', b'"window_bits": 9999999', whole[:HEADER_BYTES]) + whole[HEADER_BYTES:]
        ),
        lambda whole: whole.replace(b'"characters"', b'"letters"', 1),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, content: object) -> None:
    index_of(TEXT, tmp_path)
    file = tmp_path / FILE_NAME
    file.write_bytes(content(file.read_bytes()))  # type: ignore[operator]
    assert not has_index(tmp_path)
    with pytest.raises(DamagedIndexError, match=r"train\.ngrams"):
        NgramIndex(file)


@pytest.mark.parametrize("byte", [0x00, 0x55, 0xFF])
@pytest.mark.parametrize("section", ["text", "marks", "grams", "places"])
def test_damage_within_a_section_gives_no_wrong_result(tmp_path: Path, section: str, byte: int) -> None:
    layout = index_of(TEXT, tmp_path).layout
    starts = {
        "text": HEADER_BYTES, "marks": layout.marks_at, "grams": layout.grams_at, "places": layout.windows_at - 4000,
    }  # fmt: skip
    content = bytearray((tmp_path / FILE_NAME).read_bytes())
    content[starts[section] : starts[section] + 2000] = bytes([byte]) * 2000
    (tmp_path / FILE_NAME).write_bytes(content)
    index = NgramIndex(tmp_path / FILE_NAME)
    try:
        spans = find_copied(index, TEXT[:1000] + TEXT[-1000:])
    except (ValueError, IndexError):
        return
    for span in spans:
        place = bytes(index.text[span.place : span.place + span.num_bytes])
        assert place.decode() == (TEXT[:1000] + TEXT[-1000:])[span.start : span.end]


def test_the_layout_is_read_from_the_header(tmp_path: Path) -> None:
    index = index_of(TEXT, tmp_path)
    assert Layout.read(tmp_path / FILE_NAME) == index.layout
    assert (tmp_path / FILE_NAME).stat().st_size == index.layout.size
