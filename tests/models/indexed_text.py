"""The index of a text, as preparing writes it, and what is copied from the text, found without an index."""

from pathlib import Path

import numpy as np

from gptbox.datasets.ngram_writer import write_index
from gptbox.models.ngram_index import FILE_NAME, PASSAGE, NgramIndex
from gptbox.tokenizers.byte import ByteTokenizer


def index_of(text: str, folder: Path) -> NgramIndex:
    """Write the index of a text to a folder, and open it."""
    content = text.encode()
    write_index(folder, np.frombuffer(content, np.uint8).astype(np.uint16), ByteTokenizer(), len(content))
    return NgramIndex(folder / FILE_NAME)


def copied_spans(train: str, text: str) -> list[tuple[int, int]]:
    """The spans that find_copied should find, by looking for everything everywhere."""
    ends, end = [], 0  # of each character, the end of the longest copied passage that begins there
    for start in range(len(text)):
        end = max(end, start)
        while end < len(text) and text[start : end + 1] in train:
            end += 1
        ends.append(end if end - start >= PASSAGE else 0)
    spans, position = [], 0
    while position < len(text):
        if (end := max(ends[: position + 1])) > position:
            spans.append((position, end))
            position = end
        else:
            position += 1
    return spans
