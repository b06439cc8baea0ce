"""Token ids on disk: train.bin and val.bin, of the tokenizer's dtype, little-endian."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptbox.datasets.base import Corpus
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.errors import DatasetError
from gptbox.tokenizers import Tokenizer

_CHUNK = 1 << 16  # ids counted at once: their arrays fit the processor's cache


def count_ids(ids: NDArray[np.unsignedinteger], vocab_size: int) -> NDArray[np.int64]:
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
    has_ends = tokenizer.eos_id is not None and corpus.summary.documents > 1
    train = _write_split(folder / "train.bin", tokenizer, text.read(num_train, has_ends))
    val = _write_split(folder / "val.bin", tokenizer, text.read(None, has_ends))
    if text.sha256.hexdigest() != corpus.summary.sha256:
        raise DatasetError(f"{corpus.source} changed while it was read. Start again once it is complete.")
    return train, val


def _write_split(path: Path, tokenizer: Tokenizer, blocks: Iterable[str | None]) -> NDArray[np.int64]:
    """Write the ids of blocks, as `Tokenizer.encode_documents` takes them; returns the occurrences of each id."""
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    little_endian = tokenizer.dtype.newbyteorder("<")
    with path.open("wb") as file:
        for ids in tokenizer.encode_documents(blocks):
            file.write(ids.astype(little_endian, copy=False).data)
            counts += count_ids(ids, tokenizer.vocab_size)
    return counts


class _TextReader:
    """Reads a corpus once, in parts of a given length, and hashes and reports what it reads."""

    def __init__(self, corpus: Corpus, on_progress: ProgressCallback, operation: str) -> None:
        self.sha256 = hashlib.sha256()
        """Of the UTF-8 bytes read so far."""
        self._documents = iter(corpus.documents())
        self._blocks: Iterator[str] = iter(())
        """The rest of the document that the last part ended in."""
        self._unread = ""
        """The rest of the block that the last part ended in."""
        self._at_document_end = True
        """Whether the document that was read last has been read to its end."""
        self._num_read = 0
        self._num_characters = corpus.summary.characters
        self._on_progress, self._operation = on_progress, operation

    def read(self, num_characters: int | None, has_ends: bool) -> Iterator[str | None]:
        """The next `num_characters` characters, in blocks; None takes the rest of the text.

        If `has_ends`, None follows each document that ends in them. The first document may have begun in the part
        before, and the last may go on in the next one.
        """
        end = None if num_characters is None else self._num_read + num_characters
        while end is None or self._num_read < end:
            if self._at_document_end:
                document = next(self._documents, None)
                if document is None:
                    return
                self._blocks, self._at_document_end = iter(document.blocks), False
            yield from self._until(end)
            if has_ends and self._at_document_end:
                yield None

    def _until(self, end: int | None) -> Iterator[str]:
        """The blocks of the current document, up to the character `end` of the text."""
        while True:
            if not self._unread:
                block = next(self._blocks, None)
                if block is None:
                    self._at_document_end = True
                    return
                self._unread = block
                continue
            size = len(self._unread) if end is None else min(len(self._unread), end - self._num_read)
            if not size:
                return
            block, self._unread = self._unread[:size], self._unread[size:]
            self.sha256.update(block.encode("utf-8"))
            self._num_read += size
            yield block
            self._on_progress(self._operation, self._num_read, self._num_characters)
