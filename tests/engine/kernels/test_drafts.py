import numpy as np
import pytest

from gptbox.engine.kernels.drafts import guess, learn
from gptbox.engine.state import GUESSES, MOST_GUESSES


def table_of(*texts: str) -> np.ndarray:
    guesses = np.zeros(GUESSES, np.int64)
    for text in texts:
        for at in range(len(text)):
            learn(guesses, tokens_of(text), at)
    return guesses


def tokens_of(text: str, room: int = 0) -> np.ndarray:
    return np.array([ord(character) for character in text] + room * [0], np.int64)


def guessed(guesses: np.ndarray, text: str, most: int = MOST_GUESSES) -> str:
    tokens = tokens_of(text, MOST_GUESSES)
    count = guess(guesses, tokens, len(text), most)
    assert "".join(map(chr, tokens[: len(text)])) == text
    return "".join(map(chr, tokens[len(text) : len(text) + count]))


def test_what_was_right_once_is_guessed() -> None:
    assert guessed(table_of("wherefore art thou"), "where") == ""
    table = table_of("wherefore art thou", "wherefore art thou")
    assert guessed(table, "whe") == "ref"
    assert guessed(table, "... theref") == "ore"
    assert guessed(table, "hou") == ""


@pytest.mark.parametrize("most", range(4))
def test_no_more_than_wanted(most: int) -> None:
    assert guessed(table_of("abcdefgh", "abcdefgh"), "abc", most) == "def"[:most]


def test_of_two_ways_to_go_on_the_frequent_one_is_guessed() -> None:
    assert guessed(table_of(*4 * ["abcx"], "abcy"), "abc", 1) == "x"
    assert guessed(table_of(*2 * ["abcx"], *6 * ["abcy"]), "abc", 1) == "y"


def test_four_tokens_know_better_than_three() -> None:
    table = table_of(*3 * ["1abcx"], *9 * ["2abcy"])
    assert [guessed(table, text, 1) for text in ("1abc", "2abc", "3abc")] == ["x", "y", "y"]


@pytest.mark.parametrize("text", ["", "a", "ab"])
def test_too_short_to_know(text: str) -> None:
    assert guessed(table_of("abcabcabc"), text) == ""


def test_large_ids_do_not_overflow() -> None:
    tokens = np.array([50_256, 50_255, 50_254, 50_253, 0, 0, 0], np.int64)
    guesses = np.zeros(GUESSES, np.int64)
    for _ in range(20):
        learn(guesses, tokens, 3)
    assert guess(guesses, tokens, 3, 1) == 1
    assert tokens[3] == 50_253
