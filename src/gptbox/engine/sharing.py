"""How threads share the work of a step."""

_TRIED_EVERY = 50
"""Bursts between two trials of the way that was the slower one."""


class Sharing:
    """How threads share a burst: each takes rows of its own, or all of them each product (`products`).

    Rows need no meeting and get along with other work on the machine. Products make a lone sequence faster, for each
    core then reads half the weights, which for a small model means from its own cache; but threads meet often, and wait
    for one that the machine has put aside. Which is faster is not known beforehand, so it is measured as it goes.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._speeds: dict[int, list[float | None]] = {}
        """Tokens a second of either way, by the magnitude of the number of rows."""
        self._bursts = 0

    def products(self, rows: int) -> bool:
        """Whether the next burst of so many rows should share products."""
        if self._threads == 1:
            return False
        by_rows, by_products = self._speeds.setdefault(rows.bit_length(), [None, None])
        if by_rows is None or by_products is None:
            return by_rows is not None
        self._bursts += 1
        return (by_products > by_rows) != (self._bursts % _TRIED_EVERY == 0)

    def measured(self, rows: int, products: bool, tokens_per_s: float) -> None:
        """What a burst of single tokens made."""
        speeds = self._speeds.setdefault(rows.bit_length(), [None, None])
        former = speeds[products]
        speeds[products] = tokens_per_s if former is None else former + 0.3 * (tokens_per_s - former)
