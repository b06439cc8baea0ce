"""Which parts of a text stand verbatim in the training text, and where.

A copied passage is at least PASSAGE characters in a row that stand in the training text in this order. A character is
copied if it is in one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptbox.models.ngram_index import GRAM, PASSAGE, Bytes, Hashes, Ints, NgramIndex, PrefixHashes, Table, is_start

_QUERIES = 1024
"""Positions of the text looked up at once."""
_ROWS = 1 << 13
"""Candidates compared at once: their arrays fit the processor's cache, and Python's lock is not held for long."""
_CELLS = 1 << 18
"""Bytes compared at once."""


@dataclass(frozen=True)
class CopiedSpan:
    """A part of a text, all of it in one copied passage."""

    start: int
    end: int
    """The part is the characters from `start` to `end`."""
    place: int
    """The byte of the training text at which it stands there."""
    num_bytes: int


def find_copied(index: NgramIndex, text: str) -> list[CopiedSpan]:
    """The copied characters of a text of at most 64 KiB in UTF-8, as disjoint spans in order.

    Each span goes to the end of the copied passage that reaches furthest from its first character on, and the next one
    begins there if passages overlap; so it may be shorter than a passage. Of several places in the training text, it is
    the first one that the index has. Raises ValueError or IndexError if the index is damaged.
    """
    content = np.frombuffer(text.encode("utf-8"), np.uint8)
    bounds = np.append(np.flatnonzero(is_start(content)), len(content))
    reach = _Reach(len(bounds))
    if len(bounds) > PASSAGE:
        hashes = PrefixHashes(content)
        for table, length in ((index.grams, GRAM), (index.windows, PASSAGE)):
            keys = hashes.between(bounds[:-length], bounds[length:]) >> np.uint64(32)
            for first in range(0, len(keys), _QUERIES):
                _find(index, table, content, bounds, keys[first : first + _QUERIES], first, length, reach)
    return reach.spans(bounds)


class _Reach:
    """The copied passages found so far: of those that begin at a character, the longest."""

    def __init__(self, num_bounds: int) -> None:
        self.ends = np.zeros(num_bounds, np.int64)
        """The character at which the passage ends, by its first character; 0 if none begins there."""
        self.places = np.zeros(num_bounds, np.int64)

    def add(self, starts: Ints, ends: Ints, places: Ints) -> None:
        order = np.lexsort((places, -ends, starts))
        starts, ends, places = starts[order], ends[order], places[order]
        first = np.flatnonzero(np.append(True, starts[1:] != starts[:-1]))[: len(starts)]
        starts, ends, places = starts[first], ends[first], places[first]
        known = self.ends[starts]
        better = (ends > known) | ((ends == known) & (places < self.places[starts]))
        self.ends[starts[better]], self.places[starts[better]] = ends[better], places[better]

    def spans(self, bounds: Ints) -> list[CopiedSpan]:
        found: list[CopiedSpan] = []
        starts = np.flatnonzero(self.ends).tolist()
        offset = bounds.tolist()
        position = best_end = best_shift = following = 0
        while True:
            while following < len(starts) and starts[following] <= position:
                start = starts[following]
                end, shift = int(self.ends[start]), int(self.places[start]) - offset[start]
                if end > best_end or (end == best_end and shift < best_shift):
                    best_end, best_shift = end, shift
                following += 1
            if best_end > position:
                begin, size = offset[position], offset[best_end] - offset[position]
                found.append(CopiedSpan(position, best_end, best_shift + begin, size))
                position = best_end
            elif following < len(starts):
                position = starts[following]
            else:
                return found


def _find(
    index: NgramIndex, table: Table, content: Bytes, bounds: Ints, keys: Hashes, first: int, length: int, reach: _Reach
) -> None:
    """Add the copied passages that contain `length` characters whose hashes are `keys`, from the character `first`."""
    which, places = table.find(keys)
    begins, ends = bounds[which + first], bounds[which + first + length]
    same = _are_equal(index.text, content, begins, ends, places)
    begins, ends, places = begins[same], ends[same], places[same]
    if not len(begins):
        return
    # Matches of the same passage are on one diagonal, and overlap: they are extended once.
    diagonals = places - begins
    order = np.lexsort((begins, diagonals))
    begins, ends, diagonals = begins[order], ends[order], diagonals[order]
    is_new = np.append(True, (diagonals[1:] != diagonals[:-1]) | (begins[1:] > ends[:-1]))
    groups = np.flatnonzero(is_new)
    begins, ends, diagonals = begins[groups], np.maximum.reduceat(ends, groups), diagonals[groups]
    begins -= _common_length(index.text, content, begins - 1, begins - 1 + diagonals, -1)
    ends += _common_length(index.text, content, ends, ends + diagonals, 1)
    # A match may end within a character.
    starts, stops = np.searchsorted(bounds, begins), np.searchsorted(bounds, ends, "right") - 1
    long = stops - starts >= PASSAGE
    starts, stops, diagonals = starts[long], stops[long], diagonals[long]
    reach.add(starts, stops, bounds[starts] + diagonals)


def _are_equal(text: Bytes, content: Bytes, begins: Ints, ends: Ints, places: Ints) -> NDArray[np.bool_]:
    """Whether the bytes from begins[i] to ends[i] of `content` are those of `text` from places[i] on, shape (n,)."""
    sizes = ends - begins
    equal = places + sizes <= len(text)
    for row in range(0, len(begins), _ROWS):
        rows = slice(row, row + _ROWS)
        columns = np.arange(int(sizes[rows].max()))
        ours = content.take(begins[rows, None] + columns, mode="clip")
        theirs = text.take(places[rows, None] + columns, mode="clip")
        equal[rows] &= ((ours == theirs) | (columns >= sizes[rows, None])).all(axis=1)
    return equal


def _common_length(text: Bytes, content: Bytes, positions: Ints, places: Ints, step: int) -> Ints:
    """How many bytes of `content` from positions[i] on are those of `text` from places[i] on, shape (n,).

    `step` is 1, or -1 for backwards.
    """
    backwards, forwards = (positions + 1, places + 1), (len(content) - positions, len(text) - places)
    limits = np.minimum(*(forwards if step > 0 else backwards))
    lengths = np.zeros(len(positions), np.int64)
    for row in range(0, len(positions), _ROWS):
        rows = np.arange(row, min(row + _ROWS, len(positions)))
        width = 8
        while len(rows):
            columns = np.arange(width)
            done = lengths[rows, None] + columns
            ours = content.take(positions[rows, None] + step * done, mode="clip")
            theirs = text.take(places[rows, None] + step * done, mode="clip")
            differ = (ours != theirs) | (done >= limits[rows, None])
            same = np.where(differ.any(axis=1), differ.argmax(axis=1), width)
            lengths[rows] += same
            rows = rows[same == width]
            width = min(2 * width, max(width, _CELLS // max(1, len(rows))))
    return lengths
