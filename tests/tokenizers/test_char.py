"""The character tokenizer: nanoGPT's numbering, replacements for typographic characters, no failure on any text."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbox.errors import DatasetError, ModelFolderError
from gptbox.tokenizers import char, tokenizer_from_json
from gptbox.tokenizers.char import CharTokenizer

texts = st.text(st.characters(exclude_categories=()))  # including lone surrogates, which JSON requests may contain
plain_texts = st.text(st.characters(codec="utf-8"), min_size=1)


def test_characters_are_numbered_in_code_point_order() -> None:
    tokenizer = CharTokenizer.train(["banana\n", "Å!"])
    assert tokenizer.characters == ["\n", "!", "a", "b", "n", "Å"]
    ids = tokenizer.encode("ban!")
    assert ids.dtype == np.uint16
    assert ids.tolist() == [3, 2, 4, 1]
    assert tokenizer.decode([3, 2, 4, 1]) == "ban!"
    assert tokenizer.vocab_size == 6


def test_no_text_is_no_tokens() -> None:
    tokenizer = CharTokenizer(["a"])
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.encode("").dtype == np.uint16
    assert tokenizer.decode([]) == ""


def test_typographic_characters_are_replaced_by_plain_ones() -> None:
    tokenizer = CharTokenizer.train(["'\"-. \nabc"])
    typed = "\u2018a\u2019 \u201cb\u201d\u2013\u2014\u2026\u00a0\tc\r"
    assert tokenizer.decode(tokenizer.encode(typed)) == "'a' \"b\"--.  c\n"
    assert tokenizer.unknown(typed)["\u2019"] == "'"


def test_a_known_character_is_never_replaced() -> None:
    tokenizer = CharTokenizer.train(["\u2019\t' "])
    assert tokenizer.decode(tokenizer.encode("\u2019\t")) == "\u2019\t"
    assert tokenizer.unknown("\u2019\t") == {}


@pytest.mark.parametrize(("vocabulary", "replacement"), [("ab \n", " "), ("ab\n", "\n"), ("ba", "a")])
def test_other_characters_become_white_space_if_the_vocabulary_has_any(vocabulary: str, replacement: str) -> None:
    tokenizer = CharTokenizer.train([vocabulary])
    assert tokenizer.decode(tokenizer.encode("a日b🐎\ud800")) == f"a{replacement}b{replacement}{replacement}"
    assert tokenizer.unknown("a日b🐎日") == {"日": replacement, "🐎": replacement}


def test_the_vocabulary_may_be_in_any_order() -> None:
    tokenizer = CharTokenizer(["z", "a", "m"])
    assert tokenizer.encode("azm").tolist() == [1, 0, 2]


def test_a_text_longer_than_one_chunk_is_encoded() -> None:
    tokenizer = CharTokenizer.train(["ab"])
    ids = tokenizer.encode("ab" * 600_000 + "a")
    assert len(ids) == 1_200_001
    assert ids[::2].max() == 0
    assert ids[1::2].min() == 1


def test_encoding_a_long_text_does_not_take_many_times_its_size() -> None:
    tokenizer, text = CharTokenizer.train(["ab"]), "ab" * 4_000_000
    tracemalloc.start()
    try:
        tokenizer.encode(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(text)  # the ids are 2 bytes per character


def test_65536_different_characters_fit_and_one_more_does_not() -> None:
    characters = [chr(i) for i in range(0x10000, 0x20001)]
    tokenizer = CharTokenizer(characters[:-1])
    assert tokenizer.encode(characters[-2]).tolist() == [65_535]
    with pytest.raises(DatasetError, match="65,537 different characters"):
        CharTokenizer(characters)


def test_an_empty_text_is_rejected() -> None:
    with pytest.raises(DatasetError, match="empty"):
        CharTokenizer.train([""])


@pytest.mark.parametrize("characters", [["a", "a"], ["ab"], ["a", ""]])
def test_a_vocabulary_must_be_different_single_characters(characters: list[str]) -> None:
    with pytest.raises(ModelFolderError, match="single characters"):
        CharTokenizer(characters)


@pytest.mark.parametrize("vocab", [{"a": 1}, {"a": 0, "b": 2}, {"a": 0, "b": 0}, {}])
def test_a_vocabulary_with_gaps_is_rejected(vocab: dict[str, int]) -> None:
    content = CharTokenizer(["a"]).to_json()
    content["model"]["vocab"] = vocab
    with pytest.raises((ModelFolderError, DatasetError)):
        tokenizer_from_json(content)


def test_an_unsupported_type_of_tokenizer_is_named() -> None:
    with pytest.raises(ModelFolderError, match="BPE"):
        tokenizer_from_json({"model": {"type": "BPE", "vocab": {"a": 0}}})


@given(plain_texts)
def test_decoding_gives_back_any_text_of_the_vocabulary(text: str) -> None:
    tokenizer = CharTokenizer.train([text])
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids.max() < tokenizer.vocab_size == len(set(text))
    assert tokenizer.unknown(text) == {}


@given(vocabulary=plain_texts, text=texts)
def test_every_character_is_one_token_and_unknown_reports_the_replaced_ones(vocabulary: str, text: str) -> None:
    tokenizer = CharTokenizer.train([vocabulary])
    unknown = tokenizer.unknown(text)
    assert tokenizer.decode(tokenizer.encode(text)) == "".join(unknown.get(c, c) for c in text)
    assert set(unknown) == set(text) - set(vocabulary)
    assert set(unknown.values()) <= set(vocabulary)
    assert list(unknown) == sorted(unknown, key=text.index)


@given(vocabulary=plain_texts, text=texts)
def test_json_round_trip(vocabulary: str, text: str) -> None:
    tokenizer = CharTokenizer.train([vocabulary])
    written = json.loads(json.dumps(tokenizer.to_json(), ensure_ascii=False).encode())
    again = tokenizer_from_json(written)
    assert np.array_equal(again.encode(text), tokenizer.encode(text))
    assert again.to_json() == tokenizer.to_json()


@given(vocabulary=plain_texts, blocks=st.lists(texts))
def test_borders_between_blocks_do_not_change_the_ids(vocabulary: str, blocks: list[str]) -> None:
    tokenizer = CharTokenizer.train([vocabulary])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(char, "_CHUNK", 4)
        ids = [int(i) for array in tokenizer.encode_blocks(blocks) for i in array]
    assert ids == tokenizer.encode("".join(blocks)).tolist()


def test_the_bytes_of_a_token_are_its_character_in_utf8() -> None:
    tokenizer = CharTokenizer(["a", "日"])
    assert [tokenizer.token_bytes(token) for token in range(3)] == [b"a", "日".encode(), "�".encode()]
    assert [tokenizer.token_text(token) for token in range(3)] == ["a", "日", "�"]
    assert tokenizer.eos_id is None


@given(plain_texts)
def test_a_stream_decodes_to_the_same_text(text: str) -> None:
    tokenizer = CharTokenizer.train([text])
    decoder = tokenizer.stream_decoder()
    assert "".join([decoder.push([int(i)]) for i in tokenizer.encode(text)]) == text


def test_an_unknown_id_decodes_to_the_replacement_character() -> None:
    tokenizer = CharTokenizer(["a", "b"])
    assert tokenizer.decode([0, 2, 1]) == "a\ufffdb"
    assert tokenizer.stream_decoder().push([99]) == "\ufffd"
