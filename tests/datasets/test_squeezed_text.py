"""A text without its white space: the same symbols however it is cut into blocks, and where they stand."""

from bisect import bisect_right
from io import BytesIO
from itertools import accumulate
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbox.datasets import squeezed_text
from gptbox.datasets.base import Corpus, CorpusSummary, Document
from gptbox.datasets.squeezed_text import Place, SqueezedText
from gptbox.errors import DatasetError


def corpus_of(*texts: list[str]) -> Corpus:
    """A corpus of documents, each given by its blocks."""
    documents = [Document(f"{i}.txt", blocks) for i, blocks in enumerate(texts)]
    return Corpus(lambda: documents, CorpusSummary.of(documents), "a test")


def read(corpus: Corpus, num_train: int = 0, file: BinaryIO | None = None) -> SqueezedText:
    """`file` must be one on the disk if the symbols are to be read."""
    text = SqueezedText(corpus, num_train, file or BytesIO())
    assert text.corpus.text == corpus.text
    return text


blocks = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab \n\t"), max_size=6), max_size=6
)


@given(documents=st.lists(blocks, max_size=4), share=st.floats(0, 1))
def test_the_symbols_are_the_text_without_white_space(documents: list[list[str]], share: float) -> None:
    whole = "".join(map("".join, documents))
    cut = int(share * len(whole))
    with pytest.MonkeyPatch.context() as patch, TemporaryFile() as file:
        patch.setattr(squeezed_text, "_PIECE", 3)
        text = read(corpus_of(*documents), cut, file)
        symbols = text.symbols()
        visible = [(i, character) for i, character in enumerate(whole) if not character.isspace()]
        names = {}
        for (_, character), symbol in zip(visible, symbols.read(0, len(whole)), strict=True):
            assert names.setdefault(character, symbol) == symbol
        assert len(set(names.values())) == len(names)
        assert symbols.num_symbols == len(visible)
        assert symbols.num_train == sum(i < cut for i, _ in visible)
        located = text.locate(*range(len(visible))) if visible else []
        for (position, character), (place, words) in zip(visible, located, strict=True):
            starts = list(accumulate((len("".join(document)) for document in documents), initial=0))
            i = bisect_right(starts, position) - 1
            assert place == Place(f"{i}.txt", 1 + whole.count("\n", starts[i], position))
            assert words[0] == (character if character.isprintable() else "\ufffd")


def test_the_first_words_are_on_one_line_and_end_with_a_word() -> None:
    text = read(corpus_of(["First Citizen:\nBefore we\tproceed \x07any further, ", "hear me speak. " * 20]))
    assert text.locate(0)[0] == (Place("0.txt", 1), "First Citizen: Before we proceed \ufffdany further, hear me …")
    assert read(corpus_of(["字" * 100])).locate(30)[0][1] == "字" * 60 + " …"


@pytest.mark.parametrize(("characters", "dtype"), [(255, np.uint8), (256, np.uint16), (65_536, np.uint32)])
def test_symbols_are_as_wide_as_needed(characters: int, dtype: type) -> None:
    alphabet = [chr(point) for point in range(0x3400, 0x3400 + 90_000) if not 0xD800 <= point < 0xE000][:characters]
    with TemporaryFile() as file:
        symbols = read(corpus_of(["".join(alphabet)]), file=file).symbols()
        assert symbols.dtype == dtype
        assert len(set(symbols.read(0, characters))) == characters


def test_odd_characters_are_counted_and_located() -> None:
    text = read(corpus_of(["a\n\x07b\n", "\ufffd\x07"], ["\u200b\ue000\n\x07"]))
    assert {character: (odd.count, *odd.first) for character, odd in text.odd.items()} == {
        "\x07": (3, "0.txt", 2),
        "\ufffd": (1, "0.txt", 3),
        "\u200b": (1, "1.txt", 1),
        "\ue000": (1, "1.txt", 1),
    }
    assert list(text.odd) == ["\x07", "\ufffd", "\u200b", "\ue000"]


def test_a_text_that_became_shorter_is_an_error() -> None:
    blocks = ["one", "two"]
    text = read(corpus_of(blocks))
    blocks.pop()
    with pytest.raises(DatasetError, match="a test changed while it was read"):
        text.locate(4)
