"""Token ids on disk: train.bin and val.bin, uint16, little-endian."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptbox.datasets.base import CODE_POINTS, Corpus
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.errors import DatasetError
from gptbox.tokenizers.char import CharTokenizer

_CHUNK = 1 << 16  # characters or ids processed at once: their arrays fit the processor's cache


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
    tokenizer: CharTokenizer,
    num_train: int,
    folder: Path,
    on_progress: ProgressCallback = no_progress,
    operation: str = "",
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write train.bin, the ids of the first `num_train` characters, and val.bin, those of the rest.

    Returns the occurrences of each id in the two files, each (vocab_size,). Raises DatasetError if the text has changed
    since the tokenizer was made, OSError if the files cannot be written.
    """
    counts = np.zeros((2, tokenizer.vocab_size), np.int64)
    characters = 0
    with (folder / "train.bin").open("wb") as train, (folder / "val.bin").open("wb") as val:
        for ids in _encode(corpus, tokenizer):
            train_left = max(0, num_train - characters)
            for split, (file, part) in enumerate(((train, ids[:train_left]), (val, ids[train_left:]))):
                file.write(part.data)
                part_counts = count_ids(part, tokenizer.vocab_size)
                if len(part_counts) > tokenizer.vocab_size:
                    raise DatasetError(f"{corpus.source} changed while it was read. Start again once it is complete.")
                counts[split] += part_counts
            characters += len(ids)
            on_progress(operation, characters, corpus.summary.characters)
    if characters != corpus.summary.characters:
        raise DatasetError(f"{corpus.source} changed while it was read. Start again once it is complete.")
    return counts[0], counts[1]


def _encode(corpus: Corpus, tokenizer: CharTokenizer) -> Iterator[NDArray[np.uint16]]:
    """The ids in chunks. An unknown character gets an id outside the vocabulary, if uint16 has one."""
    table = np.full(CODE_POINTS, min(tokenizer.vocab_size, 65_535), "<u2")
    table[[ord(character) for character in tokenizer.characters]] = np.arange(tokenizer.vocab_size)
    for block in corpus.blocks():
        for start in range(0, len(block), _CHUNK):
            code_points = np.frombuffer(block[start : start + _CHUNK].encode("utf-32-le"), "<u4")
            # No code point exceeds the table; "clip" avoids the bounds check, which takes longer than the look-up.
            yield table.take(code_points, mode="clip")
