"""The line of a model's text that stands for what it can do."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbox.tokenizers.byte import ByteTokenizer
from gptbox.tokenizers.char import CharTokenizer
from gptbox.train.fresh_line import MAX_CHARACTERS, MAX_TOKENS, MIN_CHARACTERS, LineReader, shorten

LONG = "the quality of mercy is not strained, it droppeth as the gentle rain from heaven upon the place beneath"
VERSE = "Shall I compare thee to a summer's day?"


def read(text: str) -> tuple[str | None, int]:
    """The line, and the number of characters read for it."""
    tokenizer = CharTokenizer(sorted(set(text) | {"\n"}))
    reader = LineReader(tokenizer, tokenizer.encode("\n").tolist())
    for count, token in enumerate(tokenizer.encode(text[:MAX_TOKENS]).tolist(), 1):
        if reader.push(token):
            return reader.line, count
    return reader.line, len(text[:MAX_TOKENS])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (VERSE + "\nThou art", VERSE),
        ("\n\n  " + VERSE + " \n", VERSE),
        ("ROMEO:\n" + VERSE + "\n", VERSE),
        ("ROMEO:\nAy.\nNo.\n", "ROMEO:"),
        ("人人生而自由\n在尊严和权利上一律平等\n他们\n", "在尊严和权利上一律平等"),
        (LONG, "the quality of mercy is not strained, it droppeth as the gentle rain from…"),
        ("ROMEO:\n" + LONG, "the quality of mercy is not strained, it droppeth as the gentle rain from…"),
        ("a" * 100, "a" * 79 + "…"),
        ("one two thr", "one two…"),
        ("x", None),
        (" \n\n\n", None),
        ("", None),
    ],
)
def test_the_line_of_a_text(text: str, line: str | None) -> None:
    assert read(text)[0] == line


def test_no_more_is_read_than_the_line_needs() -> None:
    assert read(VERSE + "\n" + VERSE)[1] == len(VERSE) + 1
    assert read("a" * 100)[1] == MAX_CHARACTERS + 1


class _Documents(CharTokenizer):
    """Characters, and "|" for the end of a text."""

    @property
    def eos_id(self) -> int:
        return self.ids["|"]


def test_an_end_of_text_ends_a_line() -> None:
    tokenizer = _Documents(sorted({*VERSE, "\n", "|"}))
    reader = LineReader(tokenizer, tokenizer.encode("\n").tolist())
    read_all = [reader.push(token) for token in tokenizer.encode(f"|{VERSE}|").tolist()]
    assert read_all == [False] * (1 + len(VERSE)) + [True]
    assert reader.line == VERSE


@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd")), st.integers(0, 3))
def test_a_line_is_short_and_whole(text: str, missing: int) -> None:
    """Bytes may end within a character."""
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text).tolist()
    reader = LineReader(tokenizer, tokenizer.encode("\n").tolist())
    for token in ids[: len(ids) - missing]:
        if reader.push(token):
            break
    line = reader.line
    if line is None:
        return
    assert 0 < len(line) <= MAX_CHARACTERS
    assert "\n" not in line
    assert "\ufffd" not in line
    lines = [each.strip() for each in text.split("\n")]
    if line not in lines:
        assert line.endswith("…")
        assert any(each.startswith(line[:-1]) for each in lines)
        assert not any(len(each) in range(MIN_CHARACTERS, MAX_CHARACTERS + 1) for each in lines[:-1])


CLUSTERS = ["e\u0301", "नि", "👩🏽‍🚀", "🏳️‍🌈", "🇩🇪", "1️⃣", "각", "字", "z\u0334\u0321\u031b", "a"]  # fmt: skip


@given(st.lists(st.sampled_from(CLUSTERS), min_size=1, max_size=90))
def test_a_cut_keeps_letters_and_their_marks_together(clusters: list[str]) -> None:
    text = "".join(unicodedata.normalize("NFD", cluster) for cluster in clusters)
    line = shorten(text)
    assert len(line) <= MAX_CHARACTERS
    if line:
        assert line.endswith("…")
        lengths = [0]
        for cluster in clusters:
            lengths.append(lengths[-1] + len(unicodedata.normalize("NFD", cluster)))
        assert len(line) - 1 in lengths
    else:
        assert len(clusters) == 1
