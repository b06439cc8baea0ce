"""Winnowing: a text's windows, in runs that have the same smallest hash of a k-gram.

Saul Schleimer, Daniel Wilkerson, Alex Aiken: Winnowing: local algorithms for document fingerprinting. SIGMOD 2003.
"""

import mmap
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.datasets.record_store import RecordStore
from gptbox.system.arrays import Ints, group_begins, ranges

Hashes = NDArray[np.uint64]
Symbols = NDArray[np.unsignedinteger[Any]]


_CHUNK = 1 << 15
"""Windows hashed at once: their arrays fit the processor's cache."""
_PART = 1 << 26
"""Windows whose segments are kept in memory, one in about 70, of 32 bytes; those of longer texts go to the disk."""
_SEGMENT = np.dtype([("start", np.int64), ("size", np.int64), ("minimum", np.uint64), ("content", np.uint64)])
Segments = NDArray[np.void]
"""Runs of `size` windows, at most `length`, from `start` on, that have the same minimum, ordered by `start`.

`content` is a hash of all symbols of these windows.
"""


@dataclass(frozen=True)
class SymbolFile:
    """A text as a file of symbols: small integers, one for each character."""

    file: BinaryIO
    """On the disk, open for reading and writing, and flushed; `find_repeats` appends to it."""
    dtype: np.dtype[np.unsignedinteger]
    num_symbols: int
    num_train: int
    """The first `num_train` symbols are the training split, the others the validation split."""

    def read(self, start: int, end: int) -> Symbols:
        """The symbols from `start` to `end`, shape (end - start,), or fewer at the end of the text. Raises OSError."""
        size = self.dtype.itemsize
        self.file.seek(start * size)
        return np.frombuffer(self.file.read((min(end, self.num_symbols) - start) * size), self.dtype)

    def gather(self, start: Ints, size: Ints) -> Symbols:
        """The symbols from start[i] to start[i] + size[i] for each i, concatenated. Raises OSError."""
        symbols: Symbols = np.frombuffer(self._map, self.dtype)[ranges(start, size)]
        self._map.madvise(mmap.MADV_DONTNEED)  # pages of it in memory would count as this process's
        return symbols

    @cached_property
    def _map(self) -> mmap.mmap:
        return mmap.mmap(self.file.fileno(), self.num_symbols * self.dtype.itemsize, access=mmap.ACCESS_READ)


class WindowHash:
    """Hashes of the windows of `length` symbols, and their minima over the k-grams in them."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.k = 1 << (length.bit_length() - 2)  # 2 k <= length < 4 k
        bits = np.random.PCG64(20030609)  # its raw bits are the same in all versions of NumPy
        self._bits = bits
        self._factors = np.array(bits.random_raw(64) | np.uint64(1), np.uint64)
        self._table: Hashes = np.empty(0, np.uint64)

    def reserve(self, num_symbols: int) -> None:
        """Make hashes for the symbols below `num_symbols`."""
        self._table = np.array(self._bits.random_raw(num_symbols), np.uint64)

    def grams(self, symbols: Symbols) -> Hashes:
        """The hashes of the k-grams of n symbols, shape (n - k + 1,)."""
        hashes: Hashes = self._table[symbols]
        size = 1
        while size < self.k:
            hashes = self._join(hashes, size, size)
            size *= 2
        return hashes

    def windows(self, grams: Hashes) -> Hashes:
        """The hashes of the windows, shape (n - length + 1,), from those of the k-grams."""
        doubled = self._join(grams, self.k, 2 * self.k)
        return self._join(doubled, self.length - 2 * self.k, 0)

    def minima(self, grams: Hashes) -> Hashes:
        """The smallest hash of a k-gram in each window, shape (n - length + 1,)."""
        width, size = self.length - self.k + 1, 1
        while 2 * size <= width:
            grams = np.minimum(grams[:-size], grams[size:])
            size *= 2
        return np.minimum(grams[: len(grams) - (width - size)], grams[width - size :])

    def _join(self, hashes: Hashes, distance: int, which: int) -> Hashes:
        """The hash of each position with the one `distance` further on; `which` selects the factor."""
        joined: Hashes = hashes[: len(hashes) - distance] * self._factors[which.bit_length()]
        joined += hashes[distance:]
        joined ^= joined >> np.uint64(29)
        return joined


def winnow(
    text: SymbolFile, window: WindowHash, on_progress: ProgressCallback = no_progress, operation: str = ""
) -> RecordStore:
    """The segments of all windows, in order, and in parts by their minimum.

    The windows of a segment all lie in the training split, in the validation split, or across the cut.
    Raises OSError if the file cannot be read or written.
    """
    num_windows = max(0, text.num_symbols - window.length + 1)
    window.reserve(1 << min(21, 8 * text.dtype.itemsize) if num_windows else 0)
    store = RecordStore(text.file, -(-num_windows // _PART), "minimum")
    cuts = [0, text.num_train - window.length + 1, text.num_train, num_windows]
    for begin, end in pairwise(sorted(min(max(cut, 0), num_windows) for cut in cuts)):
        for start in range(begin, end, _CHUNK):
            on_progress(operation, start, num_windows)
            store.add(_segments(text, window, start, min(start + _CHUNK, end)))
    return store


def _segments(text: SymbolFile, window: WindowHash, start: int, end: int) -> Segments:
    """The segments of the windows from `start` to `end`."""
    length = window.length
    grams = window.grams(text.read(start, end + length - 1))
    minima, hashes = window.minima(grams), window.windows(grams)
    first = group_begins(minima)
    size = np.diff(first, append=len(minima))
    if size.max() > length:  # as in periodic text: cut into pieces
        pieces = -(-size // length)
        offset = ranges(np.zeros(len(pieces), np.int64), pieces) * length
        first, size = np.repeat(first, pieces) + offset, np.minimum(np.repeat(size, pieces) - offset, length)
    content = (hashes[first] * np.uint64(0x9E3779B97F4A7C15) ^ hashes[first + size - 1]) * np.uint64(0xC2B2AE3D27D4EB4F)
    content ^= content >> np.uint64(31)
    content += size.astype(np.uint64)
    segments = np.empty(len(first), _SEGMENT)
    segments["start"], segments["size"] = first + start, size
    segments["minimum"], segments["content"] = minima[first], content
    return segments
