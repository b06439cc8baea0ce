"""A text's token ids on the disk: train.bin and val.bin, uint16, little-endian."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptbox.datasets.base import CODE_POINTS, Text
from gptbox.datasets.progress import Watch, silent
from gptbox.errors import DatasetError
from gptbox.tokenizers.char import CharTokenizer

_PIECE = 1 << 16  # characters or ids: what is made of so many stays in the processor's cache


def count_ids(ids: NDArray[np.uint16], vocab_size: int) -> NDArray[np.int64]:
    """How often each id occurs, shape (vocab_size,), or longer where one is not in the vocabulary."""
    total = np.zeros(vocab_size, np.int64)
    for start in range(0, len(ids), _PIECE):  # in pieces, because bincount widens its input to 64 bits
        counts = np.bincount(ids[start : start + _PIECE], minlength=vocab_size)
        if len(counts) > len(total):
            total = np.pad(total, (0, len(counts) - len(total)))
        total[: len(counts)] += counts
    return total


def write_ids(
    text: Text, tokenizer: CharTokenizer, cut: int, folder: Path, watch: Watch = silent, what: str = ""
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write train.bin, the ids of the first `cut` characters, and val.bin, those of the rest.

    Returns how often each id occurs in either, each (vocab_size,). Raises DatasetError where the text is not the one
    that the tokenizer was made for, OSError where the files cannot be written.
    """
    counts = np.zeros((2, tokenizer.vocab_size), np.int64)
    characters = 0
    with (folder / "train.bin").open("wb") as train, (folder / "val.bin").open("wb") as val:
        for ids in _encode(text, tokenizer):
            room = max(0, cut - characters)
            for part, (file, piece) in enumerate(((train, ids[:room]), (val, ids[room:]))):
                file.write(piece.data)
                found = count_ids(piece, tokenizer.vocab_size)
                if len(found) > tokenizer.vocab_size:
                    raise DatasetError(f"{text.source} changed while it was read. Start again once it is complete.")
                counts[part] += found
            characters += len(ids)
            watch(what, characters, text.summary.characters)
    if characters != text.summary.characters:
        raise DatasetError(f"{text.source} changed while it was read. Start again once it is complete.")
    return counts[0], counts[1]


def _encode(text: Text, tokenizer: CharTokenizer) -> Iterator[NDArray[np.uint16]]:
    """The ids in pieces; what the tokenizer does not know gets an id that it does not have, where there is one."""
    table = np.full(CODE_POINTS, min(tokenizer.vocab_size, 65_535), "<u2")
    table[[ord(character) for character in tokenizer.characters]] = np.arange(tokenizer.vocab_size)
    for block in text.blocks():
        for start in range(0, len(block), _PIECE):
            points = np.frombuffer(block[start : start + _PIECE].encode("utf-32-le"), "<u4")
            # No code point is beyond the table; "clip" spares the check, which takes longer than the look-up.
            yield table.take(points, mode="clip")
