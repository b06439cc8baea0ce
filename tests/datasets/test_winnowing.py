"""Segments: every window is in one, and windows that are equal have the same minimum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.datasets.symbol_files import symbol_file

from gptbox.datasets import winnowing
from gptbox.datasets.winnowing import WindowHash, winnow


@given(text=st.text("ab", max_size=120), length=st.integers(2, 17), share=st.floats(0, 1), chunk=st.integers(1, 50))
def test_segments_cover_all_windows_and_tell_different_ones_apart(
    text: str, length: int, share: float, chunk: int
) -> None:
    num_train = int(share * len(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winnowing, "_CHUNK", chunk)
        with symbol_file(text.encode(), num_train) as file:
            store = winnow(file, WindowHash(length))
            num_windows = max(0, len(text) - length + 1)
            assert store.parts == (1 if num_windows else 0)
            segments = [] if not num_windows else store.take(0).tolist()
    assert [window for start, size, _, _ in segments for window in range(start, start + size)] == [*range(num_windows)]
    minima: dict[str, int] = {}
    contents: dict[str, int] = {}
    for start, size, minimum, content in segments:
        assert size <= length
        for cut in (num_train - length + 1, num_train):
            assert start + size <= cut or start >= cut
        for window in range(start, start + size):
            assert minima.setdefault(text[window : window + length], minimum) == minimum
        symbols = text[start : start + size + length - 1]
        assert contents.setdefault(symbols, content) == content
    assert len(set(contents.values())) == len(contents)


def test_a_segment_is_kept_for_about_70_windows() -> None:
    text = np.random.default_rng(0).integers(0, 256, 1_000_000, np.uint8).tobytes()
    with symbol_file(text) as file:
        segments = winnow(file, WindowHash(200)).take(0)
    assert 60 < 1_000_000 / len(segments) < 80


def test_the_hashes_are_the_same_on_every_machine() -> None:
    window = WindowHash(200)
    window.reserve(256)
    grams = window.grams(np.arange(256, dtype=np.uint8))
    assert (len(grams), int(grams[0]), int(window.windows(grams)[56])) == (
        193,
        12304268389142853093,
        9639093446871004123,
    )


def test_the_segments_of_a_long_text_are_in_parts_by_their_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    text = np.random.default_rng(0).integers(0, 256, 20_000, np.uint8).tobytes()
    with symbol_file(text, 18_000) as file:
        expected = winnow(file, WindowHash(20)).take(0)
        monkeypatch.setattr(winnowing, "_PART", 5000)
        store = winnow(file, WindowHash(20))
        assert store.parts == 4
        parts = [store.take(part) for part in range(4)]
        assert np.array_equal(np.sort(np.concatenate(parts), order="start"), expected)
        minima = [set(part["minimum"].tolist()) for part in parts]
        assert sum(map(len, minima)) == len(set.union(*minima))
        assert np.array_equal(file.read(0, 30_000), np.frombuffer(text, np.uint8)), "the segments are no symbols"
