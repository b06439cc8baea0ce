"""How the work of a burst is done: the ways there are, and which of them is the fastest here and now."""

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

_TRIED_EVERY = 50
"""Bursts between two trials of a way that was slower."""
_FIRST_TRIALS = 3
"""Before anything is known of a way. The best of them counts: threads have to wake, and caches to be filled."""


class Way(NamedTuple):
    """How threads share a burst, and whether its lone text is written ahead."""

    products: bool
    """Whether threads share each product; else each takes rows of its own."""
    ahead: int
    """Tokens that a draft writes before the model reads them; of rows that are their thread's only one."""


@dataclass
class _Speed:
    tokens_per_s: float = 0.0
    measured: int = 0

    def add(self, tokens_per_s: float) -> None:
        former = self.tokens_per_s
        self.measured += 1
        if self.measured <= _FIRST_TRIALS:
            self.tokens_per_s = max(former, tokens_per_s)
        elif former / 2 < tokens_per_s < former * 2:
            self.tokens_per_s = 0.7 * former + 0.3 * tokens_per_s
        else:
            self.tokens_per_s = tokens_per_s  # somebody else has begun to use the cores, or has gone


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
        for way in ways:
            if self._speeds[magnitude, way].measured < _FIRST_TRIALS:
                return way, True
        ways.sort(key=lambda way: self._speeds[magnitude, way].tokens_per_s)
        self._bursts += 1
        tried, now = divmod(self._bursts, _TRIED_EVERY)
        return (ways[-1], False) if now or len(ways) == 1 else (ways[tried % (len(ways) - 1)], True)

    def measured(self, rows: int, way: Way, tokens_per_s: float) -> None:
        """What a burst made."""
        self._speeds[rows.bit_length(), way].add(tokens_per_s)
