"""Constrained decoding to well-formed UTF-8: a mask over the tokens that would break a character.

A byte-level model of one minute breaks some characters of ten thousand, at a high temperature hundreds. No decoder can
mend this afterwards: the text would get U+FFFD, or lack what its tokens stand for.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

# The bytes that may come next, per state: first, last, and the state after them (The Unicode Standard, table 3-7).
_BETWEEN_CHARACTERS = 0
_NEXT_BYTES = (
    (
        (0x00, 0x7F, 0), (0xC2, 0xDF, 1), (0xE0, 0xE0, 4), (0xE1, 0xEC, 2), (0xED, 0xED, 5), (0xEE, 0xEF, 2),
        (0xF0, 0xF0, 6), (0xF1, 0xF3, 3), (0xF4, 0xF4, 7),
    ),
    ((0x80, 0xBF, 0),),  # 1, 2 and 3: that many continuation bytes are missing
    ((0x80, 0xBF, 1),),
    ((0x80, 0xBF, 2),),
    ((0xA0, 0xBF, 1),),  # after E0: what is below has a shorter form
    ((0x80, 0x9F, 1),),  # after ED: what is above are surrogates
    ((0x90, 0xBF, 2),),  # after F0: what is below has a shorter form
    ((0x80, 0x8F, 2),),  # after F4: what is above is beyond U+10FFFF
)  # fmt: skip


def _byte_transitions() -> list[list[int]]:
    """The state after each byte, by state; -1 if the byte is not possible there."""
    table = [[-1] * 256 for _ in _NEXT_BYTES]
    for row, ranges in zip(table, _NEXT_BYTES, strict=True):
        for first, last, state in ranges:
            row[first : last + 1] = [state] * (last + 1 - first)
    return table


_BYTE_TRANSITIONS = _byte_transitions()
NUM_STATES = len(_NEXT_BYTES)


def _state_after(content: bytes, state: int) -> int:
    """The state after these bytes; -1 if they are not possible."""
    for byte in content:
        state = _BYTE_TRANSITIONS[state][byte]
        if state < 0:
            break
    return state


class Utf8Constraint:
    """Which tokens may come next in a text, as a finite automaton whose state 0 is between two characters."""

    def __init__(self, token_bytes: Callable[[int], bytes], vocab_size: int) -> None:
        """A token without bytes, such as an end of text, is not possible within a character."""
        self._token_bytes = token_bytes
        self.transitions: NDArray[np.int8] = np.full((NUM_STATES, vocab_size), -1, np.int8)
        """The state after each token, by state, shape (states, V); -1 if the token is not possible there."""
        for i in range(vocab_size):
            content = token_bytes(i)
            if _is_whole(content):
                self.transitions[_BETWEEN_CHARACTERS, i] = _BETWEEN_CHARACTERS
            else:
                self.transitions[:, i] = [_state_after(content, state) for state in range(NUM_STATES)]

    @property
    def is_needed(self) -> bool:
        """Whether a token is only a part of a character."""
        return bool((self.transitions[_BETWEEN_CHARACTERS] != _BETWEEN_CHARACTERS).any())

    def padded(self, vocab_size: int) -> NDArray[np.int8]:
        """`transitions` for a model whose vocabulary is larger: ids without a token are never possible."""
        missing = vocab_size - self.transitions.shape[1]
        return np.pad(self.transitions, ((0, 0), (0, missing)), constant_values=-1)

    def state_after(self, ids: Sequence[int] | NDArray[np.integer]) -> int:
        """The state after a prompt, which may begin within a character, or not be UTF-8 at all.

        A token without bytes, such as an end of text, is between characters.
        """
        ending = b""
        for i in reversed(ids):
            content = self._token_bytes(int(i))
            ending = content + ending
            if not content or len(ending) >= 3:
                break
        # An incomplete character has at most three bytes.
        states = (_state_after(ending[-length:], _BETWEEN_CHARACTERS) for length in (3, 2, 1))
        return next((state for state in states if state > _BETWEEN_CHARACTERS), _BETWEEN_CHARACTERS)


def _is_whole(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
