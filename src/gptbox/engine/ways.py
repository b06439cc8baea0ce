"""How the work of a burst is done: the ways there are, and which of them is the fastest here and now."""

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

_TRIED_EVERY = 50
"""Bursts between two trials of ways that were slower; of the first bursts a fifth, since little is known of them."""
_FIRST_BURSTS = 200
_FIRST_TRIALS = 4
"""Before anything is known of a way. The first is not counted: threads have to wake, and caches to be filled."""
_FADING = 0.7
"""What is left of the weight of former bursts, after each."""
_LONGEST_S = 0.05
"""A burst that takes longer says no more against its way: it is to be trusted again in a while."""


class Way(NamedTuple):
    """How threads share a burst, and whether its lone text is written ahead."""

    products: bool
    """Whether threads share each product; else each takes rows of its own."""
    ahead: int
    """Tokens that a draft writes before the model reads them; of rows that are their thread's only one."""


@dataclass
class _Speed:
    """Tokens and seconds of the last bursts together, so that one that took long weighs as much as it took."""

    tokens: float = 0.0
    seconds: float = 0.0
    bursts: int = 0

    def add(self, tokens: float, seconds: float) -> None:
        self.bursts += 1
        if self.bursts > 1:
            shown = min(seconds, _LONGEST_S)
            self.tokens = _FADING * self.tokens + tokens * shown / seconds
            self.seconds = _FADING * self.seconds + shown

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


class Ways:
    """Which way a burst should go.

    Rows of their own need no meeting and get along with other work on the machine. Products make a lone sequence faster
    where each core then reads half the weights, which for a small model means from its own cache; but threads meet
    often, and wait for one that the machine has put aside. A draft saves reading the weights, and computes more. Which
    is fastest depends on model, machine and company, so it is measured as it goes.
    """

    def __init__(self, threads: int, ahead: int) -> None:
        """`ahead` is how many tokens a draft may write, 0 without one."""
        self._threads = threads
        self._ahead = ahead
        self._speeds: defaultdict[tuple[int, Way], _Speed] = defaultdict(_Speed)
        """Of each way, by the magnitude of the number of rows."""
        self._bursts = 0

    def possible(self, rows: int) -> list[Way]:
        """Those that differ for so many rows."""
        ways = [Way(False, 0)]
        if self._threads > 1:
            ways.append(Way(True, 0))
        if self._ahead:
            if rows <= self._threads:
                ways.append(Way(False, self._ahead))
            if rows == 1 < self._threads:
                ways.append(Way(True, self._ahead))
        return ways

    def choose(self, rows: int) -> tuple[Way, bool]:
        """The way of the next burst of so many rows, and whether it is on trial: it should not be trusted with much."""
        ways, magnitude = self.possible(rows), rows.bit_length()
        if len(ways) == 1:
            return ways[0], False
        least = min(ways, key=lambda way: self._speeds[magnitude, way].bursts)
        if self._speeds[magnitude, least].bursts < _FIRST_TRIALS:
            return least, True
        ways.sort(key=lambda way: self._speeds[magnitude, way].tokens_per_s)
        self._bursts += 1
        tried, now = divmod(self._bursts, _TRIED_EVERY if self._bursts > _FIRST_BURSTS else _TRIED_EVERY // 5)
        return (ways[-1], False) if now else (ways[tried % (len(ways) - 1)], True)

    def measured(self, rows: int, way: Way, tokens: float, seconds: float) -> None:
        """What a burst made."""
        self._speeds[rows.bit_length(), way].add(tokens, seconds)
