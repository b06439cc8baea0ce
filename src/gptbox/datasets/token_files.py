"""Token ids on disk: train.bin and val.bin, uint16, little-endian."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptbox.datasets.base import Corpus
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.errors import DatasetError
from gptbox.tokenizers import Tokenizer

_CHUNK = 1 << 16  # ids counted at once: their arrays fit the processor's cache


def count_ids(ids: NDArray[np.uint16], vocab_size: int) -> NDArray[np.int64]:
    """Occurrences of each id, shape (vocab_size,), or longer if an id is outside the vocabulary."""
    total = np.zeros(vocab_size, np.int64)
    for start in range(0, len(ids), _CHUNK):  # in chunks, because bincount widens its input to 64 bits
        counts = np.bincount(ids[start : start + _CHUNK], minlength=vocab_size)
        if len(counts) > len(total):
            total = np.pad(total, (0, len(counts) - len(total)))
        total[: len(counts)] += counts
    return total


def write_ids(
    corpus: Corpus,
    tokenizer: Tokenizer,
    num_train: int,
    folder: Path,
    on_progress: ProgressCallback = no_progress,
    operation: str = "",
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write train.bin, the ids of the first `num_train` characters, and val.bin, those of the rest.

    Returns the occurrences of each id in the two files, each (vocab_size,). Raises DatasetError if the text is not the
    one that `corpus.summary` describes, OSError if the files cannot be written.
    """
    text = _TextReader(corpus, on_progress, operation)
    train = _write_split(folder / "train.bin", tokenizer, text.take(num_train))
    val = _write_split(folder / "val.bin", tokenizer, text.take(None))
    if text.sha256.hexdigest() != corpus.summary.sha256:
        raise DatasetError(f"{corpus.source} changed while it was read. Start again once it is complete.")
    return train, val


def _write_split(path: Path, tokenizer: Tokenizer, blocks: Iterator[str]) -> NDArray[np.int64]:
    """Write the ids of a split; returns the occurrences of each id."""
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    with path.open("wb") as file:
        for ids in tokenizer.encode_blocks(blocks):
            file.write(ids.astype("<u2", copy=False).data)
            counts += count_ids(ids, tokenizer.vocab_size)
    return counts


class _TextReader:
    """Reads a corpus once, in parts of a given length, and hashes and reports what it reads."""

    def __init__(self, corpus: Corpus, on_progress: ProgressCallback, operation: str) -> None:
        self.sha256 = hashlib.sha256()
        """Of the UTF-8 bytes read so far."""
        self._blocks = iter(corpus)
        self._unread = ""
        """The rest of the block that the last part ended in."""
        self._num_read = 0
        self._num_characters = corpus.summary.characters
        self._on_progress, self._operation = on_progress, operation

    def take(self, num_characters: int | None) -> Iterator[str]:
        """The blocks of the next `num_characters` characters; None takes the rest of the text."""
        end = None if num_characters is None else self._num_read + num_characters
        while end is None or self._num_read < end:
            block = self._unread or next(self._blocks, None)
            if block is None:
                return
            size = len(block) if end is None else end - self._num_read
            block, self._unread = block[:size], block[size:]
            self.sha256.update(block.encode("utf-8"))
            self._num_read += len(block)
            yield block
            self._on_progress(self._operation, self._num_read, self._num_characters)
