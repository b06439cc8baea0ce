"""Copied spans: those that a search without an index finds, in texts of all kinds."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.indexed_text import copied_spans, index_of
from tests.tokenizers.texts import SENTENCES

from gptbox.datasets import key_sorter, ngram_writer
from gptbox.models import copied_spans as copied_spans_module
from gptbox.models.copied_spans import find_copied
from gptbox.models.ngram_index import MAX_COPIES

ALPHABETS = ["ab", "abc \n", "aé", "aé日🐎 \n", "日本語人生而自由", "abcdefghijklmnopqrstuvwxyz \n"]


def found(train: str, text: str, folder: Path) -> list[tuple[int, int]]:
    """The spans found, each of which is checked against its place in the training text."""
    index, content = index_of(train, folder), train.encode()
    spans = find_copied(index, text)
    for span in spans:
        there = content[span.place : span.place + span.num_bytes].decode()
        assert there == text[span.start : span.end]
        before = content[: span.place].decode()
        assert index.locate(span.place) == (len(before), 1 + before.count("\n"))
        context = index.context(span.place, span.place + span.num_bytes, 40)
        assert context == (before[-40:], train[len(before) + len(there) :][:40])
    return [(span.start, span.end) for span in spans]


@st.composite
def trains_and_texts(draw: st.DrawFn) -> tuple[str, str]:
    """A training text, with passages repeated up to 300 times, and a text made of its pieces and other characters."""
    alphabet = draw(st.sampled_from(ALPHABETS))
    random = draw(st.randoms(use_true_random=False))

    def make(size: int) -> str:
        return "".join(random.choices(alphabet, k=size))

    parts = [make(draw(st.sampled_from([1, 19, 20, 21, 60, 700])))]
    for _ in range(draw(st.integers(0, 2))):
        passage = parts[0][: draw(st.integers(1, 60))]
        parts.append(passage * draw(st.sampled_from([1, 3, 80, 300])) + make(30))
    train = "".join(parts)
    pieces = []
    for _ in range(draw(st.integers(0, 6))):
        start = random.randrange(len(train))
        pieces.append(train[start : start + random.randint(1, 60)] + random.choice(["", "", "é", "zzz", make(3)]))
    return train, "".join(pieces)


@settings(max_examples=60)
@given(trains_and_texts(), st.booleans())
def test_the_spans_are_those_of_a_search_without_an_index(texts: tuple[str, str], in_pieces: bool) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if in_pieces:  # many runs and parts even for short texts
            patch.setattr(copied_spans_module, "_QUERIES", 16)
            patch.setattr(key_sorter, "RUN", 64)
            patch.setattr(ngram_writer, "_CHUNK", 128)
        assert found(*texts, Path(folder)) == copied_spans(*texts)


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_is_found_in_every_script(language: str, tmp_path: Path) -> None:
    sentence = SENTENCES[language]
    train = "".join(SENTENCES.values())
    assert found(train, f"?{sentence}", tmp_path)[0][0] == 1
    assert found(train, sentence, tmp_path) == [(0, len(sentence))]
    assert found(train, sentence[:20], tmp_path) == [(0, 20)]
    assert found(train.replace(sentence, ""), sentence[:20], tmp_path) == []


def test_19_characters_in_a_row_are_not_copied(tmp_path: Path) -> None:
    train = "the quick brown fox jumps over the lazy dog"
    assert found(train, train[5:24] + "!", tmp_path) == []
    assert found(train, "!" + train[5:25] + "!", tmp_path) == [(1, 21)]
    assert found(train, "", tmp_path) == []
    assert found("short", "short", tmp_path) == []


def test_a_match_that_ends_within_a_character_ends_before_it(tmp_path: Path) -> None:
    # é and è have the first byte in common, and 本 and 朅 the first and the last.
    train = "é234567890123456789012345é本"
    assert found(train, "è" + train[1:-2] + "è", tmp_path) == [(1, 25)]
    assert found(train, train[:-1] + "朅", tmp_path) == [(0, 26)]


def test_overlapping_passages_are_cut_where_the_first_one_ends(tmp_path: Path) -> None:
    first, second = "abcdefghijklmnopqrstuvwxy", "vwxy0123456789ABCDEFGH"
    text = first + second[4:]
    assert found(f"{first}|{second}", text, tmp_path) == [(0, 25), (25, 43)]


def test_of_several_places_the_first_is_named(tmp_path: Path) -> None:
    passage = "a passage of thirty characters"
    index = index_of(f"x{passage}y" * 20, tmp_path)
    (span,) = find_copied(index, passage)
    assert span.place == 1


@pytest.mark.parametrize("unit", [" ", "ab", "0123456789", "a line of a log file, always the same\n", "ё"])
def test_a_text_of_one_repeated_passage(unit: str, tmp_path: Path) -> None:
    train = unit * 30_000
    index = index_of(train, tmp_path)
    # The passages repeat, and are stored a limited number of times.
    assert index.layout.num_grams + index.layout.num_windows <= 6 * len(unit) * MAX_COPIES + 100
    text = f"{unit * 50}-{unit * 50}"
    covered = [i for start, end in found(train, text, tmp_path) for i in range(start, end)]
    assert covered == [i for i in range(len(text)) if i != 50 * len(unit)]


def test_a_passage_of_a_frequent_gram_is_found_whatever_stands_around_it(tmp_path: Path) -> None:
    # 20,000 passages that share 17 characters.
    numbers = [f"{i:05}" for i in range(20_000)]
    train = "".join(f"{number}sixteen and three{number[::-1]}\n" for number in numbers)
    index = index_of(train, tmp_path)
    assert index.layout.num_windows > 0
    for number in numbers[::997]:
        text = f"{number}sixteen and three{number[::-1]}\n"
        (span,) = find_copied(index, text)
        assert (span.start, span.end) == (0, len(text))
        other = f"{number[:2]}xx{number[2:]}sixteen and three_"
        assert [other[span.start : span.end] for span in find_copied(index, other)] == [
            f"{number[2:]}sixteen and three"
        ]


def test_a_long_text_of_one_repeated_passage_takes_no_time(tmp_path: Path) -> None:
    index = index_of("ab" * 100_000, tmp_path)
    began = time.process_time()
    (span,) = find_copied(index, "ab" * 32_000)
    assert (span.start, span.end) == (0, 64_000)
    # Each place of a passage is compared once, not again at each of the text's 64,000 positions.
    assert time.process_time() - began < 2


def test_long_passages_are_found_whole(tmp_path: Path) -> None:
    numbers = "".join(f"{i * i} and " for i in range(20_000))
    index = index_of(numbers, tmp_path)
    text = numbers[5000:15_000] + "?" + numbers[30_000:30_019] + "?" + numbers[8000:20_000]
    assert [(span.start, span.end, span.place) for span in find_copied(index, text)] == [
        (0, 10_000, 5000),
        (10_021, 22_021, 8000),
    ]
