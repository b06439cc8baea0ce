"""An index of the n-grams of a run's training text, to find passages of other texts in it.

    dataset/train.ngrams   header   JSON, padded to HEADER_BYTES
                           text     the training split in UTF-8
                           marks    for each MARK_BYTES of the text, the characters and line breaks before them, int64
                           grams, windows    two tables: offsets by bucket, and places, uint32

Of any PASSAGE characters, one of the first STRIDE is at a multiple of STRIDE in the text, and the GRAM characters from
there on are among them. The table `grams` has the places, in bytes, of these grams only, by a hash: one place for
STRIDE characters. A look-up takes each gram of another text, wherever it is there, and compares the texts.

A gram with more than MAX_PLACES places would make look-ups slow. The table `windows` has, instead of these places, each
passage of PASSAGE characters around them by its own hash: the first MAX_COPIES places of each. So every passage is
found, in a bounded time, though not at each of its many places.
"""

import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptbox.errors import DamagedIndexError, NoIndexError
from gptbox.system.arrays import Ints, ranges

PASSAGE = 20
"""Characters of the shortest passage that is always found."""
STRIDE = 5
GRAM = PASSAGE - STRIDE + 1
MAX_PLACES = 64
MAX_COPIES = 16

FILE_NAME = "train.ngrams"
FORMAT_VERSION = 1
HEADER_BYTES = 4096
MARK_BYTES = 4096
MAX_TEXT_BYTES = (1 << 32) - 1
"""Size of the longest text that has an index: places have 32 bits."""
_MAX_BUCKET = 2048
"""More places than a bucket can have: it has 8 hashes in the mean, and a hash MAX_PLACES."""
MAX_HASHED = 1 << 17
"""Bytes that a PrefixHashes can have."""

Bytes = NDArray[np.uint8]
Hashes = NDArray[np.uint64]

_BITS = np.random.PCG64(20)  # its raw bits are the same in all versions of NumPy
BYTE_HASHES: Hashes = np.array(_BITS.random_raw(256), np.uint64)
_BASE = int(_BITS.random_raw()) | 1


def is_start(content: Bytes) -> NDArray[np.bool_]:
    """Which bytes of UTF-8 begin a character."""
    starts: NDArray[np.bool_] = (content & 0xC0) != 0x80
    return starts


@cache
def powers(exponent: int = 1) -> Hashes:
    """The powers of _BASE ** exponent modulo 2**64, shape (MAX_HASHED,)."""
    factors = np.full(MAX_HASHED, pow(_BASE, exponent, 1 << 64), np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


def scramble(hashes: Hashes) -> Hashes:
    """Make every bit depend on all bits: those of a polynomial depend on lower ones only."""
    hashes = (hashes ^ (hashes >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    hashes = (hashes ^ (hashes >> np.uint64(29))) * np.uint64(0xC2B2AE3D27D4EB4F)
    return hashes ^ (hashes >> np.uint64(32))


class PrefixHashes:
    """Hashes of the substrings of some bytes: polynomials in _BASE, from the sums of all prefixes."""

    def __init__(self, content: Bytes) -> None:
        """`content` has at most MAX_HASHED bytes."""
        self._sums = np.zeros(len(content) + 1, np.uint64)
        np.cumsum(BYTE_HASHES[content] * powers()[: len(content)], out=self._sums[1:])

    def between(self, starts: Ints, ends: Ints) -> Hashes:
        """The hashes of the bytes from starts[i] to ends[i], shape (n,)."""
        # powers(-1) has the inverses: the base is odd.
        return scramble((self._sums[ends] - self._sums[starts]) * powers(-1)[starts])


@dataclass(frozen=True)
class Layout:
    """What the header says, from which the places of all sections follow."""

    text_bytes: int
    characters: int
    gram_bits: int = 0
    """A table has 2 ** bits buckets."""
    num_grams: int = 0
    window_bits: int = 0
    num_windows: int = 0

    @property
    def marks_at(self) -> int:
        return HEADER_BYTES + -(-self.text_bytes // 8) * 8

    @property
    def grams_at(self) -> int:
        return self.marks_at + 16 * (self.text_bytes // MARK_BYTES + 1)

    @property
    def windows_at(self) -> int:
        return self.grams_at + 4 * ((1 << self.gram_bits) + 1 + self.num_grams)

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self.windows_at + 4 * ((1 << self.window_bits) + 1 + self.num_windows)

    def header(self) -> bytes:
        return json.dumps({"format_version": FORMAT_VERSION} | asdict(self)).encode().ljust(HEADER_BYTES)

    @classmethod
    def read(cls, path: Path) -> "Layout":
        """Raises NoIndexError if there is no file, DamagedIndexError if it is not complete or of another version."""
        try:
            with path.open("rb") as file:
                header, size = file.read(HEADER_BYTES), os.fstat(file.fileno()).st_size
            content = json.loads(header)
            if content.pop("format_version") != FORMAT_VERSION:
                raise DamagedIndexError(f"{path} was written by another version of gptbox.")
            layout = cls(**content)
            if not all(type(value) is int and 0 <= value < 1 << 40 for value in content.values()):
                raise ValueError("its header has other values than counts")
            if max(layout.gram_bits, layout.window_bits) > 32:
                raise ValueError("its tables have too many buckets")
            if layout.size != size:
                raise ValueError(f"it has {size:,} bytes, and its header says {layout.size:,}")
        except FileNotFoundError:
            raise NoIndexError(f"{path} is missing.") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamagedIndexError(f"{path} is damaged: {error}.") from None
        return layout


@dataclass(frozen=True)
class PlaceBits:
    """How a place is stored: its byte in the lowest bits, some bits of the hash in the others."""

    num_bits: int
    """Of the byte."""

    @classmethod
    def of(cls, text_bytes: int) -> "PlaceBits":
        return cls(max(1, text_bytes.bit_length()))

    @property
    def mask(self) -> int:
        return (1 << self.num_bits) - 1

    def tags(self, hashes: Hashes) -> NDArray[np.uint32]:
        """The bits of the hashes that are stored, in their place."""
        tag_mask = np.uint64(0xFFFFFFFF >> self.num_bits)
        return ((hashes & tag_mask) << np.uint64(self.num_bits)).astype(np.uint32)


class Table:
    """Places by hash. Two hashes in the same bucket are told apart by a few bits only."""

    def __init__(self, content: NDArray[np.uint32], bits: int, place_bits: PlaceBits) -> None:
        """`content` is the table's section."""
        self._offsets, self._places = np.split(content, [(1 << bits) + 1])
        self._shift, self._place_bits = np.uint64(32 - bits), place_bits

    def find(self, hashes: Hashes) -> tuple[Ints, Ints]:
        """The places that may have these hashes (of 32 bits): the index of the hash, and the byte, each (places,).

        Raises ValueError or IndexError if the table is damaged.
        """
        buckets = (hashes >> self._shift).astype(np.int64)
        begins = self._offsets[buckets].astype(np.int64)
        sizes = self._offsets[buckets + 1].astype(np.int64) - begins
        if sizes.min(initial=0) < 0 or sizes.max(initial=0) > _MAX_BUCKET:
            raise ValueError("its buckets are not in order")
        which = np.repeat(np.arange(len(hashes)), sizes)
        places = self._places[ranges(begins, sizes)]
        found = (places & np.uint32(~self._place_bits.mask & 0xFFFFFFFF)) == self._place_bits.tags(hashes)[which]
        return which[found], places[found].astype(np.int64) & self._place_bits.mask


class NgramIndex:
    """An open index. The file is mapped into memory: opening it reads the header only."""

    def __init__(self, path: Path) -> None:
        """Raises NoIndexError or DamagedIndexError, as Layout.read."""
        self.layout = layout = Layout.read(path)
        memory = np.memmap(path, np.uint8, "r").view(np.ndarray)

        def section(start: int, end: int, dtype: Any) -> NDArray[Any]:
            return memory[start:end].view(np.dtype(dtype).newbyteorder("<"))

        self.text: Bytes = memory[HEADER_BYTES : HEADER_BYTES + layout.text_bytes]
        """The training split in UTF-8."""
        self._marks = section(layout.marks_at, layout.grams_at, np.int64).reshape(-1, 2)
        bits = PlaceBits.of(layout.text_bytes)
        self.grams = Table(section(layout.grams_at, layout.windows_at, np.uint32), layout.gram_bits, bits)
        self.windows = Table(section(layout.windows_at, layout.size, np.uint32), layout.window_bits, bits)

    def locate(self, place: int) -> tuple[int, int]:
        """The number of characters before a byte of the text, and its line, counted from 1."""
        block = place // MARK_BYTES
        rest = self.text[block * MARK_BYTES : place]
        characters, lines = self._marks[block].tolist()
        return characters + int(np.count_nonzero(is_start(rest))), 1 + lines + int(np.count_nonzero(rest == 10))

    def context(self, start: int, end: int, characters: int) -> tuple[str, str]:
        """At most `characters` characters before byte `start`, and as many after byte `end`."""
        before = self.text[max(0, start - 4 * characters) : start].tobytes().decode("utf-8", "ignore")
        after = self.text[end : end + 4 * characters].tobytes().decode("utf-8", "ignore")
        return before[-characters:], after[:characters]


def has_index(dataset: Path, text_bytes: int | None = None) -> bool:
    """Whether the folder of a prepared dataset has a complete index, of a training split of this size."""
    try:
        layout = Layout.read(dataset / FILE_NAME)
    except NoIndexError:
        return False
    return text_bytes in (None, layout.text_bytes)
