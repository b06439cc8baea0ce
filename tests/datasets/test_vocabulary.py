"""The vocabulary in the description of a prepared text."""

import re
from dataclasses import replace
from pathlib import Path

from gptbox.datasets.prepared import prepare
from gptbox.models.runs import RunFolder


def test_rare_and_unseen_characters_are_named(data: Path, run: RunFolder) -> None:
    text = "plain \u200b text\t\ue000 \x07 \ufffd caf\u00e9 e\u0301\r\n" + "plain text " * 100 + "Q"
    (data / "letters" / "a.txt").write_text(text, encoding="utf-8", newline="")
    (data / "letters" / "b.pdf").write_text("x")
    description = "\n".join(prepare("letters", run, data).describe())
    assert "rare characters, hardly learned: (tab) (1 x), (line break) (1 x), Q (1 x)" in description
    assert "\u00e9 (1 x), U+0301 COMBINING ACUTE ACCENT (1 x)" in description
    assert "characters only in the validation split, never learned: Q (1 x)" in description
    assert "note: a.txt: 1 Windows line endings (CR LF) became LF." in description
    assert "b.pdf." in description
    assert "note: Not used, because they are of other kinds than" in description


def test_marks_without_a_width_are_named(data: Path, run: RunFolder) -> None:
    (data / "letters" / "a.txt").write_text("1\ufe0f\u20e3 \u0915\u0941\u093e\n", encoding="utf-8")
    lines = prepare("letters", run, data).describe()
    assert lines[2] == (
        "vocabulary: 8 characters: (line break) (space) 1 \u0915 \u093e U+0941 DEVANAGARI VOWEL SIGN U "
        "U+20E3 COMBINING ENCLOSING KEYCAP U+FE0F VARIATION SELECTOR-16"
    )


def test_bytes_that_do_not_occur_are_counted_only(data: Path, run: RunFolder) -> None:
    text = "plain text\n" * 50 + "caf\u00e9 \x07" + "plain text\n" * 5
    (data / "letters" / "a.txt").write_text(text, encoding="utf-8")
    lines = prepare("letters", run, data, tokenizer="byte").describe()
    assert lines[2] == "vocabulary: 256 bytes, of which 15 occur in the text"
    assert r"rare bytes, hardly learned: c (1 x), f (1 x), bytes:\xa9 (1 x), bytes:\xc3 (1 x)" in lines


def test_a_large_vocabulary_is_abbreviated(data: Path, run: RunFolder) -> None:
    characters = "".join(chr(0x4E00 + 2 * i) for i in range(3000))
    (data / "letters" / "a.txt").write_text(characters * 2, encoding="utf-8")
    lines = prepare("letters", run, data, tokenizer="char").describe()
    assert max(map(len, lines)) < 600
    assert lines[2].endswith(" and 2,900 more")
    (rare,) = (line for line in lines if line.startswith("rare"))
    assert rare.endswith(" and 2,980 more")


def test_rare_tokens_of_bpe_are_counted_only(data: Path, run: RunFolder) -> None:
    (data / "letters" / "a.txt").write_text("so and so\n" * 20 + "the end of it", encoding="utf-8")
    lines = prepare("letters", run, data, tokenizer="bpe").describe()
    assert lines[2].startswith("vocabulary: 26")
    assert [line for line in lines if re.fullmatch(r"rare tokens, hardly learned: \d+", line)]
    assert [line for line in lines if re.fullmatch(r"tokens only in the validation split, never learned: \d+", line)]


def test_odd_characters_of_a_text_without_a_health_report_are_counted(data: Path, run: RunFolder) -> None:
    text = "plain \u200b text\t\ue000 \x07 \ufffd" + "plain text " * 100
    (data / "letters" / "a.txt").write_text(text, encoding="utf-8")
    older = replace(prepare("letters", run, data), health=None)
    odd = "odd characters: U+0007 (1 x), U+200B ZERO WIDTH SPACE (1 x), U+E000 (1 x), \ufffd (1 x)"
    assert odd in older.describe()
