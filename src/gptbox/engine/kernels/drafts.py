"""Guesses of how a text goes on, which the model checks several at a time: speculative decoding.

One token of one text has to read all weights, and so have four tokens: what a lone text waits for is memory. The
guesses come from a table of what followed the same four tokens lately, or three, in any text; the model computes
them together with the token that is due, and each is drawn from its logits, by its rules and its random number, as if
there had been no guess. As long as what was drawn is what had been guessed, the next one's logits are there already.
The text is the same, to the bit; only its speed depends on the guesses.

Leviathan et al., Fast Inference from Transformers via Speculative Decoding, arXiv 2211.17192; a table instead of a
second model as He et al., REST, arXiv 2311.08252.
"""

from typing import Any

import numpy as np

from gptbox.engine.state import MOST_GUESSES
from gptbox.kernel_cache import kernel

_LEAST, _MOST = 3, 4
"""Tokens that a guess looks back at."""
_PRIME, _MASK = np.int64(1_000_003), np.int64(2**40 - 1)
_DOUBTS = 8
"""An entry is this times its token, plus how often it was right of late, up to one less than this."""


@kernel(counted=False, inline=True)
def _place(guesses: Any, tokens: Any, at: int, order: int) -> int:
    """The entry for what follows the last `order` tokens before `at`."""
    mixed = np.int64(order)
    for i in range(at - order, at):
        mixed = (mixed * _PRIME + tokens[i]) & _MASK
    return (mixed ^ (mixed >> 15)) & (guesses.size - 1)


@kernel(counted=False)
def learn(guesses: Any, tokens: Any, at: int) -> None:
    """Let the table know the token at a place of a text (tokens,)."""
    token = tokens[at]
    for order in range(_LEAST, min(_MOST, at) + 1):
        place = _place(guesses, tokens, at, order)
        entry = guesses[place]
        sure = entry % _DOUBTS
        if entry // _DOUBTS == token:
            guesses[place] = entry + 1 if sure < _DOUBTS - 1 else entry
        else:
            guesses[place] = entry - 1 if sure > 0 else token * _DOUBTS


@kernel(counted=False)
def _likely(guesses: Any, tokens: Any, at: int) -> int:
    """What comes at a place, by the longest beginning that was right before; -1 where none was."""
    for order in range(min(_MOST, at), _LEAST - 1, -1):
        entry = guesses[_place(guesses, tokens, at, order)]
        if entry % _DOUBTS > 0:
            return entry // _DOUBTS
    return -1


@kernel(counted=False)
def guess(guesses: Any, tokens: Any, at: int, most: int) -> int:
    """Write guesses at a place of a text and after it; how many there are."""
    count = 0
    while count < min(most, MOST_GUESSES):
        token = _likely(guesses, tokens, at + count)
        if token < 0:
            break
        tokens[at + count] = token
        count += 1
    return count
