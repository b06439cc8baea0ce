"""Writes the index of a training text, models/ngram_index.py, from the ids of the prepared dataset."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gptbox.datasets.key_sorter import KeySorter
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.models.ngram_index import (
    BYTE_HASHES,
    FILE_NAME,
    GRAM,
    HEADER_BYTES,
    MARK_BYTES,
    MAX_COPIES,
    MAX_PLACES,
    MAX_TEXT_BYTES,
    PASSAGE,
    STRIDE,
    Bytes,
    Hashes,
    Layout,
    PlaceBits,
    PrefixHashes,
    is_start,
    powers,
    scramble,
)
from gptbox.system.arrays import Ints, group_begins, ranges
from gptbox.system.atomic import atomic_file
from gptbox.tokenizers import Tokenizer

_CHUNK = 1 << 16
"""Bytes or ids converted at once: their arrays fit the processor's cache."""
_ROWS = 1 << 12
"""Places hashed at once."""
_SPACE = 4
"""Bytes of disk space that writing the index takes for each byte of the text."""
_PLACE = np.uint64(0xFFFFFFFF)
_HASH = np.uint64(32)
"""A key has a hash in its high 32 bits, and a place in the low ones."""


def too_large_to_index(dataset: Path, text_bytes: int) -> str | None:
    """Why no index of a training text of this size is written to a folder, as a clause; None if it may be."""
    if text_bytes > MAX_TEXT_BYTES:
        return f"a training text of more than {MAX_TEXT_BYTES / 1e9:.1f} GB gets no index"
    needed = _SPACE * text_bytes
    if needed > shutil.disk_usage(dataset).free / 2:  # snapshots and checkpoints need the disk, too
        return f"writing the index would take {needed / 1e6:,.0f} MB, more than half of the free disk space"
    return None


def write_index(
    dataset: Path,
    ids: NDArray[np.unsignedinteger],
    tokenizer: Tokenizer,
    text_bytes: int,
    on_progress: ProgressCallback = no_progress,
    operation: str = "",
) -> None:
    """Write the index to the folder of a prepared dataset, atomically.

    `ids` are those of the training split, which has `text_bytes` bytes in UTF-8, at most MAX_TEXT_BYTES. The index has
    about twice as many on the disk, and writing it takes as many again and 50 MB of memory. Raises ValueError if ids
    and size do not agree, OSError if the file cannot be written.
    """
    with atomic_file(dataset / FILE_NAME) as path, path.open("w+b") as file:
        writer = _Writer(path, file, text_bytes, lambda done: on_progress(operation, done, text_bytes))
        try:
            for content in _decode(ids, tokenizer):
                writer.add_text(content)
            writer.finish()
        finally:
            writer.close()


def _decode(ids: NDArray[np.unsignedinteger], tokenizer: Tokenizer) -> Iterator[Bytes]:
    """The text of ids in UTF-8, in chunks, which may end within a character."""
    tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
    content = np.frombuffer(b"".join(tokens), np.uint8)
    sizes = np.array([len(token) for token in tokens], np.int64)
    begins = np.cumsum(sizes) - sizes
    one_byte_each = (sizes == 1).all()
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        yield content[chunk] if one_byte_each else content[ranges(begins[chunk], sizes[chunk])]


class _Writer:
    """Writes text, marks and tables one after the other."""

    def __init__(self, path: Path, file: BinaryIO, text_bytes: int, on_bytes: Callable[[int], None]) -> None:
        self._path, self._file, self._text_bytes, self._on_bytes = path, file, text_bytes, on_bytes
        self._text: Bytes = np.empty(0, np.uint8)
        """What has been written of the text, mapped."""
        self._num_written = 0
        self._widest = 1
        """Bytes of the widest character so far."""
        self._rest: Bytes = np.empty(0, np.uint8)
        """The end of the text so far, from the first character whose gram is not complete."""
        self._num_characters = 0
        """Characters before `_rest`."""
        num_keys = text_bytes // STRIDE
        self._grams = KeySorter(path.parent, num_keys, self._thin_grams)
        self._windows = KeySorter(path.parent, num_keys, self._thin_windows)
        file.write(bytes(HEADER_BYTES))

    def add_text(self, content: Bytes) -> None:
        """The next bytes of the text. Raises OSError."""
        self._file.write(content.data)
        self._num_written += len(content)
        self._widen(int(content.max(initial=0)))
        self._rest = np.concatenate([self._rest, content])
        while len(self._rest) >= _CHUNK:
            self._hash_grams(_CHUNK, is_end=False)
        self._on_bytes(self._num_written)

    def _widen(self, highest: int) -> None:
        width = 1 + (highest >= 0xC0) + (highest >= 0xE0) + (highest >= 0xF0)
        self._widest = max(self._widest, width)

    def _hash_grams(self, num_bytes: int, is_end: bool) -> None:
        """Hash the grams in the first bytes of `_rest`, and drop the characters at which they begin."""
        content = self._rest[:num_bytes]
        bounds = np.arange(len(content)) if int(content.max(initial=0)) < 0x80 else np.flatnonzero(is_start(content))
        if is_end:
            bounds = np.append(bounds, len(content))
        num_grams = max(0, len(bounds) - GRAM)
        sampled = np.arange(-self._num_characters % STRIDE, num_grams, STRIDE)
        hashes = PrefixHashes(content).between(bounds[sampled], bounds[sampled + GRAM])
        begin = self._num_written - len(self._rest)
        self._grams.add(_keys(hashes, begin + bounds[sampled]))
        self._rest = self._rest[bounds[num_grams] :]
        self._num_characters += num_grams

    def finish(self) -> None:
        """Write marks, tables and header. Raises OSError, or ValueError if the text has another size."""
        if self._num_written != self._text_bytes:
            raise ValueError(f"it has {self._num_written:,} bytes instead of {self._text_bytes:,}")
        self._hash_grams(len(self._rest), is_end=True)
        self._grams.finish()
        marks, characters = _marks(self._map_text())
        layout = Layout(self._text_bytes, characters, gram_bits=_bucket_bits(self._grams))
        self._file.seek(layout.marks_at)
        self._file.write(marks.astype("<i8").data)
        layout = replace(
            layout, num_grams=self._write_table(layout.grams_at, layout.gram_bits, self._grams, self._move_crowded)
        )
        self._windows.finish()
        layout = replace(layout, window_bits=_bucket_bits(self._windows))
        layout = replace(
            layout,
            num_windows=self._write_table(layout.windows_at, layout.window_bits, self._windows, lambda keys: keys),
        )
        self._file.seek(0)
        self._file.write(layout.header())
        self._file.flush()

    def close(self) -> None:
        self._grams.close()
        self._windows.close()

    def _write_table(self, at: int, bits: int, sorter: KeySorter, select: Callable[[Hashes], Hashes]) -> int:
        """Write the table of the keys that `select` returns for each part, and return their number."""
        place_bits = PlaceBits.of(self._text_bytes)
        buckets_per_part = 1 << (bits - sorter.part_bits)
        places_at = at + 4 * ((1 << bits) + 1)
        num_places = 0
        for part, keys in enumerate(map(select, sorter.parts())):
            hashes = keys >> _HASH
            buckets = (hashes >> np.uint64(32 - bits)).astype(np.int64) - part * buckets_per_part
            counts = np.bincount(buckets, minlength=buckets_per_part)
            self._file.seek(at + 4 * part * buckets_per_part)
            self._file.write((num_places + np.cumsum(counts) - counts).astype("<u4").data)
            self._file.seek(places_at + 4 * num_places)
            self._file.write(((keys & _PLACE).astype(np.uint32) | place_bits.tags(hashes)).astype("<u4").data)
            num_places += len(keys)
        self._file.seek(places_at - 4)
        self._file.write(np.array([num_places], "<u4").data)
        return num_places

    # Grams with many places

    def _thin_grams(self, keys: Hashes) -> Hashes:
        """Of a gram's many places, keep MAX_COPIES of each with the same characters in all passages that contain it."""
        return _thin(keys, MAX_PLACES, lambda places: self._contents(places, STRIDE - 1))

    def _thin_windows(self, keys: Hashes) -> Hashes:
        return _thin(keys, MAX_COPIES, lambda places: self._contents(places, 0))

    def _move_crowded(self, keys: Hashes) -> Hashes:
        """The keys without the grams that have many places all the same, whose passages go to `_windows`."""
        crowded = _crowded(keys, MAX_PLACES)
        places = (keys[crowded] & _PLACE).astype(np.int64)
        for row in range(0, len(places), _ROWS):
            self._add_windows(places[row : row + _ROWS])
        return np.delete(keys, crowded)

    def _add_windows(self, places: Ints) -> None:
        """Add the passages that begin at these places or up to STRIDE - 1 characters before."""
        content, is_ascii = self._bytes_around(places, STRIDE - 1)
        others, places = places[~is_ascii], places[is_ascii]
        sums = np.zeros((len(places), PASSAGE + STRIDE), np.uint64)
        np.cumsum(BYTE_HASHES[content[is_ascii]] * powers()[: PASSAGE + STRIDE - 1], axis=1, out=sums[:, 1:])
        for i in range(STRIDE):
            hashes = scramble((sums[:, i + PASSAGE] - sums[:, i]) * powers(-1)[i])
            self._windows.add(_keys(hashes, places - (STRIDE - 1 - i)))
        for _ in range(STRIDE):
            hashes, are_complete = self._hash_characters(others)
            self._windows.add(_keys(hashes[are_complete], others[are_complete]))
            others = self._previous(others[others > 0])

    def _contents(self, places: Ints, before: int) -> Hashes:
        """Hashes of the `before` characters before each place and PASSAGE from there on, at least, shape (n,)."""
        hashes = np.empty(len(places), np.uint64)
        for row in range(0, len(places), _ROWS):
            some = places[row : row + _ROWS]
            content, is_ascii = self._bytes_around(some, before)
            words = np.pad(content, ((0, 0), (0, -content.shape[1] % 8))).view(np.uint64)
            found = scramble(words[:, 0])
            for i in range(1, words.shape[1]):
                found = scramble(found + words[:, i])
            if not is_ascii.all():
                found[~is_ascii] = self._hash_wide(some[~is_ascii], before)
            hashes[row : row + _ROWS] = found
        return hashes

    def _bytes_around(self, places: Ints, before: int) -> tuple[Bytes, NDArray[np.bool_]]:
        """The `before` bytes before each place and PASSAGE from there on, and whether these are ASCII, shape (n,)."""
        text = self._map_text()
        content = text.take(places[:, None] + np.arange(-before, PASSAGE), mode="clip")
        is_inside = (places >= before) & (places + PASSAGE <= len(text))
        return content, is_inside & (content < 0x80).all(axis=1)

    def _hash_wide(self, places: Ints, before: int) -> Hashes:
        """As `_contents`: of as many bytes as the characters can have."""
        text = self._map_text()
        columns = np.arange(-before * self._widest, PASSAGE * self._widest)
        positions = places[:, None] + columns
        is_inside = (positions >= 0) & (positions < len(text))
        content = BYTE_HASHES[text.take(positions, mode="clip")]
        return scramble((content * powers()[: len(columns)] * is_inside).sum(axis=1, dtype=np.uint64))

    def _hash_characters(self, places: Ints) -> tuple[Hashes, NDArray[np.bool_]]:
        """Hashes of the PASSAGE characters at each place, and whether the text is long enough there, both (n,)."""
        text = self._map_text()
        columns = np.arange(PASSAGE * self._widest)
        positions = places[:, None] + columns
        content = text.take(positions, mode="clip")
        is_inside = positions < len(text)
        numbers = np.cumsum(is_start(content) & is_inside, axis=1)
        is_hashed = is_inside & (numbers <= PASSAGE)
        hashes = (BYTE_HASHES[content] * powers()[: len(columns)] * is_hashed).sum(axis=1, dtype=np.uint64)
        return scramble(hashes), numbers[:, -1] >= PASSAGE

    def _previous(self, places: Ints) -> Ints:
        """The start of the character before each of `places`, which are all above 0."""
        text = self._map_text()
        places = places - 1
        for _ in range(self._widest - 1):
            places -= ~is_start(text[places])
        return places

    def _map_text(self) -> Bytes:
        if len(self._text) < self._num_written:
            self._file.flush()
            shape = (self._num_written,)
            self._text = np.memmap(self._path, np.uint8, "r", HEADER_BYTES, shape).view(np.ndarray)
        return self._text


def _keys(hashes: Hashes, places: Ints) -> Hashes:
    return (hashes & ~_PLACE) | places.astype(np.uint64)


def _bucket_bits(sorter: KeySorter) -> int:
    """For 4 to 8 keys in a bucket, and whole buckets in each part."""
    return max(sorter.part_bits, (sorter.num_keys // 4).bit_length() - 1, 0)


def _marks(text: Bytes) -> tuple[Ints, int]:
    """The characters and line breaks before each block of MARK_BYTES, shape (blocks, 2), and all characters."""
    counts = []
    for start in range(0, len(text), 64 * MARK_BYTES):
        some = text[start : start + 64 * MARK_BYTES]
        blocks = np.arange(0, len(some), MARK_BYTES)
        counts.append(
            np.stack([np.add.reduceat(flags, blocks, dtype=np.int64) for flags in (is_start(some), some == 10)], axis=1)
        )
    totals = np.cumsum(np.concatenate([np.zeros((1, 2), np.int64), *counts]), axis=0)
    return totals[: len(text) // MARK_BYTES + 1], int(totals[-1, 0])


def _crowded(keys: Hashes, limit: int) -> Ints:
    """Of sorted keys, the indices of those whose hash more than `limit` have."""
    hashes = keys >> _HASH
    crowded = np.unique(hashes[limit:][hashes[limit:] == hashes[:-limit]])
    begins = np.searchsorted(hashes, crowded)
    return ranges(begins, np.searchsorted(hashes, crowded, "right") - begins)


def _thin(keys: Hashes, limit: int, hash_contents: Callable[[Ints], Hashes]) -> Hashes:
    """Sorted keys without some of those whose hash more than `limit` have: MAX_COPIES of equal contents are kept."""
    crowded = _crowded(keys, limit)
    contents = hash_contents((keys[crowded] & _PLACE).astype(np.int64))
    order = np.argsort(contents, kind="stable")
    contents = contents[order]
    begins = group_begins(contents)
    copies = np.arange(len(contents)) - np.repeat(begins, np.diff(begins, append=len(contents)))
    return np.delete(keys, crowded[order[copies >= MAX_COPIES]])
