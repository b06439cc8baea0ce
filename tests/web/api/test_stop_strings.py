"""Stop strings across token boundaries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbox.web.api.stop_strings import StopStrings


def run(stops: list[str], pieces: list[str]) -> tuple[list[str], str | None]:
    stop = StopStrings(stops)
    out = [stop.push(piece) for piece in pieces]
    return [*out, stop.flush()], stop.matched


def test_without_stop_strings_text_passes_at_once() -> None:
    assert run([], ["a", "bc"]) == (["a", "bc", ""], None)


def test_a_match_across_pieces_is_removed() -> None:
    assert run(["\n\n"], ["so", "\n", "\nmore"]) == (["so", "", "", ""], "\n\n")


def test_the_possible_beginning_of_a_match_is_held_back() -> None:
    assert run(["END"], ["xE", "N", "d", "E"]) == (["x", "", "ENd", "", "E"], None)


def test_the_match_that_ends_first_counts() -> None:
    assert run(["abcd", "bc"], ["abcd"]) == (["a", ""], "bc")


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
    assert (matched is not None) == bool(ends)
    assert "".join(out) == (text[: min(ends)[1]] if ends else text)


def test_a_match_that_ends_in_an_excluded_piece_is_ignored() -> None:
    def run(stops: list[str], excluded: str, text: str) -> tuple[str, str | None]:
        stop = StopStrings(stops)
        out = stop.push(excluded, may_end=False) + stop.push(text)
        return out + stop.flush(), stop.matched

    assert run(["ab"], "xab", "c") == ("xabc", None)
    assert run(["ab"], "xab", "cab") == ("xabc", "ab")
    assert run(["ab"], "xa", "b") == ("x", "ab")  # it ends after the excluded piece
    assert run(["aa"], "aa", "a") == ("a", "aa")
    # "b" is held back as the middle of "abc", but ended in the excluded piece.
    assert run(["b", "abc"], "ab", "x") == ("abx", None)
    assert run(["b", "abc"], "ab", "c") == ("", "abc")


@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4),
    excluded=st.lists(st.text("abc", max_size=3), max_size=6),
    pieces=st.lists(st.text("abc", max_size=3), max_size=6),
)
def test_the_first_match_that_ends_after_the_excluded_pieces_counts(
    stops: list[str], excluded: list[str], pieces: list[str]
) -> None:
    first, text = len("".join(excluded)), "".join([*excluded, *pieces])
    ends = [
        (end, end - len(stop), stop)
        for stop in stops
        for end in range(first + 1, len(text) + 1)
        if text[:end].endswith(stop)
    ]
    stop = StopStrings(stops)
    out = "".join([stop.push(piece, may_end=False) for piece in excluded] + [stop.push(piece) for piece in pieces])
    if not ends:
        assert (out + stop.flush(), stop.matched) == (text, None)
        return
    _, start, string = min(ends)
    assert stop.matched == string
    assert out == text[:start]
