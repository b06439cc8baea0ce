"""Ending a text at a stop string, wherever it lies across token boundaries."""

from collections.abc import Sequence


class StopStrings:
    """A filter between decoder and client: no part of a stop string passes."""

    def __init__(self, stops: Sequence[str]) -> None:
        """`stops`: any number of non-empty strings."""
        self._stops = tuple(stops)
        self._held = ""
        self._num_excluded = 0
        """Leading characters of the held text in which no match may end."""
        self.matched: str | None = None
        """The stop string that was found; from then on nothing passes."""

    def __bool__(self) -> bool:
        """Whether there are any stop strings."""
        return bool(self._stops)

    def push(self, text: str, may_end: bool = True) -> str:
        """Add text and return what may be sent. A suffix that could begin a stop string is held back.

        Without `may_end`, a stop string that ends in this text is ignored.
        """
        if not self._stops:
            return text
        if self.matched:
            return ""
        self._held += text
        if not may_end:
            self._num_excluded = len(self._held)
        starts = [(self._held.find(stop, max(0, self._num_excluded + 1 - len(stop))), stop) for stop in self._stops]
        # The match that ends first counts, so that the result does not depend on how the text was split.
        matches = [(start + len(stop), start, stop) for start, stop in starts if start >= 0]
        if matches:
            _, start, self.matched = min(matches)
            passed, self._held = self._held[:start], ""
            return passed
        held = max(self._partial_match_length(stop) for stop in self._stops)
        passed, self._held = self._held[: len(self._held) - held], self._held[len(self._held) - held :]
        self._num_excluded = max(0, self._num_excluded - len(passed))
        return passed

    def flush(self) -> str:
        """The text still held back, at the end."""
        rest, self._held = self._held, ""
        return rest

    def _partial_match_length(self, stop: str) -> int:
        """The length of the longest suffix of the held text that is a proper prefix of `stop`."""
        longest = min(len(self._held), len(stop) - 1)
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)
