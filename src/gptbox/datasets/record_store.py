"""Records in parts by a hash, in memory or in a file, so that each part can be examined on its own."""

import os
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Records = NDArray[np.void]
"""Of a structured type, with a field of type uint64 that is a hash."""

_FLUSH = 1 << 16
"""Records written at once."""


class RecordStore:
    """Keeps records in the order of `add`: in memory if there is one part, otherwise at the end of a file.

    Records with the same hash are in the same part.
    """

    def __init__(self, file: BinaryIO, parts: int, key: str) -> None:
        """`key` is the field with the hash. Until `close`, nobody else may write to the file."""
        self.parts = parts
        self._file, self._key = file, key
        self._pending: list[Records] = []
        self._num_pending = 0
        self._written: list[list[tuple[int, int]]] = [[] for _ in range(parts)]
        """Of each part, the blocks that were written: position and number of bytes."""
        self._begin: int | None = None
        """Where the first block was written."""
        self._dtype: np.dtype[Any] = np.dtype(np.void)

    def add(self, records: Records) -> None:
        """Raises OSError."""
        self._dtype = records.dtype
        self._pending.append(records)
        self._num_pending += len(records)
        if self.parts > 1 and self._num_pending >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        records = np.concatenate(self._pending)
        self._pending, self._num_pending = [], 0
        part = (records[self._key] >> np.uint64(32)) % np.uint64(self.parts)
        position = self._file.seek(0, os.SEEK_END)
        self._begin = position if self._begin is None else self._begin
        for i, written in enumerate(self._written):
            content = records[part == i].tobytes()
            self._file.write(content)
            written.append((position, len(content)))
            position += len(content)

    def take(self, part: int) -> Records:
        """The records of a part, once and after the last `add`. Raises OSError."""
        if self.parts == 1:
            records = np.concatenate(self._pending)
            self._pending = []
            return records
        if self._pending:
            self._flush()
        blocks = []
        for position, size in self._written[part]:
            self._file.seek(position)
            blocks.append(self._file.read(size))
        return np.frombuffer(b"".join(blocks), self._dtype)

    def close(self) -> None:
        """Remove the records from the file. Raises OSError."""
        if self._begin is not None:
            self._file.truncate(self._begin)
