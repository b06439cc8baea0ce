"""Ids written block by block equal those of the whole text."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbox.datasets import token_files
from gptbox.datasets.base import Corpus, CorpusSummary
from gptbox.datasets.token_files import write_ids
from gptbox.errors import DatasetError
from gptbox.tokenizers import Tokenizer, char
from gptbox.tokenizers.byte import ByteTokenizer
from gptbox.tokenizers.char import CharTokenizer

pieces = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=20)


@given(blocks=pieces.filter(any), share=st.floats(0, 1))
def test_blocks_of_any_length_give_the_ids_of_the_whole_text(blocks: list[str], share: float) -> None:
    text = "".join(blocks)
    cut = int(share * len(text))
    tokenizer = CharTokenizer.train([text])
    corpus = Corpus(lambda: blocks, CorpusSummary.of(blocks), "a test")
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_files, "_CHUNK", 4)
        patch.setattr(char, "_CHUNK", 4)
        train, val = write_ids(corpus, tokenizer, cut, folder := Path(name))
        assert (folder / "train.bin").read_bytes() == tokenizer.encode(text[:cut]).astype("<u2").tobytes()
        assert (folder / "val.bin").read_bytes() == tokenizer.encode(text[cut:]).astype("<u2").tobytes()
    for counts, part in ((train, text[:cut]), (val, text[cut:])):
        assert counts.tolist() == [part.count(character) for character in tokenizer.characters]


@given(blocks=pieces.filter(any), share=st.floats(0, 1))
def test_the_cut_is_by_characters_whatever_a_token_is(blocks: list[str], share: float) -> None:
    text = "".join(blocks)
    cut = int(share * len(text))
    corpus = Corpus(lambda: blocks, CorpusSummary.of(blocks), "a test")
    with TemporaryDirectory() as name:
        train, val = write_ids(corpus, ByteTokenizer(), cut, folder := Path(name))
        written = [np.fromfile(folder / f"{split}.bin", "<u2").tolist() for split in ("train", "val")]
    assert written == [list(text[:cut].encode()), list(text[cut:].encode())]
    assert [counts.tolist() for counts in (train, val)] == [
        [part.encode().count(byte) for byte in range(256)] for part in (text[:cut], text[cut:])
    ]


def test_the_largest_possible_vocabulary(tmp_path: Path) -> None:
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x10800)]))
    assert len(text) == 65_536
    tokenizer = CharTokenizer.train([text])
    train, val = write_ids(Corpus.from_text(text, "a test"), tokenizer, 65_000, tmp_path)
    ids = np.fromfile(tmp_path / "train.bin", "<u2")
    assert np.array_equal(ids, np.arange(65_000))
    assert train.sum() + val.sum() == 65_536


@pytest.mark.parametrize("later", ["abx", "acb", "ab", "a", "", "abcabc"])
@pytest.mark.parametrize("tokenizer", [CharTokenizer.train(["abc"]), ByteTokenizer()], ids=["char", "byte"])
def test_a_changed_text_is_rejected(tmp_path: Path, tokenizer: Tokenizer, later: str) -> None:
    corpus = Corpus(lambda: (later,), CorpusSummary.of(("abc",)), "a test")
    with pytest.raises(DatasetError, match="a test changed while it was read"):
        write_ids(corpus, tokenizer, 2, tmp_path)
