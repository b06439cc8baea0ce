"""One line of what a model writes, short enough to stand in a list."""

import unicodedata
from collections.abc import Sequence
from itertools import takewhile

from gptbox.tokenizers import Tokenizer

MAX_CHARACTERS = 80
MIN_CHARACTERS = 20
"""A shorter line, such as a speaker's name, is only taken if none of this length is read."""
MAX_TOKENS = 160
"""Tokens read at most."""


class LineReader:
    """Reads the tokens that follow a line break, until it has a line."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._decoder, self._eos_id = tokenizer.stream_decoder(prompt), tokenizer.eos_id
        self._text = ""

    def push(self, token: int) -> bool:
        """Read a token; returns whether no more is needed. An end of text ends a line, too."""
        self._text += "\n" if token == self._eos_id else self._decoder.push((token,))
        *lines, rest = self._lines()
        return len(rest) > MAX_CHARACTERS or any(len(line) >= MIN_CHARACTERS for line in lines)

    def _lines(self) -> list[str]:
        """The lines so far, without white space around them; the last one has not ended."""
        return [line.strip() for line in self._text.split("\n")]

    @property
    def line(self) -> str | None:
        """The first whole line of at least MIN_CHARACTERS, else the longest; None if there is only white space.

        If there is no whole one, or if it has more than MAX_CHARACTERS: the beginning of a line, see `shorten`.
        """
        *lines, rest = self._lines()
        if len(rest) > MAX_CHARACTERS or not any(lines):
            lines.append(shorten(rest))
        long = (line for line in lines if len(line) >= MIN_CHARACTERS)
        line = next(long, None) or max(lines, key=len)
        return (line if len(line) <= MAX_CHARACTERS else shorten(line)) or None


def shorten(text: str) -> str:
    """The beginning of a text, at most MAX_CHARACTERS with a "…" at its end; "" if the text is a single character.

    The last word is left out, because it may be cut off. Without a space in the second half, it is the last character,
    with its marks.
    """
    end = min(len(text), MAX_CHARACTERS) - 1
    space = text.rfind(" ", end // 2, end + 1)
    if space > 0:
        end = space
    else:
        while end > 0 and _is_continued(text, end):
            end -= 1
    return text[:end].rstrip() + "…" if end > 0 else ""


def _is_continued(text: str, i: int) -> bool:
    """Whether readers see the characters before i and at i as one, such as a letter and its mark."""
    return (
        unicodedata.category(text[i]) in ("Mn", "Mc", "Me", "Sk", "Cf")  # marks, skin tones, joiners
        or text[i - 1] == "\N{ZERO WIDTH JOINER}"
        or "\u1160" <= text[i] <= "\u11ff"  # a vowel or final consonant of a Korean syllable
        or (_is_indicator(text[i]) and len([*takewhile(_is_indicator, text[:i][::-1])]) % 2 == 1)
    )


def _is_indicator(character: str) -> bool:
    """Whether a character is half of a flag."""
    return "\U0001f1e6" <= character <= "\U0001f1ff"
