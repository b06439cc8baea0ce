"""Ending a text at one of the client's stop strings, wherever it lies across the tokens' borders."""

from collections.abc import Sequence


class StopStrings:
    """A filter between the decoder and the client: what it lets through is never part of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        """`stops`: none, or strings of at least one character."""
        self._stops = tuple(stops)
        self._held = ""
        self.matched = False
        """A stop string has come; nothing is let through any more."""

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._stops)

    def push(self, text: str) -> str:
        """The text that is certain now. What could be the beginning of a stop string is held back."""
        if not self._stops:
            return text
        if self.matched:
            return ""
        self._held += text
        found = [(self._held.find(stop), stop) for stop in self._stops]
        # The match that is complete first counts, so that the result does not depend on how the text was cut.
        ends = [(start + len(stop), start) for start, stop in found if start >= 0]
        if ends:
            self.matched = True
            certain, self._held = self._held[: min(ends)[1]], ""
            return certain
        held = max(self._beginning(stop) for stop in self._stops)
        certain, self._held = self._held[: len(self._held) - held], self._held[len(self._held) - held :]
        return certain

    def flush(self) -> str:
        """What was held back, once it is known that nothing follows."""
        rest, self._held = self._held, ""
        return rest

    def _beginning(self, stop: str) -> int:
        """The length of the longest end of the held text which `stop` begins with."""
        longest = min(len(self._held), len(stop) - 1)
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)
