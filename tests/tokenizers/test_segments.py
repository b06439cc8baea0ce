"""Segments of a text, encoded separately, give the ids of the whole text, wherever blocks end."""

import re
from collections.abc import Callable
from itertools import groupby, pairwise

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tests.tokenizers.texts import LONG, SENTENCES, sample, texts

from gptbox.tokenizers import segments as segments_module
from gptbox.tokenizers.bpe import BPETokenizer
from gptbox.tokenizers.gpt2 import GPT2Tokenizer
from gptbox.tokenizers.segments import MAX_SEGMENT, segments

BPE = BPETokenizer.train([sample()])
# With GPT-2's pattern, and the merges at hand.
GPT2_PATTERN = GPT2Tokenizer(BPE.tokens)
tokenizers = pytest.mark.parametrize("tokenizer", [BPE, GPT2_PATTERN], ids=["bpe", "gpt2"])


def whole(tokenizer: BPETokenizer, text: str) -> list[int]:
    """Ids of the text by tiktoken in one call."""
    return tokenizer._encoding.encode_ordinary(text)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda size: monkeypatch.setattr(segments_module, "MAX_SEGMENT", size)


@tokenizers
@given(text=texts)
def test_no_piece_spans_a_cut_and_none_depends_on_the_other_side(tokenizer: BPETokenizer, text: str) -> None:
    cuts = [cut.start() for cut in segments_module._CUT.finditer(text)]
    parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert [i for part in parts for i in whole(tokenizer, part)] == whole(tokenizer, text)


@tokenizers
def test_every_letter_and_digit_of_pythons_is_one_in_the_patterns(tokenizer: BPETokenizer) -> None:
    for character in map(chr, (*range(0xD800), *range(0xE000, 0x110000))):
        if segments_module._CUT.search(f"{character}。"):
            assert whole(tokenizer, f"{character}。") == whole(tokenizer, character) + whole(tokenizer, "。"), character


def test_white_space_is_that_of_the_patterns() -> None:
    r"""Rust's \s: Unicode's White_Space, which has not changed since 2013."""
    ours = {chr(i) for i in range(0x110000) if re.fullmatch(f"[{segments_module._SPACE}]", chr(i))}
    marked = "".join(f"a{chr(i)}" for i in (*range(0xD800), *range(0xE000, 0x110000)))
    ranks = {bytes((byte,)): byte for byte in range(256)}
    spaces = tiktoken.Encoding("spaces", pat_str=r"\s", mergeable_ranks=ranks, special_tokens={})
    assert set(spaces.decode(spaces.encode_ordinary(marked))) == ours


@given(documents=st.lists(st.lists(texts, max_size=4), max_size=4), size=st.integers(1, 30))
def test_segments_do_not_depend_on_where_blocks_end(documents: list[list[str]], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments_module, "MAX_SEGMENT", size)
        blocks = [block for document in documents for block in (*document, None)]
        joined = [block for document in documents for block in ("".join(document), None)]
        found = list(segments(blocks))
        assert found == list(segments(joined))
        assert all(segment is None or 0 < len(segment) <= size for segment in found)
        texts_found = [list(group) for is_text, group in groupby(found, lambda segment: segment is not None) if is_text]
        assert list(map("".join, texts_found)) == [text for text in map("".join, documents) if text]


def test_a_text_is_cut_at_the_last_cut_that_fits(short: Callable[[int], None]) -> None:
    short(10)
    assert list(segments(["one two, three four"])) == ["one two,", " three", " four"]
    assert list(segments(["one two ", "three fou", "r"])) == ["one two", " three", " four"]
    assert list(segments(["0123456789012345678901234 x"])) == ["0123456789", "0123456789", "01234 x"]
    assert list(segments(["人人生而自由，在尊严和权利"])) == ["人人生而自由", "，在尊严和权利"]
    assert list(segments(["a", None, None, "b", None])) == ["a", None, None, "b", None]
    assert list(segments([])) == list(segments(["", ""])) == []


@tokenizers
@pytest.mark.parametrize("name", LONG)
def test_a_long_run_of_one_kind_has_the_ids_of_one_call(tokenizer: BPETokenizer, name: str) -> None:
    text = f"The beginning {LONG[name]} the end"
    assert tokenizer.encode(text).tolist() == whole(tokenizer, text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@tokenizers
@pytest.mark.parametrize("run", [" ", "\n", "a", "人", "!", "\u0301"])
def test_a_run_without_a_cut_is_cut_all_the_same(tokenizer: BPETokenizer, run: str) -> None:
    """A million spaces are too many for tiktoken's regular expressions."""
    text = f"a{run * (3 * MAX_SEGMENT)}b"
    found = list(segments([text]))
    assert max(map(len, found)) == MAX_SEGMENT
    assert tokenizer.decode(tokenizer.encode(text)) == text
    longest = run * (MAX_SEGMENT - 1) + "b"
    assert tokenizer.decode(tokenizer.encode(longest)) == longest
    half = len(text) // 2
    blocks = np.concatenate(list(tokenizer.encode_blocks([text[:half], text[half:]])))
    assert np.array_equal(blocks, tokenizer.encode(text))


@tokenizers
@given(text=texts, ends=st.lists(st.integers(0, 80), max_size=5), size=st.integers(1, 40))
def test_blocks_of_any_length_give_the_ids_of_the_whole_text(
    tokenizer: BPETokenizer, text: str, ends: list[int], size: int
) -> None:
    ends = [0, *sorted(min(end, len(text)) for end in ends), len(text)]
    blocks = [text[start:end] for start, end in pairwise(ends)]
    arrays = list(tokenizer.encode_blocks(blocks))
    assert [int(i) for ids in arrays for i in ids] == whole(tokenizer, text) == tokenizer.encode(text).tolist()


@tokenizers
def test_ordinary_texts_have_cuts_all_over(tokenizer: BPETokenizer) -> None:
    for sentence in SENTENCES.values():
        assert segments_module._CUT.search(sentence)
    text = sample(400)
    found = list(segments([text]))
    assert len(found) > 1
    assert [i for segment in found for i in whole(tokenizer, segment)] == whole(tokenizer, text)
