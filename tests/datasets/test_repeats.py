"""Repeated passages are those that a comparison of all pairs finds."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.datasets.symbol_files import symbol_file

from gptbox.datasets import record_store, repeats, winnowing
from gptbox.datasets.repeats import Copy, Repeats, find_repeats


def repeats_in(text: bytes, num_train: int, length: int) -> Repeats:
    with symbol_file(text, num_train) as file:
        return find_repeats(file, length)


def naive(text: bytes, num_train: int, length: int) -> tuple[int, int, int | None]:
    """Symbols in copies, those of the validation split in copies of training passages, and the first copy."""
    copied: set[int] = set()
    leaked: set[int] = set()
    first = None
    for i in range(len(text) - length + 1):
        earliest = text.find(text[i : i + length])
        if earliest + length <= i:
            copied.update(range(i, i + length))
            first = i if first is None else first
        if i >= num_train and earliest + length <= num_train:
            leaked.update(range(i, i + length))
    return len(copied), len(leaked), first


@st.composite
def repetitive_texts(draw: st.DrawFn) -> bytes:
    """Runs of one symbol, other symbols and copies of what came before, in any order."""
    text = bytearray()
    for _ in range(draw(st.integers(0, 12))):
        symbols = st.integers(0, draw(st.sampled_from([1, 2, 255])))
        match draw(st.sampled_from(["new", "copy", "run"])):
            case "new":
                text += bytes(draw(st.lists(symbols, max_size=20)))
            case "copy":
                start = draw(st.integers(0, len(text)))
                text += text[start : start + draw(st.integers(0, 40))]
            case "run":
                text += bytes([draw(symbols)]) * draw(st.integers(0, 60))
    return bytes(text)


@given(
    text=repetitive_texts(),
    length=st.integers(2, 17),
    share=st.floats(0, 1),
    chunk=st.sampled_from([8, 1 << 15]),
    batch=st.sampled_from([4, 1 << 20]),
    part=st.sampled_from([16, 1 << 26]),
)
@example(b"ab" * 40, 5, 0.9, 8, 4, 16)
@example(b"a" * 200, 17, 0.5, 8, 4, 16)
def test_every_copy_is_found_and_nothing_else(
    text: bytes, length: int, share: float, chunk: int, batch: int, part: int
) -> None:
    num_train = int(share * len(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winnowing, "_CHUNK", chunk)
        patch.setattr(repeats, "_PIECE", chunk)
        patch.setattr(repeats, "_BATCH", batch)
        patch.setattr(winnowing, "_PART", part)
        patch.setattr(record_store, "_FLUSH", 3)
        patch.setattr(repeats, "_SWEEP", 3 * batch)
        found = repeats_in(text, num_train, length)
    copied, leaked, first = naive(text, num_train, length)
    assert (found.copied, found.val_in_train) == (copied, leaked)
    assert (None if found.first is None else found.first.later) == first
    if found.first is not None:
        earlier, later, common = found.first
        assert length <= common <= later - earlier
        assert text[earlier : earlier + common] == text[later : later + common]
        longest = later + common == len(text) or earlier + common == later
        assert longest or text[earlier + common] != text[later + common]


def noise(length: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, length, np.uint8).tobytes()


@pytest.mark.parametrize("offset", [0, 1, 63, 64, 99, 100, 136, 137, 199, 5000])
def test_a_single_passage_of_exactly_the_length_is_found_at_any_offset(offset: int) -> None:
    passage = noise(200, 1)
    text = noise(1000, 2) + passage + noise(3000 + offset, 3) + passage + noise(1000, 4)
    found = repeats_in(text, len(text), 200)
    assert found.first == Copy(1000, 4200 + offset, 200)
    assert (found.copied, found.val_in_train) == (200, 0)
    assert repeats_in(text, len(text), 201).first is None


def test_a_shorter_passage_in_every_document_is_no_repeat() -> None:
    header = noise(190)
    text = b"".join(header + noise(300, seed) for seed in range(1, 300))
    found = repeats_in(text, len(text), 200)
    assert (found.copied, found.first) == (0, None)


def test_a_copy_of_a_validation_passage_is_not_in_the_training_text() -> None:
    page, rest = noise(5000, 1), noise(5000, 2)
    text = rest + page + page + page
    found = repeats_in(text, 5000, 200)
    assert (found.copied, found.val_in_train, found.first) == (10_000, 0, Copy(5000, 10_000, 5000))
    assert repeats_in(text, 10_000, 200).val_in_train == 10_000


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_symbols_may_have_any_width(dtype: type[np.unsignedinteger]) -> None:
    symbols = np.random.default_rng(0).integers(0, min(np.iinfo(dtype).max, 0x10FFFF), 1000).astype(dtype)
    text = np.concatenate([symbols, symbols])
    with symbol_file(text.tobytes(), 1000, dtype) as file:
        found = find_repeats(file, 200)
    assert (found.copied, found.val_in_train, found.first) == (1000, 1000, Copy(0, 1000, 1000))


def test_progress_is_reported_up_to_the_total() -> None:
    calls: list[tuple[str, int, int]] = []
    text = noise(100_000) + noise(190) + noise(100_000, 2) + noise(190)
    with symbol_file(text, 180_000) as file:
        find_repeats(file, 200, lambda *call: calls.append(call), "letters")
    assert [operation for operation, _, _ in calls] == (
        (len(calls) - 1) * ["Looking for repeated passages in letters"] + ["Comparing passages of letters"]
    )
    assert [done for _, done, _ in calls[:-1]] == sorted(done for _, done, _ in calls[:-1])
    assert {total for _, _, total in calls[:-1]} == {len(text) - 199}
    assert len(calls) > 6
