"""JSON Lines (https://jsonlines.org): one JSON object a line, whose field `text` is a document."""

import json
from collections.abc import Iterable, Iterator

from gptbox.errors import DatasetError

FIELD = "text"

MAX_LINE = 1 << 24
"""Longest line in characters, which is in memory as a whole."""
_MAX_FIELDS = 5  # named in an error


def texts(blocks: Iterable[str], label: str) -> Iterator[tuple[int, str]]:
    """The number of each line, from 1, and its text; blank lines are passed over.

    `blocks` are those of the file, `label` is its path. Raises DatasetError, which names file and line, for a line that
    is not a JSON object with a text.
    """
    for number, line in enumerate(_lines(blocks, label), 1):
        if line and not line.isspace():
            yield number, _text(line, f"{label}, line {number:,}")


def _lines(blocks: Iterable[str], label: str) -> Iterator[str]:
    """The lines, without their ends. Only LF ends a line: U+2028 and others may stand in a text."""
    begun: list[str] = []
    length = number = 0
    for block in blocks:
        first, *others = block.split("\n")
        for line in others:
            yield "".join((*begun, first))
            number += 1
            begun, first, length = [], line, 0
        begun.append(first)
        length += len(first)
        if length > MAX_LINE:
            raise DatasetError(
                f"{label}, line {number + 1:,}, is longer than {MAX_LINE:,} characters. Divide its text into several."
            )
    yield "".join(begun)


def _text(line: str, place: str) -> str:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        problem = f"not valid JSON ({error.msg}, at column {error.colno:,})"
    except (ValueError, RecursionError):  # a number of thousands of digits, or brackets as deep
        problem = "not JSON that can be read"
    else:
        if not isinstance(content, dict):
            problem = "not a JSON object"
        elif FIELD not in content:
            fields = [ascii(name) for name in content]
            more = ", ..." if len(fields) > _MAX_FIELDS else ""
            problem = f"without a field {FIELD!r}; it has {', '.join(fields[:_MAX_FIELDS]) or 'none'}{more}"
        elif not isinstance(content[FIELD], str):
            problem = f"without a text: its field {FIELD!r} is not a string"
        else:
            text: str = content[FIELD]
            if text.isascii() or _is_unicode(text):
                return text
            problem = f"without a valid text: its field {FIELD!r} has half of a surrogate pair"
    raise DatasetError(f"{place}, is {problem}. Correct the line or delete it.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
