"""The words of a training text, and the share of a generated text's words that are among them."""

import json
import random
import unicodedata
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbox.datasets import words
from gptbox.datasets.prepared import PreparedDataset, prepare
from gptbox.datasets.words import TrainingWords, find_words
from gptbox.models.runs import RunFolder

PROSE = (
    "Once upon a time a king had three sons, and the king's youngest son wouldn't marry. The king was old; the sons "
    "were not. A time came when the old king called his three sons and said: \u201cI am old, and it's time.\u201d\n"
) * 40
CHINESE = "从前有一个国王,他有三个儿子。国王老了,儿子们还年轻。有一天,国王把儿子们叫来说话。\n" * 40
THAI = "กาลครั้งหนึ่งนานมาแล้ว มีพระราชาองค์หนึ่ง มีโอรสสามองค์ พระราชาทรงชรา\n" * 40


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("1, 2_3; ²!", []),
        ("To be, or not to BE", ["to", "be", "or", "not", "to", "be"]),
        ("o'er th' 'tis ''rock'n'roll''", ["o'er", "th", "tis", "rock'n'roll"]),
        ("don\u2019t \u2018quote\u2019 it", ["don't", "quote", "it"]),
        ("well-known e.g. snake_case x2y", ["well", "known", "e", "g", "snake", "case", "x", "y"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        (unicodedata.normalize("NFD", "Chào buổi"), [unicodedata.normalize("NFD", word) for word in ("chào", "buổi")]),
        ("सभी मनुष्यों को", ["सभी", "मनुष्यों", "को"]),
        ("יולד جميع 모든 사람은", ["יולד", "جميع", "모든", "사람은"]),
        ("国王 すべての人間は ภาษาไทย ភាសាខ្មែរ GPTモデル", ["gpt"]),
        ("a\ufffdb 👩🏽‍🚀c", ["a", "b", "c"]),
    ],
)
def test_words_of_a_text(text: str, expected: list[str]) -> None:
    assert find_words(text) == expected


@given(st.text())
def test_words_are_letters_and_marks_with_apostrophes_inside(text: str) -> None:
    for word in find_words(text):
        parts = word.split("'")
        assert all(parts)
        assert all(unicodedata.category(character)[0] in "LM" for part in parts for character in part)


@given(st.text())
def test_every_letter_of_a_script_with_spaces_is_in_a_word(text: str) -> None:
    folded = text.casefold().replace("\u2019", "'")
    assert sorted(c for c in folded if words._kind(c) == "letter") == sorted("".join(find_words(text)).replace("'", ""))


@given(st.text(), st.text())
def test_white_space_separates_words(first: str, second: str) -> None:
    assert find_words(f"{first}\n{second}") == find_words(first) + find_words(second)


@pytest.fixture
def dataset_of(tmp_path: Path) -> Callable[..., PreparedDataset]:
    def make(text: str | list[str], tokenizer: str = "char") -> PreparedDataset:
        folder = tmp_path / "data" / "story"
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(text, str):
            (folder / "story.txt").write_text(text, encoding="utf-8")
        else:
            lines = [json.dumps({"text": document}) for document in text]
            (folder / "story.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return prepare("story", RunFolder(tmp_path / "models", tokenizer), tmp_path / "data", tokenizer=tokenizer)

    return make


@pytest.mark.parametrize("piece_bytes", [100, 137, 1 << 16])
@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe"])
def test_the_words_of_a_training_text_are_complete_wherever_its_pieces_end(
    dataset_of: Callable[..., PreparedDataset], monkeypatch: pytest.MonkeyPatch, tokenizer: str, piece_bytes: int
) -> None:
    monkeypatch.setattr(words, "_PIECE_BYTES", piece_bytes)
    generator = random.Random(1)
    lexicon = ["".join(generator.choices("abcdefghijklmnoäéжи", k=generator.randint(1, 12))) for _ in range(300)]
    dataset = dataset_of(" ".join(generator.choices(lexicon, k=3000)), tokenizer)
    decoded = dataset.tokenizer.decode(dataset.train.tolist())
    assert TrainingWords.of(dataset)._words == set(find_words(decoded)[:-1])


def test_a_part_of_a_long_text_is_read_from_its_beginning_to_its_end(
    dataset_of: Callable[..., PreparedDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "_PIECE_BYTES", 1000)
    monkeypatch.setattr(words, "MAX_BYTES", 10_000)
    letters = "abcdefghij"
    numbers = {"".join(letters[int(digit)] for digit in f"{n:05}"): n for n in range(20_000)}
    dataset = dataset_of(" ".join(f"{word} {word}" for word in numbers))
    places = sorted(numbers[word] for word in TrainingWords.of(dataset)._words)  # no word is cut off
    assert 10_000 / 12 < len(places) < 20_000 / 12
    assert places[0] == 0
    assert places[-1] == 17_999
    assert max(after - before for before, after in pairwise(places)) < 20_000 / 8, "evenly spaced"


def test_a_word_ends_with_its_document(dataset_of: Callable[..., PreparedDataset]) -> None:
    dataset = dataset_of(["one two three", "four five six"] * 200, "bpe")
    assert TrainingWords.of(dataset)._words == {"one", "two", "three", "four", "five", "six"}, "and not threefour"


def test_the_share_of_real_words(dataset_of: Callable[..., PreparedDataset]) -> None:
    known = TrainingWords.of(dataset_of(PROSE))
    assert known.share("xx Once upon a time a king had three sons, AND THE SONS yy") == 1.0
    assert known.share("xx Once upon a time a king had thrice sones, annd the suns yy") == pytest.approx(8 / 12)
    assert known.share("once qzx qzy qzz qza qzb qzc qzd qze qzf qzg qzh upon") == 0.0
    assert known.share("the king\u2019s youngest son wouldn't marry, and the king's sons wouldn\u2019t marry") == 1.0


def test_the_first_and_the_last_word_may_be_cut_off_and_do_not_count() -> None:
    known = TrainingWords(Counter("abcdefghij" * 3))
    assert known.share("xx a b c d e f g h i j xx") == 1.0
    assert known.share("a b c d e f g h i j") is None, "eight words are too few"
    assert known.share("") is None


@pytest.mark.parametrize("text", [CHINESE, THAI, CHINESE + PROSE[:1000]], ids=["chinese", "thai", "mostly chinese"])
def test_a_text_in_a_script_without_spaces_has_no_words(dataset_of: Callable[..., PreparedDataset], text: str) -> None:
    known = TrainingWords.of(dataset_of(text, "bpe"))
    assert known.share(text) is None
    assert known.share(PROSE) is None


def test_a_text_whose_words_never_recur_has_none(dataset_of: Callable[..., PreparedDataset]) -> None:
    generator = random.Random(1)
    codes = "\n".join("".join(generator.choices("acgt", k=60)) for _ in range(300))
    assert TrainingWords.of(dataset_of(codes)).share(codes) is None


def test_quotations_in_another_script_are_left_out(dataset_of: Callable[..., PreparedDataset]) -> None:
    known = TrainingWords.of(dataset_of(PROSE + CHINESE[:500]))
    assert known.share(CHINESE[:20] + PROSE[:100] + CHINESE[:20]) == 1.0
