"""Which parts of a text stand verbatim in the training text, and where.

A copied passage is at least PASSAGE characters in a row that stand in the training text in this order. A character is
copied if it is in one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptbox.models.ngram_index import GRAM, PASSAGE, Bytes, NgramIndex, PrefixHashes, Table, is_start
from gptbox.system.arrays import Ints, group_begins

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
    begins there if passages overlap; so it may be shorter than a passage. Of several places in the training text, it
    has the first, but within a long passage perhaps another. Raises ValueError or IndexError if the index is damaged.
    """
    finder = _Finder(index, text)
    finder.find(index.grams, GRAM)
    finder.find(index.windows, PASSAGE)
    return finder.reach.spans(finder.bounds)


class _Reach:
    """The longest copied passage found so far at each start character."""

    def __init__(self, num_bounds: int) -> None:
        self.ends = np.zeros(num_bounds, np.int64)
        """The character at which the passage ends, by its first character; 0 if none begins there."""
        self.places = np.zeros(num_bounds, np.int64)

    def add(self, starts: Ints, ends: Ints, places: Ints) -> None:
        order = np.lexsort((places, -ends, starts))
        starts, ends, places = starts[order], ends[order], places[order]
        first = group_begins(starts)
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


class _Finder:
    """Finds copied passages.

    A match of bytes is at the positions from `begin` to `end` of the text, and on a diagonal: the difference between
    its place in the training text and its position. All matches of a passage with one place are on one diagonal.
    """

    def __init__(self, index: NgramIndex, text: str) -> None:
        self._theirs, self._ours = index.text, np.frombuffer(text.encode("utf-8"), np.uint8)
        self.bounds = np.append(np.flatnonzero(is_start(self._ours)), len(self._ours))
        """Where each character of the text begins, and its end."""
        self.reach = _Reach(len(self.bounds))
        self._hashes = PrefixHashes(self._ours)

    def find(self, table: Table, length: int) -> None:
        """Find the passages that contain `length` characters which the table has."""
        if len(self.bounds) <= PASSAGE:
            return
        keys = self._hashes.between(self.bounds[:-length], self.bounds[length:]) >> np.uint64(32)
        # The matches that go on beyond the positions looked up so far, by diagonal.
        diagonals, ends = np.empty(0, np.int64), np.empty(0, np.int64)
        for first in range(0, len(keys), _QUERIES):
            which, places = table.find(keys[first : first + _QUERIES])
            begins = self.bounds[which + first]
            if len(diagonals):
                nearest = np.minimum(np.searchsorted(diagonals, places - begins), len(diagonals) - 1)
                new = (diagonals[nearest] != places - begins) | (begins >= ends[nearest])
                new &= self._may_reach_beyond(int(ends.max()), begins, self.bounds[which + first + length], places)
                which, places, begins = which[new], places[new], begins[new]
            found = self._extend(begins, self.bounds[which + first + length], places)
            diagonals, ends = np.append(diagonals, found[0]), np.append(ends, found[1])
            go_on = ends > self.bounds[min(first + _QUERIES, len(keys))]
            order = np.argsort(diagonals[go_on])
            diagonals, ends = diagonals[go_on][order], ends[go_on][order]

    def _may_reach_beyond(self, end: int, begins: Ints, ends: Ints, places: Ints) -> NDArray[np.bool_]:
        """Whether matches may go on beyond `end`, up to which the text is copied: otherwise they add nothing.

        In a text of one repeated passage, each position begins a match as long as the rest of the text.
        """
        if end == len(self._ours):
            return ends > end
        inside = ends <= end
        last = np.full(int(np.count_nonzero(inside)), end)
        reach = np.full(len(begins), True)
        reach[inside] = _are_equal(self._theirs, self._ours, last - 8, last + 1, (places - begins)[inside] + last - 8)
        return reach

    def _extend(self, begins: Ints, ends: Ints, places: Ints) -> tuple[Ints, Ints]:
        """Add the passages around these bytes where they are the same; returns their diagonals and ends."""
        same = _are_equal(self._theirs, self._ours, begins, ends, places)
        begins, ends, diagonals = begins[same], ends[same], (places - begins)[same]
        if not len(begins):
            return diagonals, ends
        # Those on one diagonal that overlap are extended once.
        order = np.lexsort((begins, diagonals))
        begins, ends, diagonals = begins[order], ends[order], diagonals[order]
        is_first = np.append(True, (diagonals[1:] != diagonals[:-1]) | (begins[1:] > ends[:-1]))
        groups = np.flatnonzero(is_first)
        begins, ends, diagonals = begins[groups], np.maximum.reduceat(ends, groups), diagonals[groups]
        begins = begins - _common_length(self._theirs, self._ours, begins - 1, begins - 1 + diagonals, -1)
        ends = ends + _common_length(self._theirs, self._ours, ends, ends + diagonals, 1)
        # A match may end within a character.
        starts, stops = np.searchsorted(self.bounds, begins), np.searchsorted(self.bounds, ends, "right") - 1
        long = stops - starts >= PASSAGE
        self.reach.add(starts[long], stops[long], (self.bounds[starts] + diagonals)[long])
        return diagonals[long], ends[long]


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
