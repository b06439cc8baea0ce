"""Sorts 64-bit keys, in bounded memory: in sorted runs on the disk, from which ranges of keys are collected."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np

from gptbox.models.ngram_index import Hashes
from gptbox.system.arrays import Ints

RUN = 1 << 20
"""Keys sorted at once, of 8 bytes."""


class KeySorter:
    """Keys in parts by their highest bits; `close` frees the disk space."""

    def __init__(self, folder: Path, num_keys: int, thin: Callable[[Hashes], Hashes]) -> None:
        """A temporary file in `folder` is used if there are more keys than RUN; about `num_keys` will come.

        `thin` may remove some of a sorted array of keys. It is applied to each run, and again to each part.
        """
        self.part_bits = max(0, (num_keys // RUN).bit_length())
        self.num_keys = 0
        """Number of keys added, less those that `thin` removed from runs."""
        self._folder, self._thin = folder, thin
        self._file: BinaryIO | None = None
        self._pending: list[Hashes] = []
        self._num_pending = 0
        self._runs: list[tuple[int, Ints]] = []
        """Of each run on the disk, its position in the file, in keys, and where each part begins in it."""

    def add(self, keys: Hashes) -> None:
        """Raises OSError."""
        self._pending.append(keys)
        self._num_pending += len(keys)
        if self._num_pending >= RUN:
            keys = self._take_pending()
            self._file = self._file or TemporaryFile(dir=self._folder)  # noqa: SIM115  (closed by `close`)
            cuts = np.arange(1, 1 << self.part_bits, dtype=np.uint64) << np.uint64(64 - self.part_bits)
            begins = np.concatenate([[0], np.searchsorted(keys, cuts), [len(keys)]])
            self._runs.append((self._file.tell() // 8, begins))
            self._file.write(keys.data)

    def _take_pending(self) -> Hashes:
        keys = np.concatenate([np.empty(0, np.uint64), *self._pending])
        self._pending, self._num_pending = [], 0
        keys.sort()
        keys = self._thin(keys)
        self.num_keys += len(keys)
        return keys

    def finish(self) -> None:
        """Call it after the last `add`."""
        self._pending = [self._take_pending()]

    def parts(self) -> Iterator[Hashes]:
        """The keys in order, in 2 ** part_bits parts of about RUN keys, by their first `part_bits` bits.

        Raises OSError.
        """
        (rest,) = self._pending
        shift = np.uint64(64 - self.part_bits)
        for part in range(1 << self.part_bits):
            pieces = [rest if self.part_bits == 0 else rest[rest >> shift == part]]
            for position, begins in self._runs:
                assert self._file is not None
                begin, end = begins[part : part + 2].tolist()
                self._file.seek(8 * (position + begin))
                pieces.append(np.frombuffer(self._file.read(8 * (end - begin)), np.uint64))
            if len(pieces) == 1:
                yield pieces[0]
                continue
            keys = np.concatenate(pieces)
            keys.sort()
            yield self._thin(keys)

    def close(self) -> None:
        self._pending, self._runs = [], []
        if self._file is not None:
            self._file.close()
