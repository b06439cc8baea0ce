"""Ids written block by block are those of the whole text."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbox.datasets import token_files
from gptbox.datasets.base import Summary, Text
from gptbox.datasets.token_files import write_ids
from gptbox.errors import DatasetError
from gptbox.tokenizers.char import CharTokenizer

pieces = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=20)


@given(blocks=pieces.filter(any), share=st.floats(0, 1))
def test_any_blocks_give_the_ids_of_the_whole(blocks: list[str], share: float) -> None:
    text = "".join(blocks)
    cut = int(share * len(text))
    tokenizer = CharTokenizer.train([text])
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_files, "_PIECE", 4)
        train, val = write_ids(Text(lambda: blocks, Summary.of(blocks), "a test"), tokenizer, cut, folder := Path(name))
        assert (folder / "train.bin").read_bytes() == tokenizer.encode(text[:cut]).astype("<u2").tobytes()
        assert (folder / "val.bin").read_bytes() == tokenizer.encode(text[cut:]).astype("<u2").tobytes()
    for counts, part in ((train, text[:cut]), (val, text[cut:])):
        assert counts.tolist() == [part.count(character) for character in tokenizer.characters]


def test_the_largest_vocabulary_there_can_be(tmp_path: Path) -> None:
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x10800)]))
    assert len(text) == 65_536
    tokenizer = CharTokenizer.train([text])
    train, val = write_ids(Text.of(text, "a test"), tokenizer, 65_000, tmp_path)
    ids = np.fromfile(tmp_path / "train.bin", "<u2")
    assert np.array_equal(ids, np.arange(65_000))
    assert train.sum() + val.sum() == 65_536


@pytest.mark.parametrize("later", ["abx", "ab", "abcabc"])
def test_a_text_that_became_another_is_refused(tmp_path: Path, later: str) -> None:
    text = Text(lambda: (later,), Summary.of(("abc",)), "a test")
    with pytest.raises(DatasetError, match="a test changed while it was read"):
        write_ids(text, CharTokenizer.train(["abc"]), 2, tmp_path)
