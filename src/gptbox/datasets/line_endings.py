"""Line endings: LF is the only one in a corpus."""

from collections.abc import Iterable, Iterator


class LineEndings:
    """Replaces CR LF and lone CR by LF, and counts them."""

    def __init__(self) -> None:
        self._num_crlf = self._num_cr = 0

    def normalise(self, blocks: Iterable[str]) -> Iterator[str]:
        """The same text with LF as the only line ending."""
        pending = ""  # a CR at the end of a block, whose LF may begin the next one
        for block in blocks:
            text = pending + block
            pending = "\r" if text.endswith("\r") else ""
            yield self._to_lf(text.removesuffix("\r"))
        yield self._to_lf(pending)

    def _to_lf(self, text: str) -> str:
        if "\r" not in text:
            return text
        num_crlf = text.count("\r\n")
        text = text.replace("\r\n", "\n")
        self._num_crlf += num_crlf
        self._num_cr += text.count("\r")
        return text.replace("\r", "\n")

    def notes(self, name: str) -> list[str]:
        """A sentence for each kind of line ending that was replaced in the text `name`."""
        notes = []
        if self._num_crlf:
            notes.append(f"{name}: {self._num_crlf:,} Windows line endings (CR LF) became LF.")
        if self._num_cr:
            notes.append(f"{name}: {self._num_cr:,} lone carriage returns (CR) became LF.")
        return notes
