"""Cuts a text into segments that byte-level BPE encodes separately, with the same ids as the whole text."""

import re
from collections.abc import Iterable, Iterator

MAX_SEGMENT = 1 << 18
"""Characters of the longest segment. tiktoken's regular expressions fail on twice as many spaces."""

# Unicode's White_Space, which is \s in the patterns; Python's \s has four control characters more.
_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# Punctuation without the apostrophes.
_PUNCTUATION = ",.;:!?…،؛؟۔।॥་၊။។።、。，！？：；「」『』（）《》"  # noqa: RUF001
_CUT = re.compile(rf"(?<=[^{_SPACE}])(?=[{_SPACE}])|(?<=[^\W_])(?=[{_PUNCTUATION}])")
"""Where a text may be cut: before white space after another character, and before punctuation after a letter or digit.

BPE cuts a text into pieces with a pattern, matched again and again from where the last match ended, and joins bytes
only within a piece. In the patterns of `bpe` and `gpt2`:

- No piece spans a cut. White space is a piece of its own, or the first character of one; and no piece that contains a
  letter or a digit contains one of these punctuation marks behind it, also not the contractions.
- The pieces before a cut do not depend on what follows it: only white space looks ahead, for the end of the text or for
  the next character, and the character before a cut is not white space.
- The pieces after a cut do not depend on what is before it: no pattern looks behind.
"""


def segments(blocks: Iterable[str | None]) -> Iterator[str | None]:
    """The text that is given in blocks, in segments of at most MAX_SEGMENT characters, wherever the blocks end.

    Segments end at a cut. A text that has none in MAX_SEGMENT characters, such as a longer run of spaces or letters, is
    cut there all the same. None ends a document and the last segment of its text, and is passed on.
    """
    parts: list[str] = []
    size = 0
    for block in blocks:
        if block is None:
            if size:
                yield "".join(parts)
            parts, size = [], 0
            yield None
            continue
        parts.append(block)
        size += len(block)
        # One character more than a segment shows whether there is a cut at its end.
        if size > MAX_SEGMENT:
            text, start = "".join(parts), 0
            while len(text) - start > MAX_SEGMENT:
                end = _last_cut(text, start)
                yield text[start:end]
                start = end
            parts = [text[start:]]
            size = len(parts[0])
    if size:
        yield "".join(parts)


def _last_cut(text: str, start: int) -> int:
    """The end of the segment that starts at `start`; the text is longer than the segment."""
    end = start + MAX_SEGMENT
    reach = 256
    while True:
        first = max(start + 1, end - reach)
        cut = None
        for cut in _CUT.finditer(text, first, end + 1):  # noqa: B007  (the last one is used)
            pass
        if cut is not None:
            return cut.start()
        if first == start + 1:
            return end
        reach *= 16
