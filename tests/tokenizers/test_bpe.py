"""BPE trained on a text: any text comes back, documents end with EOS, a stream splits no character."""

import codecs
import json
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tokenizers.texts import SENTENCES, sample, texts

from gptbox.errors import DatasetError, ModelFolderError
from gptbox.tokenizers import bpe, tokenizer_from_json
from gptbox.tokenizers.bpe import EOS, BPETokenizer, vocab_size_for
from gptbox.tokenizers.merges import derive_merges

TOKENIZER = BPETokenizer.train([sample()])
BYTES = BPETokenizer([bytes((byte,)) for byte in range(256)])
ids_of_any_tokens = st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=20)


def test_frequent_words_are_tokens_with_the_space_before_them() -> None:
    tokenizer = BPETokenizer.train([SENTENCES["English"] * 20])
    ids = tokenizer.encode(" dignity and")
    assert ids.dtype == np.uint16
    assert [tokenizer.token_bytes(int(i)) for i in ids] == [b" dignity", b" and"]
    assert tokenizer.vocab_size == len(tokenizer.tokens) + 1 <= 512


def test_no_text_is_no_tokens() -> None:
    assert TOKENIZER.encode("").shape == (0,)
    assert TOKENIZER.encode("").dtype == np.uint16
    assert TOKENIZER.decode([]) == ""


@given(texts)
def test_decoding_gives_back_any_text(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert BYTES.encode(text).tolist() == list(text.encode())
    assert TOKENIZER.unknown(text) == {}


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("It's Zoë", ["It", "'s", " Zoë"]),
        ("l’homme d'or", ["l", "’homme", " d", "'or"]),
        ("सभी मनुष्यों", ["सभी", " मनुष्यों"]),
        ("e\u0301te\u0301 \u0301x", ["e\u0301te\u0301", " \u0301x"]),
        ("می‌خواهم به", ["می‌خواهم", " به"]),
        ("เกียรติศักดิ์", ["เกียรติศักดิ์"]),
        ("👩\u200d👧 ❤\ufe0fx", ["👩\u200d👧", " ❤\ufe0f", "x"]),
        ("in 12345 1\ufe0f\u20e3", ["in", " 12", "34", "5", " 1\ufe0f\u20e3"]),
        ("a  b\n\n c\n", ["a", " ", " b", "\n\n", " c", "\n"]),
        ("f(x): --", ["f", "(", "x", "):", " --"]),
        ("人人，自由。", ["人人", "，", "自由", "。"]),
    ],
)
def test_words_numbers_symbols_and_white_space_are_pieces(text: str, pieces: list[str]) -> None:
    """Each piece that the pattern finds is one token here, and no token spans two."""
    tokens = [*BYTES.tokens, *dict.fromkeys(piece.encode() for piece in pieces if len(piece.encode()) > 1)]
    assert [
        token.decode() for token in map(BPETokenizer(tokens).token_bytes, BPETokenizer(tokens).encode(text))
    ] == pieces


def test_the_vocabulary_grows_with_the_text_within_bounds() -> None:
    sizes = [vocab_size_for(size) for size in (0, 1, 100_000, 1_115_394, 5_400_000, 30_000_000, 10**9)]
    assert sizes == [512, 512, 512, 512, 1024, 2048, 4096]
    assert [vocab_size_for(size, 3000) for size in (1_115_394, 5_400_000, 10**9)] == [1024, 2048, 4096]


def test_a_token_occurs_often_enough_to_be_learned() -> None:
    assert BPETokenizer.train(["once upon a time"]).vocab_size == 257
    assert BPETokenizer.train([]).vocab_size == 257
    tokenizer = BPETokenizer.train(["ab " * 10 + "cd " * 9])
    assert tokenizer.tokens[256:] == [b"ab", b" ab"][: len(tokenizer.tokens) - 256]
    assert b"cd" not in tokenizer.tokens


def test_no_token_is_a_long_run() -> None:
    tokenizer = BPETokenizer.train(["-" * 100_000 + " " * 100_000 + "word " * 1000])
    assert max(map(len, tokenizer.tokens)) <= 64


@pytest.mark.parametrize("text", [sample(), "".join(map(chr, range(0x4E00, 0x5200))) * 20, "aaaa bbbb aaab " * 100])
def test_every_token_can_be_reached(text: str) -> None:
    tokens = BPETokenizer.train([text]).tokens
    assert sorted(tokens[:256]) == BYTES.tokens
    assert len(set(tokens)) == len(tokens)
    assert None not in derive_merges(tokens)


def test_training_does_not_depend_on_blocks_and_reads_them_twice_at_most() -> None:
    text = sample()
    blocks = [text[i : i + 1000] for i in range(0, len(text), 1000)]
    assert BPETokenizer.train(blocks).tokens == TOKENIZER.tokens
    assert BPETokenizer.train(iter(blocks), num_bytes=len(text.encode())).tokens == TOKENIZER.tokens


def test_a_long_text_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "_SAMPLE_BYTES", 300_000)
    text = "first " * 50_000 + "second " * 50_000 + "third " * 50_000
    assert {b" first", b" second", b" third"} <= set(BPETokenizer.train([text]).tokens)
    assert sum(map(len, bpe._sample([text], len(text)))) < 300_000


def test_a_text_without_spaces_is_sampled_more_thinly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words are long and most of them different, which takes memory."""
    monkeypatch.setattr(bpe, "_SAMPLE_WORD_BYTES", 100_000)
    english = "first second third\n" * 50_000
    assert sum(map(len, bpe._sample([english], len(english)))) == len(english)
    chinese = "".join(chr(0x4E00 + i * i % 4000) for i in range(300_000))
    sample = bpe._sample([chinese], 3 * len(chinese))
    assert 20_000 < sum(map(len, sample)) < 50_000
    assert (sample[0], sample[-1] in chinese[200_000:]) == (chinese[: len(sample[0])], True)


def test_training_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(
        DatasetError, match=r"bpe is trained by the Python package tokenizers, .* pip install tokenizers"
    ):
        BPETokenizer.train(["text"])


def test_a_special_name_in_a_text_is_text() -> None:
    text = f"before {EOS} after"
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.eos_id not in ids
    assert TOKENIZER.decode(ids) == text


def test_end_of_text_stands_for_no_text() -> None:
    assert TOKENIZER.eos_id == TOKENIZER.vocab_size - 1
    assert TOKENIZER.token_bytes(TOKENIZER.eos_id) == b""
    assert TOKENIZER.token_text(TOKENIZER.eos_id) == EOS
    assert TOKENIZER.decode([*TOKENIZER.encode("a"), TOKENIZER.eos_id, *TOKENIZER.encode("b")]) == "ab"


def test_an_unknown_id_decodes_to_the_replacement_character() -> None:
    assert TOKENIZER.decode([TOKENIZER.vocab_size]) == "\ufffd"
    assert TOKENIZER.token_text(99_999) == "\ufffd"


def test_a_lone_surrogate_becomes_a_question_mark_wherever_blocks_end() -> None:
    text = "a\ud800\udc00b\udfff"
    assert TOKENIZER.unknown(text) == dict.fromkeys("\ud800\udc00\udfff", "?")
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == "a??b?"
    blocks = np.concatenate(list(TOKENIZER.encode_blocks(list(text))))
    assert np.array_equal(blocks, TOKENIZER.encode(text))


@given(st.lists(st.lists(texts, max_size=3), max_size=4))
def test_documents_end_with_eos(documents: list[list[str]]) -> None:
    blocks = [block for document in documents for block in (*document, None)]
    ids = [int(i) for array in TOKENIZER.encode_documents(blocks) for i in array]
    expected = [int(i) for document in documents for i in (*TOKENIZER.encode("".join(document)), TOKENIZER.eos_id)]
    assert ids == expected


def test_a_long_text_is_encoded_in_threads_in_order_and_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "available_cpus", lambda: 4)
    block, repetitions = sample(20), 200  # 30 MB
    document = np.append(TOKENIZER.encode(block), TOKENIZER.eos_id)

    def blocks() -> Iterator[str | None]:
        for _ in range(repetitions):
            yield block
            yield None

    tracemalloc.start()
    try:
        tokens = 0
        for ids in TOKENIZER.encode_documents(blocks()):
            assert ids.dtype == np.uint16
            assert np.array_equal(ids, document[(tokens + np.arange(len(ids))) % len(document)])
            tokens += len(ids)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert tokens == repetitions * len(document)
    assert peak < 20_000_000


def test_an_error_while_reading_reaches_the_caller() -> None:
    def blocks() -> Iterator[str]:
        for _ in range(10):
            yield sample(30)
        raise DatasetError("a broken file")

    with pytest.raises(DatasetError, match="a broken file"):
        list(TOKENIZER.encode_blocks(blocks()))


@given(texts)
def test_a_stream_shows_only_whole_characters(text: str) -> None:
    for tokenizer in (TOKENIZER, BYTES):
        decoder, shown = tokenizer.stream_decoder(), ""
        for token in tokenizer.encode(text).tolist():
            shown += decoder.push((token,))
            assert text.startswith(shown)
        assert shown == text


@given(ids_of_any_tokens, st.integers(0, 20))
def test_a_stream_of_any_tokens_decodes_to_the_same_text(ids: list[int], prompt_length: int) -> None:
    """Also after a prompt, whose incomplete character belongs to the text, and across end-of-text tokens."""
    shown = TOKENIZER.stream_decoder().push(ids[:prompt_length])
    decoder = TOKENIZER.stream_decoder(ids[:prompt_length])
    for token in ids[prompt_length:]:
        text, start = decoder.push_token(token)
        assert 0 <= start <= max(0, len(text))
        shown += text
    content = b"".join(map(TOKENIZER.token_bytes, ids))
    assert shown == codecs.getincrementaldecoder("utf-8")("replace").decode(content)


def test_a_character_that_a_prompt_leaves_incomplete_is_completed_by_the_stream() -> None:
    horse = list("🐎".encode())
    assert BYTES.stream_decoder([97, *horse[:3], BYTES.eos_id]).push([98]) == "b", "a new text"


def test_json_round_trip() -> None:
    for tokenizer in (TOKENIZER, BYTES):
        written = json.loads(json.dumps(tokenizer.to_json(), ensure_ascii=False).encode())
        again = tokenizer_from_json(written)
        assert type(again) is BPETokenizer
        assert again.tokens == tokenizer.tokens
        assert again.to_json() == tokenizer.to_json()
        for sentence in SENTENCES.values():
            assert np.array_equal(again.encode(sentence), tokenizer.encode(sentence))


def test_merges_may_be_pairs() -> None:
    content = TOKENIZER.to_json()
    content["model"]["merges"] = [merge.split(" ") for merge in content["model"]["merges"]]
    assert tokenizer_from_json(content).to_json() == TOKENIZER.to_json()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab": {"a": 0, EOS: 1}}, "does not number its tokens from 0"),
        ({"vocab": {EOS: 512}}, "does not number its tokens from 0"),
        ({"merges": []}, "merges are not in the order"),
        ({"merges": ["a b c"]}, "not in bytes"),
        ({"merges": ["日 本"]}, "not in bytes"),
    ],
)
def test_an_invalid_vocabulary_is_an_error(changes: dict[str, Any], message: str) -> None:
    content = TOKENIZER.to_json()
    content["model"] |= changes
    with pytest.raises(ModelFolderError, match=message):
        tokenizer_from_json(content)


def test_a_vocabulary_without_all_bytes_is_an_error() -> None:
    content = TOKENIZER.to_json()
    vocab = content["model"]["vocab"]
    vocab["aé"] = vocab.pop("Ā")
    with pytest.raises(ModelFolderError, match="does not begin with the 256 bytes"):
        tokenizer_from_json(content)


@pytest.mark.parametrize(
    "other",
    [
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": None},
        {"normalizer": {"type": "NFC"}},
        {"added_tokens": []},
        {"added_tokens": [{"id": 511, "content": "</s>", "special": True}]},
        {"model": {"type": "Unigram"}},
    ],
)
def test_another_kind_of_tokenizer_is_not_mistaken_for_it(other: dict[str, Any]) -> None:
    with pytest.raises(ModelFolderError, match="none of gptbox's tokenizers: char, byte, gpt2, bpe"):
        tokenizer_from_json(TOKENIZER.to_json() | other)
