"""The byte tokenizer: an id is a byte of UTF-8, no character is unknown, and a stream splits none."""

import codecs
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbox.errors import ModelFolderError
from gptbox.tokenizers import tokenizer_from_json
from gptbox.tokenizers.byte import ByteTokenizer

TOKENIZER = ByteTokenizer()
plain_texts = st.text(st.characters(codec="utf-8"))
# Any bytes, many of them the beginning or the rest of a character.
ids_of_any_bytes = st.lists(st.integers(0, 255) | st.sampled_from([*"é日🐎\ud7ff".encode(), 0xED, 0xA0]), max_size=20)


def whole_characters(ids: list[int]) -> str:
    """The text without a character that its end leaves incomplete."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(ids))


def test_an_id_is_a_byte() -> None:
    ids = TOKENIZER.encode("Zoë\n")
    assert ids.dtype == np.uint16
    assert ids.tolist() == [90, 111, 0xC3, 0xAB, 10]
    assert TOKENIZER.vocab_size == 256
    assert TOKENIZER.eos_id is None
    assert ByteTokenizer.train(["any text"]).to_json() == TOKENIZER.to_json()


def test_no_text_is_no_tokens() -> None:
    assert TOKENIZER.encode("").shape == (0,)
    assert TOKENIZER.encode("").dtype == np.uint16
    assert TOKENIZER.decode([]) == ""


@given(plain_texts)
def test_decoding_gives_back_any_text(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert ids.tolist() == list(text.encode())
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.unknown(text) == {}


@given(st.lists(plain_texts))
def test_borders_between_blocks_do_not_change_the_ids(blocks: list[str]) -> None:
    arrays = list(TOKENIZER.encode_blocks(blocks))
    assert [int(i) for ids in arrays for i in ids] == TOKENIZER.encode("".join(blocks)).tolist()


@given(ids=ids_of_any_bytes, data=st.data())
def test_a_stream_decodes_to_the_same_text_and_never_takes_text_back(ids: list[int], data: st.DataObject) -> None:
    decoder = TOKENIZER.stream_decoder()
    parts, rest = [], ids
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        parts.append(decoder.push(rest[:size]))
        rest = rest[size:]
    assert "".join(parts) == whole_characters(ids)


@given(plain_texts)
def test_a_stream_shows_only_whole_characters(text: str) -> None:
    decoder, shown = TOKENIZER.stream_decoder(), ""
    for token in TOKENIZER.encode(text).tolist():
        shown += decoder.push((token,))
        assert text.startswith(shown)
    assert shown == text


@given(ids_of_any_bytes, st.integers(0, 20))
def test_the_character_that_a_token_begins_in(ids: list[int], prompt_length: int) -> None:
    """Also after a prompt, whose incomplete character belongs to the text."""
    prompt_decoder, decoder = TOKENIZER.stream_decoder(), TOKENIZER.stream_decoder(ids[:prompt_length])
    shown = prompt_decoder.push(ids[:prompt_length])
    starts = []
    for token in ids[prompt_length:]:
        text, start = decoder.push_token(token)
        starts.append(len(shown) + start)
        shown += text
    assert shown == whole_characters(ids)
    ends = range(prompt_length + 1, len(ids) + 1)
    assert starts == [len(TOKENIZER.decode(ids[:end])) - 1 for end in ends]  # the last character so far


def test_a_stream_that_ends_within_a_character_goes_without_it() -> None:
    assert TOKENIZER.stream_decoder().push([0x61, 0xE2, 0x82]) == "a"
    assert TOKENIZER.decode([0x61, 0xE2, 0x82]) == "a\ufffd"


@pytest.mark.parametrize(
    ("token", "content", "text"),
    [
        (0x61, b"a", "a"),
        (0x0A, b"\n", "\n"),
        (0x7F, b"\x7f", "\x7f"),
        (0x80, b"\x80", r"bytes:\x80"),
        (0xE2, b"\xe2", r"bytes:\xe2"),
        (0xFF, b"\xff", r"bytes:\xff"),
    ],
)
def test_a_byte_that_is_no_character_is_written_as_a_byte(token: int, content: bytes, text: str) -> None:
    assert TOKENIZER.token_bytes(token) == content
    assert TOKENIZER.token_text(token) == text


def test_all_tokens_have_different_texts() -> None:
    assert len({TOKENIZER.token_text(token) for token in range(256)}) == 256
    assert b"".join(TOKENIZER.token_bytes(token) for token in range(256)) == bytes(range(256))


def test_an_unknown_id_decodes_to_the_replacement_character() -> None:
    assert TOKENIZER.decode([97, 256, 98]) == "a\ufffdb"
    assert TOKENIZER.stream_decoder().push([99_999]) == "\ufffd"
    assert TOKENIZER.token_text(256) == "\ufffd"


def test_a_lone_surrogate_is_no_character_and_becomes_a_question_mark() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("a\ud800b")) == "a?b"
    assert TOKENIZER.unknown("a\ud800b\udfff\ud800") == dict.fromkeys("\ud800\udfff", "?")


def test_json_round_trip() -> None:
    written = json.loads(json.dumps(TOKENIZER.to_json(), ensure_ascii=False).encode())
    again = tokenizer_from_json(written)
    assert isinstance(again, ByteTokenizer)
    assert again.to_json() == TOKENIZER.to_json()
    vocab = written["model"]["vocab"]
    assert [symbol for symbol, _ in sorted(vocab.items(), key=lambda item: item[1])][ord("A")] == "A"
    assert vocab["Ġ"] == ord(" ")
    assert sorted(vocab.values()) == list(range(256))


@pytest.mark.parametrize(
    "other",
    [
        {"model": {"merges": [["a", "b"]]}},
        {"model": {"vocab": {"a": 0}}},
        {"model": {"type": "Unigram"}},
        {"pre_tokenizer": {"add_prefix_space": True}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"normalizer": {"type": "Lowercase"}},
        {"added_tokens": [{"id": 256, "content": "<end>", "special": True}]},
    ],
)
def test_another_byte_level_tokenizer_is_not_mistaken_for_it(other: dict[str, Any]) -> None:
    content = TOKENIZER.to_json()
    for key, changes in other.items():
        content[key] = changes if isinstance(changes, list) else (content[key] or {}) | changes
    with pytest.raises(ModelFolderError, match=r"none of gptbox's tokenizers: char, byte"):
        tokenizer_from_json(content)
