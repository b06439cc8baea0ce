"""Stop strings across token boundaries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbox.web.api.stop_strings import StopStrings


def run(stops: list[str], pieces: list[str]) -> tuple[list[str], bool]:
    stop = StopStrings(stops)
    out = [stop.push(piece) for piece in pieces]
    return [*out, stop.flush()], stop.matched


def test_without_stop_strings_text_passes_at_once() -> None:
    assert run([], ["a", "bc"]) == (["a", "bc", ""], False)


def test_a_match_across_pieces_is_removed() -> None:
    assert run(["\n\n"], ["so", "\n", "\nmore"]) == (["so", "", "", ""], True)


def test_the_possible_beginning_of_a_match_is_held_back() -> None:
    assert run(["END"], ["xE", "N", "d", "E"]) == (["x", "", "ENd", "", "E"], False)


def test_the_match_that_ends_first_counts() -> None:
    assert run(["abcd", "bc"], ["abcd"]) == (["a", ""], True)


@pytest.mark.parametrize("stop", ["aab", "abab", "aa"])
def test_a_match_may_begin_within_a_partial_match(stop: str) -> None:
    pieces, matched = run([stop], list("x" + stop[:-1] + stop))
    assert matched
    assert "".join(pieces) == ("x" + stop[:-1] + stop)[: ("x" + stop[:-1] + stop).find(stop)]


@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=4),
    pieces=st.lists(st.text("abc", max_size=3), max_size=12),
)
def test_the_result_does_not_depend_on_how_the_text_is_split(stops: list[str], pieces: list[str]) -> None:
    text = "".join(pieces)
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    out, matched = run(stops, pieces)
    assert matched == bool(ends)
    assert "".join(out) == (text[: min(ends)[1]] if ends else text)
