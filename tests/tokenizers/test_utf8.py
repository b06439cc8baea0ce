"""The UTF-8 constraint: a token is possible exactly where the text can still become UTF-8."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.tokenizers.texts import sample, texts

from gptbox.tokenizers.bpe import BPETokenizer
from gptbox.tokenizers.byte import ByteTokenizer
from gptbox.tokenizers.char import CharTokenizer
from gptbox.tokenizers.utf8 import NUM_STATES, Utf8Constraint

BYTES = Utf8Constraint(ByteTokenizer().token_bytes, 256)
PARTS = [b"", b"a", b"\xe4\xb8", b"\xad", b"\xad\xe4", b"\xb8\xad", b"\xf0\x9f", b"\x90\x8e!", b"\xc3", b"\xff"]
CONSTRAINT = Utf8Constraint(PARTS.__getitem__, len(PARTS))
BPE = BPETokenizer.train([sample()])
byte = st.integers(0, 255) | st.sampled_from([0x80, 0xA0, 0xBF, 0xC0, 0xC3, 0xE0, 0xE2, 0xED, 0xEF, 0xF0, 0xF1, 0xF4])


def can_become_text(content: bytes) -> bool:
    """Whether some bytes after these make UTF-8 of them."""
    for rest in (b"", *(each * count for each in (b"\x80", b"\xbf") for count in (1, 2, 3))):
        try:
            (content + rest).decode("utf-8")
        except UnicodeDecodeError:
            continue
        return True
    return False


def state_after(constraint: Utf8Constraint, ids: Sequence[int]) -> int:
    """By `transitions`, from the beginning of a text; -1 if one of the ids is not possible."""
    state = 0
    for i in ids:
        state = int(constraint.transitions[state, i])
        if state < 0:
            break
    return state


def test_every_pair_of_bytes() -> None:
    for first in range(256):
        for second in range(256):
            possible = state_after(BYTES, (first, second)) >= 0
            assert possible == can_become_text(bytes((first, second))), (first, second)


@given(st.lists(byte, max_size=8).map(bytes) | texts.map(str.encode), byte)
def test_any_bytes(content: bytes, last: int) -> None:
    for ids in (content, content + bytes((last,))):
        state = state_after(BYTES, ids)
        assert (state >= 0) == can_become_text(ids)
        assert (state == 0) == (can_become_text(ids) and can_become_text(ids + b"a"))


@given(st.lists(st.integers(0, len(PARTS) - 1), max_size=6))
def test_tokens_of_several_bytes(ids: list[int]) -> None:
    content = b"".join(PARTS[i] for i in ids)
    ends_within_character = any(
        not PARTS[i] and not can_become_text(b"".join(PARTS[j] for j in ids[:at]) + b"a") for at, i in enumerate(ids)
    )
    assert (state_after(CONSTRAINT, ids) >= 0) == (can_become_text(content) and not ends_within_character)


@given(st.lists(byte, max_size=5), texts)
def test_the_state_after_a_prompt_is_that_of_its_last_character(junk: list[int], text: str) -> None:
    content = text.encode()
    for end in range(len(content) + 1):
        last = b""  # of the text so far, what is not a whole character
        for length in (1, 2, 3):
            if length <= end and state_after(BYTES, content[end - length : end]) > 0:
                last = content[end - length : end]
        expected = state_after(BYTES, last)
        assert BYTES.state_after(content[:end]) == expected
        if end:
            assert BYTES.state_after([*junk, *content[:end]]) == expected
            assert BYTES.state_after(np.array([*junk, *content[:end]], np.uint16)) == expected


def test_a_token_without_text_ends_the_last_character_of_a_prompt() -> None:
    assert CONSTRAINT.state_after([]) == CONSTRAINT.state_after([0, 0]) == CONSTRAINT.state_after([1, 2, 0]) == 0
    assert CONSTRAINT.state_after([2, 0, 2]) == CONSTRAINT.state_after([1, 2]) == CONSTRAINT.transitions[0, 2] > 0
    assert CONSTRAINT.state_after([4]) == 2  # the end of a character, and one byte of the next


def test_in_each_state_a_byte_is_possible() -> None:
    """So that something is left to sample."""
    assert BYTES.transitions.shape == (NUM_STATES, 256)
    assert (BYTES.transitions >= 0).any(1).all()
    assert BYTES.transitions.max() == NUM_STATES - 1


def test_ids_that_the_tokenizer_lacks_are_never_possible() -> None:
    padded = BYTES.padded(300)
    assert padded.dtype == np.int8
    np.testing.assert_array_equal(padded[:, :256], BYTES.transitions)
    assert (padded[:, 256:] == -1).all()


def test_only_tokenizers_with_parts_of_characters_need_it() -> None:
    assert CharTokenizer(list("aé日🐎")).utf8_constraint is None
    for tokenizer in (ByteTokenizer(), BPE):
        constraint = tokenizer.utf8_constraint
        assert constraint is not None
        assert constraint is tokenizer.utf8_constraint
        assert constraint.transitions.shape == (NUM_STATES, tokenizer.vocab_size)


def test_no_text_ends_within_a_character() -> None:
    assert BPE.utf8_constraint is not None
    assert BPE.utf8_constraint.transitions[:, BPE.eos_id].tolist() == [0] + [-1] * (NUM_STATES - 1)


@given(texts)
def test_every_text_is_possible(text: str) -> None:
    assert BPE.utf8_constraint is not None
    assert state_after(BPE.utf8_constraint, BPE.encode(text).tolist()) == 0
