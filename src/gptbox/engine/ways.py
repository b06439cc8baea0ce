"""How the work of a burst is done: the ways there are, and which of them is the fastest here and now."""

from typing import NamedTuple

_TRIED_EVERY = 50
"""Bursts between two trials of a way that was slower."""


class Way(NamedTuple):
    """How threads share a burst, and whether its lone text is written ahead."""

    products: bool
    """Whether threads share each product; else each takes rows of its own."""
    ahead: int
    """Tokens that a draft writes before the model reads them; of rows that are their thread's only one."""


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
        self._speeds: dict[int, dict[Way, float]] = {}
        """Tokens a second of each way, by the magnitude of the number of rows."""
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

    def choose(self, rows: int) -> Way:
        """The way of the next burst of so many rows."""
        ways, speeds = self.possible(rows), self._speeds.setdefault(rows.bit_length(), {})
        for way in ways:
            if way not in speeds:
                return way
        ways.sort(key=speeds.__getitem__)
        self._bursts += 1
        tried, now = divmod(self._bursts, _TRIED_EVERY)
        return ways[-1] if now or len(ways) == 1 else ways[tried % (len(ways) - 1)]

    def measured(self, rows: int, way: Way, tokens_per_s: float) -> None:
        """What a burst of single tokens made."""
        speeds = self._speeds.setdefault(rows.bit_length(), {})
        speeds[way] = speeds.get(way, tokens_per_s) * 0.7 + tokens_per_s * 0.3
