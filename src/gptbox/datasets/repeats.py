"""Passages that stand in a text twice: all of them, whatever the length of the text, in 100 MB of memory.

A passage is a window of `length` symbols. A copy is a window that equals an earlier one, which ends before it begins.
They are found in three steps, of which only the first looks at every window:

1. Winnowing: of the hashes of the k-grams in a window, the smallest is taken. Equal windows have equal minima.
   Consecutive windows mostly share theirs, so that only runs of windows with the same minimum are kept, the segments:
   one for about 70 windows of 200 symbols. Copies can only be in segments whose minimum is that of another one, too.
2. Of segments with the same content, the first stands for all. The content is hashed as the first and the last window,
   which together cover it, because a segment has at most `length` windows.
3. The windows of the remaining segments are compared with each other.

Windows are compared by 64-bit hashes. The probability that a text of n symbols has any false copy is about n² / 2^65:
0.0003 for 100 million symbols.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.datasets.record_store import Records, RecordStore
from gptbox.datasets.winnowing import Hashes, Segments, SymbolFile, WindowHash, winnow
from gptbox.system.arrays import Ints, group_begins, ranges

_PIECE = 1 << 15
"""Symbols hashed at once: their arrays fit the processor's cache."""
_BATCH = 1 << 20
"""Windows compared at once; takes 60 MB."""
_SWEEP = 1 << 25
"""Windows kept on the disk at once, in 16 bytes each, if that many have the same minimum."""
_WINDOW = np.dtype([("hash", np.uint64), ("position", np.int64)])
_NONE = np.iinfo(np.int64).max


class Copy(NamedTuple):
    """A passage and its copy, in symbols from the beginning of the text."""

    earlier: int
    later: int
    length: int


@dataclass
class Repeats:
    """What `find_repeats` found, in symbols."""

    copied: int = 0
    """Symbols in copies of earlier passages."""
    val_in_train: int = 0
    """Symbols of the validation split in copies of passages of the training split."""
    first: Copy | None = None
    """The copy that begins first, with an earlier passage that it equals."""


def find_repeats(
    text: SymbolFile, length: int, on_progress: ProgressCallback = no_progress, name: str = "the text"
) -> Repeats:
    """The copies of at least `length` symbols (2 or more). `name` is that of the text, for reports of progress.

    Raises OSError if the file cannot be read or written.
    """
    finder = _Finder(text, WindowHash(length), on_progress, name)
    finder.find()
    copied, leaked = finder.copied.intervals, finder.leaked.intervals
    first = None
    if finder.first is not None:
        earlier, later = finder.first
        first = Copy(earlier, later, _common_length(text, earlier, later))
    return Repeats(int((copied[:, 1] - copied[:, 0]).sum()), int((leaked[:, 1] - leaked[:, 0]).sum()), first)


def _common_length(text: SymbolFile, earlier: int, later: int) -> int:
    """Number of equal symbols from the two positions on, up to the distance between the two."""
    same = 0
    while same < later - earlier:
        step = min(1 << 16, later - earlier - same)
        a, b = text.read(earlier + same, earlier + same + step), text.read(later + same, later + same + step)
        different = np.flatnonzero(a[: len(b)] != b)
        if len(different):
            return same + int(different[0])
        same += len(b)
        if len(b) < step:
            break
    return same


@dataclass
class _Coverage:
    """A union of intervals of symbols."""

    intervals: Ints = field(default_factory=lambda: np.empty((0, 2), np.int64))
    """Disjoint, sorted: [start, end), shape (n, 2)."""

    def add(self, starts: Ints, ends: Ints) -> None:
        starts, ends = (np.concatenate([old, new]) for old, new in zip(self.intervals.T, (starts, ends), strict=True))
        if not len(starts):
            return
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], np.maximum.accumulate(ends[order])
        begins = np.flatnonzero(np.concatenate([[True], starts[1:] > ends[:-1]]))
        last = np.append(begins[1:], len(ends)) - 1
        self.intervals = np.stack([starts[begins], ends[last]], 1)


def _with_repeated_minimum(segments: Segments) -> Segments:
    """The segments whose minimum is also that of another one."""
    minimum = segments["minimum"]
    ordered = np.sort(minimum)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return segments[_is_in(minimum, repeated)]


class _Finder:
    """One search: `copied`, `leaked` and `first` are its result."""

    def __init__(self, text: SymbolFile, window: WindowHash, on_progress: ProgressCallback, name: str) -> None:
        self.text, self.window, self.on_progress, self.name = text, window, on_progress, name
        self.length = window.length
        self.copied, self.leaked = _Coverage(), _Coverage()
        self.first: tuple[int, int] | None = None
        """The first copy: a window that it equals, and its own."""

    def find(self) -> None:
        store = winnow(self.text, self.window, self.on_progress, f"Looking for repeated passages in {self.name}")
        for part in range(store.parts):
            segments = _with_repeated_minimum(store.take(part))
            if len(segments):
                self._find_copies(segments)

    # Step 2

    def _find_copies(self, segments: Segments) -> None:
        """Add what is copied in segments, which are in order."""
        start, size = segments["start"], segments["size"]
        order = np.argsort(segments["content"], kind="stable")
        begins = group_begins(segments["content"][order])
        original = np.empty(len(start), np.int64)
        original[order] = np.repeat(order[begins], np.diff(begins, append=len(order)))
        # Otherwise the two overlap, and the later one is examined as a segment of its own.
        is_copy = start[original] + self.length <= start
        in_train = start[original] <= self.text.num_train - self.length
        copied, leaked = (np.tile(np.array([_NONE, -1]), (len(start), 1)) for _ in range(2))
        self._compare(segments, np.flatnonzero(~is_copy), copied, leaked)
        whole = np.stack([np.zeros_like(size), size - 1], 1)
        copied[is_copy] = whole[is_copy]
        leaked[is_copy] = np.where(in_train[:, None], whole, leaked[original])[is_copy]
        if is_copy.any():
            later = int(np.argmax(is_copy))
            self._offer_first(int(start[original[later]]), int(start[later]))
        leaked[start < self.text.num_train] = _NONE, -1
        for coverage, windows in ((self.copied, copied), (self.leaked, leaked)):
            some = windows[:, 1] >= 0
            coverage.add(start[some] + windows[some, 0], start[some] + windows[some, 1] + self.length)

    def _offer_first(self, earlier: int, later: int) -> None:
        if self.first is None or later < self.first[1]:
            self.first = earlier, later

    # Step 3

    def _compare(self, segments: Segments, which: Ints, copied: Ints, leaked: Ints) -> None:
        """Compare the windows of the segments `which`.

        Sets, for each of them that has copies, the first and the last window that is one: rows of `copied`, and rows of
        `leaked` for copies of windows in the training split.
        """
        which = which[np.argsort(segments["minimum"][which], kind="stable")]
        begins = group_begins(segments["minimum"][which])
        counts = np.diff(begins, append=len(which))
        which = which[np.repeat(counts > 1, counts)]  # a single segment has no two windows that do not overlap
        if not len(which):
            return
        begins = group_begins(segments["minimum"][which])
        windows = np.add.reduceat(segments["size"][which], begins)
        ends = np.append(begins[1:], len(which))
        group = 0
        while group < len(begins):
            total = np.cumsum(windows[group : group + _BATCH])
            stop = group + max(1, int(np.searchsorted(total, _BATCH, "right")))
            batch = np.sort(which[begins[group] : ends[stop - 1]])
            num_windows = int(total[stop - group - 1])  # more than _BATCH if a single minimum has many windows
            sweeps = -(-num_windows // _SWEEP)
            for sweep in range(sweeps):
                self.on_progress(f"Comparing passages of {self.name}", group, len(begins))
                store = RecordStore(self.text.file, -(-num_windows // sweeps // _BATCH), "hash")
                self._store_windows(store, segments, batch, sweep, sweeps)
                for part in range(store.parts):
                    self._compare_windows(segments, store.take(part), copied, leaked)
                store.close()
            group = stop

    def _store_windows(self, store: RecordStore, segments: Segments, batch: Ints, sweep: int, sweeps: int) -> None:
        """Store the windows of the segments `batch` whose hash belongs to this sweep, one of `sweeps`."""
        for some in np.array_split(batch, -(-len(batch) // (_PIECE // self.length + 1))):
            start, size = segments["start"][some], segments["size"][some]
            windows = np.empty(size.sum(), _WINDOW)
            windows["hash"], windows["position"] = self._window_hashes(start, size), ranges(start, size)
            if sweeps > 1:
                windows = windows[windows["hash"] % np.uint64(sweeps) == sweep]
            store.add(windows)

    def _compare_windows(self, segments: Segments, windows: Records, copied: Ints, leaked: Ints) -> None:
        """As `_compare`, for windows among which are all that equal one of them."""
        if not len(windows):
            return
        hashes, position = np.ascontiguousarray(windows["hash"]), windows["position"]
        order = np.argsort(hashes)
        begins = group_begins(hashes[order])
        first = np.minimum.reduceat(position[order], begins)
        earliest: Ints = np.empty_like(position)
        earliest[order] = np.repeat(first, np.diff(begins, append=len(order)))
        is_copy = earliest + self.length <= position
        in_train = (earliest + self.length <= self.text.num_train) & (earliest < position)
        for found, rows in ((is_copy, copied), (in_train, leaked)):
            segment = np.searchsorted(segments["start"], position[found], "right") - 1
            offset = position[found] - segments["start"][segment]
            np.minimum.at(rows[:, 0], segment, offset)
            np.maximum.at(rows[:, 1], segment, offset)
        if is_copy.any():
            later = int(np.argmin(np.where(is_copy, position, _NONE)))
            self._offer_first(int(earliest[later]), int(position[later]))

    def _window_hashes(self, start: Ints, size: Ints) -> Hashes:
        """The hashes of the windows of segments, which are in order."""
        extent = size + self.length - 1
        hashes = self.window.windows(self.window.grams(self.text.gather(start, extent)))
        return hashes[ranges(np.cumsum(extent) - extent, size)]


def _is_in(values: Hashes, ordered: Hashes) -> NDArray[np.bool_]:
    """Which values are among the ordered ones."""
    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    index = np.searchsorted(ordered, values)
    index[index == len(ordered)] = 0
    return np.asarray(ordered[index] == values)
