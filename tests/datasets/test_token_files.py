"""Ids written block by block equal those of the whole text."""

from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbox.datasets import token_files
from gptbox.datasets.base import Corpus, CorpusSummary, Document
from gptbox.datasets.token_files import write_ids
from gptbox.errors import DatasetError
from gptbox.tokenizers import Tokenizer, char
from gptbox.tokenizers.byte import ByteTokenizer
from gptbox.tokenizers.char import CharTokenizer

pieces = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=8)
texts = st.lists(pieces, max_size=5).filter(lambda documents: any(map(any, documents)))


class ByteTokenizerWithEos(ByteTokenizer):
    vocab_size = 257
    eos_id = 256


def corpus_of(texts: list[list[str]]) -> Corpus:
    """A corpus of documents, each given by its blocks."""
    documents = [Document(f"document {i}", blocks) for i, blocks in enumerate(texts)]
    return Corpus(lambda: documents, CorpusSummary.of(documents), "a test")


@given(documents=texts, share=st.floats(0, 1))
def test_blocks_of_any_length_give_the_ids_of_the_whole_text(documents: list[list[str]], share: float) -> None:
    text = "".join(map("".join, documents))
    cut = int(share * len(text))
    tokenizer = CharTokenizer.train([text])
    corpus = corpus_of(documents)
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_files, "_CHUNK", 4)
        patch.setattr(char, "_CHUNK", 4)
        train, val = write_ids(corpus, tokenizer, cut, folder := Path(name))
        assert (folder / "train.bin").read_bytes() == tokenizer.encode(text[:cut]).astype("<u2").tobytes()
        assert (folder / "val.bin").read_bytes() == tokenizer.encode(text[cut:]).astype("<u2").tobytes()
    for counts, part in ((train, text[:cut]), (val, text[cut:])):
        assert counts.tolist() == [part.count(character) for character in tokenizer.characters]


@given(documents=texts, share=st.floats(0, 1))
def test_the_cut_is_by_characters_whatever_a_token_is(documents: list[list[str]], share: float) -> None:
    text = "".join(map("".join, documents))
    cut = int(share * len(text))
    corpus = corpus_of(documents)
    with TemporaryDirectory() as name:
        train, val = write_ids(corpus, ByteTokenizer(), cut, folder := Path(name))
        written = [np.fromfile(folder / f"{split}.bin", "<u2").tolist() for split in ("train", "val")]
    assert written == [list(text[:cut].encode()), list(text[cut:].encode())]
    assert [counts.tolist() for counts in (train, val)] == [
        [part.encode().count(byte) for byte in range(256)] for part in (text[:cut], text[cut:])
    ]


@given(documents=texts, share=st.floats(0, 1))
def test_an_end_of_text_token_follows_each_document_unless_there_is_only_one(
    documents: list[list[str]], share: float
) -> None:
    text = "".join(map("".join, documents))
    cut = int(share * len(text))
    with TemporaryDirectory() as name:
        train, val = write_ids(corpus_of(documents), ByteTokenizerWithEos(), cut, folder := Path(name))
        parts = [np.fromfile(folder / f"{split}.bin", "<u2").tolist() for split in ("train", "val")]
    expected = [token for blocks in documents for token in (*"".join(blocks).encode(), 256)]
    assert parts[0] + parts[1] == (expected if len(documents) > 1 else expected[:-1])
    assert bytes(token for token in parts[0] if token < 256) == text[:cut].encode()
    assert [train[256], val[256]] == [part.count(256) for part in parts]
    ends = list(accumulate(sum(map(len, blocks)) for blocks in documents))
    if len(documents) > 1 and all(map(any, documents)):
        assert train[256] == sum(end <= cut for end in ends)


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
    corpus = Corpus(lambda: (Document("a", (later,)),), CorpusSummary.of((Document("a", ("abc",)),)), "a test")
    with pytest.raises(DatasetError, match="a test changed while it was read"):
        write_ids(corpus, tokenizer, 2, tmp_path)
